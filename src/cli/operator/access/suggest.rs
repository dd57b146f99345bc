//! `keyhatch access suggest`: the least access that a workflow needs.

use serde_json::json;
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{print, say};
use crate::cli::io::text::{command_line, table};
use crate::cli::io::time;
use crate::cli::io::time::moment;
use crate::cli::operator::bindings::{access_command, access_of, includes, relation_name};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;

#[derive(clap::Args)]
pub struct AccessSuggestArgs {
    /// The workflow.
    workflow: String,
    /// Suggest to remove what it has not used for so long, such as 90d, or since 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = time::since)]
    since: prost_types::Timestamp,
    /// Show bindings that need no change, too.
    #[arg(long)]
    all: bool,
}

impl AccessSuggestArgs {
    pub(crate) async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let workflow = self.workflow.clone();
        let request = pb::SuggestAccessRequest { workflow, since: Some(self.since) };
        let suggested =
            SystemServiceClient::new(channel).suggest_access(request).await?.into_inner();
        let is_change = |one: &&pb::AccessSuggestion| {
            use pb::AccessAdvice::{Lower, Narrow, Raise, Remove};
            matches!(one.advice(), Lower | Narrow | Raise | Remove)
        };
        let shown = suggested.suggestions.iter().filter(|one| self.all || is_change(one));
        let shown: Vec<_> = shown.collect();
        let answer: Vec<_> = shown.iter().map(|one| self.to_json(one)).collect();
        let text = || self.describe(&shown, suggested.suggestions.len());
        let names = || shown.iter().map(|one| one.resource.clone()).collect::<Vec<_>>().join("\n");
        if suggested.more > 0 {
            say(&format!("and {} more, which need no change or come after these", suggested.more));
        }
        print(common.output, &answer, text, names)
    }

    fn describe(&self, shown: &[&pb::AccessSuggestion], total: usize) -> String {
        if shown.is_empty() {
            let workflow = &self.workflow;
            return match total {
                0 => format!("no binding lets workflow {workflow} use anything"),
                _ => {
                    format!("{total} binding(s) of workflow {workflow}; all were used, or are new")
                }
            };
        }
        let rows = shown.iter().map(|one| {
            let last = match &one.last_use_time {
                None => "never".to_owned(),
                last => moment(last.as_ref()),
            };
            let bound = one.bound.iter().flat_map(|binding| &binding.principals);
            let bound: Vec<_> = bound.map(String::as_str).collect();
            let (times, advice) = (one.use_count.to_string(), advice(one));
            vec![one.resource.clone(), bound.join(", "), times, last, advice]
        });
        let rows = table(&["resource", "bound by", "used", "last used", "advice"], rows.collect());
        let commands: Vec<_> = shown.iter().flat_map(|one| self.commands(one)).collect();
        match commands.is_empty() {
            true => rows,
            false => format!("{rows}\n\n{}", commands.join("\n")),
        }
    }

    /// The commands that follow the advice. A raise has none: a refused step can provoke that advice, so an operator decides.
    fn commands(&self, one: &pb::AccessSuggestion) -> Vec<String> {
        let change = |verb: &str, relation: pb::Relation, principal: &str| {
            access_command(verb, &one.resource, relation, principal)
        };
        let bound = one.bound.iter().flat_map(|binding| {
            binding.principals.iter().map(|principal| (binding.relation(), principal))
        });
        let own = format!("workflow:{}", self.workflow);
        let is_own =
            |principal: &str| principal == own || principal.starts_with(&format!("{own}/step:"));
        match one.advice() {
            pb::AccessAdvice::Remove => {
                bound.map(|(relation, principal)| change("remove", relation, principal)).collect()
            }
            pb::AccessAdvice::Lower => {
                let higher = bound.filter(|(relation, principal)| {
                    *relation == pb::Relation::Resolver && is_own(principal)
                });
                higher
                    .flat_map(|(relation, principal)| {
                        let lower = change("add", one.needed(), principal);
                        [lower, change("remove", relation, principal)]
                    })
                    .collect()
            }
            pb::AccessAdvice::Narrow => {
                let (owned, wide): (Vec<_>, Vec<_>) =
                    bound.partition(|(_, principal)| is_own(principal));
                let has_own = owned.iter().any(|(relation, _)| includes(*relation, one.needed()));
                let add = (!has_own).then(|| change("add", one.needed(), &own));
                let wide = wide.into_iter().filter(|_| !one.others_use);
                let remove =
                    wide.map(|(relation, principal)| change("remove", relation, principal));
                add.into_iter().chain(remove).collect()
            }
            _ => Vec::new(),
        }
    }

    fn to_json(&self, one: &pb::AccessSuggestion) -> serde_json::Value {
        json!({
            "resource": one.resource,
            "needed": relation_name(one.needed()),
            "bound": access_of(&one.bound),
            "use_count": one.use_count,
            "last_use_time": one.last_use_time.as_ref().map(|last| moment(Some(last))),
            "advice": word(one.advice()),
            "refusal_count": one.refusal_count,
            "refused_step": Some(&one.refused_step).filter(|step| !step.is_empty()),
            "refusal_decision_id": Some(&one.refusal_decision_id).filter(|id| !id.is_empty()),
            "last_refusal_time": one.last_refusal_time.as_ref().map(|last| moment(Some(last))),
            "commands": self.commands(one),
        })
    }
}

fn word(advice: pb::AccessAdvice) -> &'static str {
    match advice {
        pb::AccessAdvice::Remove => "remove",
        pb::AccessAdvice::Narrow => "narrow",
        pb::AccessAdvice::Lower => "lower",
        pb::AccessAdvice::Raise => "raise",
        pb::AccessAdvice::Others => "others",
        pb::AccessAdvice::Keep | pb::AccessAdvice::Unspecified => "keep",
    }
}

/// The advice, and what an operator needs to decide on a raise.
fn advice(one: &pb::AccessSuggestion) -> String {
    let advice = sentence(one.advice());
    match one.advice() {
        pb::AccessAdvice::Raise => format!(
            "{advice}, {} time(s), step {} last: {}",
            one.refusal_count,
            one.refused_step,
            command_line(&["explain", &one.refusal_decision_id])
        ),
        _ => advice.to_owned(),
    }
}

fn sentence(advice: pb::AccessAdvice) -> &'static str {
    match advice {
        pb::AccessAdvice::Remove => "remove: not used",
        pb::AccessAdvice::Narrow => "narrow: shared with many others",
        pb::AccessAdvice::Lower => "lower: no step received it",
        pb::AccessAdvice::Raise => "raise: a step was refused its values",
        pb::AccessAdvice::Others => "keep: others use it",
        pb::AccessAdvice::Keep | pb::AccessAdvice::Unspecified => "keep",
    }
}
