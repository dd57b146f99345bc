//! `keyhatch access`: who may use and change one connection or group.

pub(crate) mod block;
pub(crate) mod suggest;

use std::collections::BTreeSet;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tonic::transport::Channel;

use super::bindings::{access_of, relation_name};
use super::resource::BoundResource;
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{print, say};
use crate::cli::io::text::table;
use crate::cli::operator::parts::impact::confirm_changes;
use crate::grpc::pb;
use crate::grpc::pb::preview_request::Change;
use crate::model::RunAs;
use block::BlockArgs;
use suggest::AccessSuggestArgs;

/// At most so many attempts while somebody else changes the same resource.
const MAX_ATTEMPTS: usize = 5;

#[derive(Subcommand)]
pub enum AccessCommand {
    /// Give principals a relation
    Add(AccessChangeArgs),
    /// Take a relation away from principals
    Remove(AccessChangeArgs),
    /// Show who has which relation
    #[command(alias = "ls")]
    List {
        /// INTEGRATION/NAME of a connection, or group:NAME.
        #[arg(value_name = "REF")]
        reference: String,
    },
    /// List bindings that a workflow does not need, by what it has used
    Suggest(AccessSuggestArgs),
    /// Keep a connection back from all steps, or everything from a workflow, run or step, until it is unblocked
    Block(BlockArgs),
    /// Lift a block
    Unblock(BlockArgs),
    /// List what is blocked, by whom and why
    Blocks,
}

/// Arguments of `access add` and `access remove`.
#[derive(clap::Args)]
pub struct AccessChangeArgs {
    /// INTEGRATION/NAME of a connection, or group:NAME.
    #[arg(value_name = "REF")]
    reference: String,
    /// The relation. Each includes those before it; a group has neither users nor resolvers.
    #[arg(long, value_enum)]
    relation: RelationArgument,
    /// workflow:NAME, workflow:NAME/step:NAME, workflow:NAME/step:PREFIX*, workflow:PREFIX*, workflow:*,
    /// operator:NAME, user:NAME, team:NAME, role:NAME or service-account:NAME; may be given more than once.
    #[arg(long, required = true, value_name = "PRINCIPAL")]
    principal: Vec<String>,
    /// Do not show what it breaks, and do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RelationArgument {
    /// May see it; for a group: may use it.
    Viewer,
    /// May have the broker act with the credential, and gets no value.
    User,
    /// May receive the credential.
    Resolver,
    /// May change and delete it.
    Editor,
}

impl From<RelationArgument> for pb::Relation {
    fn from(relation: RelationArgument) -> Self {
        match relation {
            RelationArgument::Viewer => Self::Viewer,
            RelationArgument::User => Self::User,
            RelationArgument::Resolver => Self::Resolver,
            RelationArgument::Editor => Self::Editor,
        }
    }
}

impl AccessCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        match self {
            Self::Add(change) => change.run(common, channel, true).await,
            Self::Remove(change) => change.run(common, channel, false).await,
            Self::Suggest(suggest) => suggest.run(common, channel).await,
            Self::Block(block) => block.block(common, channel).await,
            Self::Unblock(block) => block.unblock(common, channel).await,
            Self::Blocks => block::list_all(common, channel).await,
            Self::List { reference } => {
                show(common, &reference, &BoundResource::read(channel, &reference).await?)
            }
        }
    }
}

impl AccessChangeArgs {
    async fn run(self, common: &Common, channel: Channel, add: bool) -> Result<(), Failure> {
        let (mut attempt, mut is_agreed) = (1, self.yes);
        loop {
            let mut resource = BoundResource::read(channel.clone(), &self.reference).await?;
            let names_somebody = names_run_as(&resource.access);
            if !self.change(&mut resource.access, add) {
                say("nothing to change");
                return show(common, &self.reference, &resource);
            }
            let is_first = names_run_as(&resource.access) && !names_somebody;
            let access = resource.access.clone();
            let change = pb::AccessChange { name: resource.name.clone(), access };
            let question = format!("Change the access to {}?", self.reference);
            confirm_changes(&channel, is_agreed, vec![Change::Access(change)], &question).await?;
            // Asked once, whatever others change meanwhile.
            is_agreed = true;
            match resource.write_access(channel.clone()).await {
                Err(failure) if failure.reason == "ETAG_MISMATCH" && attempt < MAX_ATTEMPTS => {
                    attempt += 1;
                }
                Err(failure) => return Err(failure),
                Ok(written) => {
                    if is_first {
                        say(&format!(
                            "note: steps without --run-as can no longer use {}",
                            self.reference
                        ));
                    }
                    return show(common, &self.reference, &written);
                }
            }
        }
    }

    /// Changes the bindings. True if that made a difference.
    fn change(&self, access: &mut Vec<pb::AccessBinding>, add: bool) -> bool {
        let relation = pb::Relation::from(self.relation);
        let found = access.iter_mut().find(|one| one.relation() == relation);
        let principals = match (found, add) {
            (Some(binding), _) => &mut binding.principals,
            (None, false) => return false,
            (None, true) => {
                let (relation, principals) = (relation.into(), self.principal.clone());
                access.push(pb::AccessBinding { relation, principals });
                return true;
            }
        };
        let before: BTreeSet<String> = principals.iter().cloned().collect();
        match add {
            true => principals
                .extend(self.principal.iter().filter(|one| !before.contains(*one)).cloned()),
            false => principals.retain(|one| !self.principal.contains(one)),
        }
        before != principals.iter().cloned().collect()
    }
}

/// True if a binding names a principal that steps run as.
fn names_run_as(access: &[pb::AccessBinding]) -> bool {
    let mut principals = access.iter().flat_map(|binding| &binding.principals);
    principals.any(|one| one.parse::<RunAs>().is_ok())
}

fn show(common: &Common, reference: &str, resource: &BoundResource) -> Result<(), Failure> {
    let access = &resource.access;
    let answer = json!({ "resource": reference, "access": access_of(access) });
    let rows = || {
        let bound = access.iter().flat_map(|binding| {
            let relation = relation_name(binding.relation()).to_owned();
            binding.principals.iter().map(move |one| vec![relation.clone(), one.clone()])
        });
        let bound: Vec<_> = bound.collect();
        match bound.is_empty() {
            true => format!("nobody has any relation to {reference}"),
            false => table(&["relation", "principal"], bound),
        }
    };
    let names = || {
        let names: BTreeSet<&str> =
            access.iter().flat_map(|one| one.principals.iter().map(String::as_str)).collect();
        names.into_iter().collect::<Vec<_>>().join("\n")
    };
    print(common.output, &answer, rows, names)
}
