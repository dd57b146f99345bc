//! `keyhatch import`: credentials that somebody has elsewhere become documents, as `apply` sends them.
//!
//! A reader makes documents of a file's bytes, and says what it leaves out ([`Found`]); it reads nothing else and
//! writes nothing. A file is data: values are texts that stand in it, and nothing of whoever imports it gets into them.
//! What the files become is shown by name before anything is sent. Values are shown nowhere.

mod fit;
mod formats;
mod found;
mod names;
mod place;
mod plan;
mod source;
mod wanted;

use std::path::PathBuf;

use clap::ValueEnum;

use super::apply::{print_applied, send};
use super::plan::ask;
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::pages;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::printable;
use crate::grpc::pb;
use crate::model::WorkflowName;
use found::Found;
use names::Names;
use plan::Plan;
use source::Source;
use wanted::Wanted;

/// Arguments of `import`.
#[derive(clap::Args)]
pub struct Import {
    /// What wrote the files.
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: Format,
    /// Files, or - for stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The name of the connections whose source has none (env, vault-kv-json), or of the only one. OLD=NEW gives
    /// another name to what the source calls OLD: a profile, a Secret or SECRET/KEY, a registry, a variable; may be given
    /// more than once.
    #[arg(long, value_name = "[OLD=]NAME")]
    name: Vec<String>,
    /// The integration that the values belong to (env, kubernetes-secret, vault-kv-json).
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
    /// Its credential kind, where the fields do not say which is meant.
    #[arg(long, value_name = "KIND", requires = "integration")]
    kind: Option<String>,
    /// The workflow whose secrets the values are that belong to no connection.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Take only the variables that begin so, without it (env).
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Take only the profile, Secret or registry that is called so; may be given more than once (aws-profile,
    /// kubernetes-secret, docker-config).
    #[arg(long, visible_alias = "profile", value_name = "NAME")]
    only: Vec<String>,
    /// Who may resolve the connections, such as workflow:deploy; may be given more than once. Nobody by default. Of
    /// connections that are there already, others may no longer, as the plan shows.
    #[arg(long, value_name = "PRINCIPAL")]
    resolver: Vec<String>,
    /// Show the plan, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// The forms that are understood.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// connections: and secrets: of Puppet Relay's tools
    Relay,
    /// NAME=VALUE lines of a .env file
    Env,
    /// ~/.aws/credentials and ~/.aws/config
    AwsProfile,
    /// ~/.docker/config.json
    DockerConfig,
    /// Secret objects, in YAML or JSON
    KubernetesSecret,
    /// What vault kv get -format=json prints
    VaultKvJson,
}

impl Import {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let names = self.check()?;
        let sources = self.files.iter().map(|file| Source::read(file));
        let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
        let channel = common.operator().await?;
        let (from, dry_run, yes) = (self.from, self.dry_run, self.yes);
        let wanted = self.wanted(pages::integrations(&channel).await?, names);
        let found = whole(read(from, &sources, &wanted), &wanted.names)?;
        drop(sources);
        let documents = || found.entries.iter().map(|entry| entry.document.clone());
        let planned = ask(channel.clone(), documents().collect()).await?;
        let plan = Plan::new(&found, planned);
        if dry_run {
            return plan.answer(common.output);
        }
        plan.announce();
        confirm(yes, &format!("Import {} document(s)?", found.entries.len()))?;
        print_applied(common.output, &send(channel, documents().collect()).await?)
    }

    /// The names that are asked for. Refuses names that are none, and what the format has no use for, rather than
    /// leave somebody believing that it was heard.
    fn check(&self) -> Result<Names, Failure> {
        use Format::{AwsProfile, DockerConfig, Env, KubernetesSecret, Relay, VaultKvJson};
        let options: [(&str, bool, &[Format]); 4] = [
            ("--integration", self.integration.is_some(), &[Env, KubernetesSecret, VaultKvJson]),
            ("--workflow", self.workflow.is_some(), &[Relay, Env, KubernetesSecret, VaultKvJson]),
            ("--prefix", self.prefix.is_some(), &[Env]),
            ("--only", !self.only.is_empty(), &[AwsProfile, KubernetesSecret, DockerConfig]),
        ];
        self.workflow.as_deref().map(WorkflowName::parse).transpose()?;
        let misplaced = options.iter().find(|(_, given, of)| *given && !of.contains(&self.from));
        let Some((option, _, formats)) = misplaced else { return Names::parse(&self.name) };
        let names = formats.iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        Err(Failure::usage(format!("{option} is for --from {}; leave it out", names.join(", "))))
    }

    fn wanted(self, catalogue: Vec<pb::Integration>, names: Names) -> Wanted {
        Wanted {
            catalogue,
            names,
            integration: self.integration,
            kind: self.kind,
            workflow: self.workflow,
            prefix: self.prefix.unwrap_or_default(),
            only: self.only,
            resolvers: self.resolver,
        }
    }
}

fn read(from: Format, sources: &[Source], wanted: &Wanted) -> Found {
    let each = |reader: fn(&[u8], &Wanted) -> Found| {
        sources.iter().map(|source| reader(&source.bytes, wanted).within(&source.shown)).collect()
    };
    match from {
        Format::Relay => {
            sources.iter().map(|source| formats::relay::read(source, wanted)).collect()
        }
        Format::Env => each(formats::env::read),
        // Two files that AWS' tools read as one.
        Format::AwsProfile => formats::aws_profile::read(sources, wanted),
        Format::DockerConfig => each(formats::docker_config::read),
        Format::KubernetesSecret => each(formats::kubernetes_secret::read),
        Format::VaultKvJson => each(formats::vault::read),
    }
}

/// What was found, if nothing is wrong with it and it is anything at all.
fn whole(mut found: Found, names: &Names) -> Result<Found, Failure> {
    names.give(&mut found);
    found.refuse_doubles();
    found.problems.iter_mut().for_each(|problem| *problem = printable(problem));
    if found.problems.is_empty() && !found.entries.is_empty() {
        return Ok(found);
    }
    plan::skipped(&found);
    let failure = match found.problems.as_slice() {
        [] => Failure::usage("there is nothing to import"),
        [only] => Failure::usage(only.clone()),
        several => {
            let text = format!("nothing is imported: {} problems", several.len());
            Failure { details: several.to_vec(), ..Failure::usage(text) }
        }
    };
    Err(failure)
}
