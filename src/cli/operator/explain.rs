//! `keyhatch explain`: why a step was refused, or would be refused.

use serde_json::json;
use tonic::transport::Channel;

use super::bindings::{grant_command, relation_name, ways_without_values};
use super::check::ANY_STEP;
use crate::cli::Common;
use crate::cli::io::endings::{ending_json, ending_words};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::print;
use crate::cli::io::text::table;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::explain_request::Question;
use crate::grpc::pb::system_service_client::SystemServiceClient;

#[derive(clap::Args)]
pub struct Explain {
    /// The id of a decision, from the error of the step, or its line in `journal tail`, such as 1.42; or the id of a
    /// mint. With --workflow:
    /// what a step would ask for: aws/prod, group:NAME:KEY=VALUE, secret:NAME, default:INTEGRATION.
    #[arg(value_name = "DECISION|REF")]
    what: String,
    /// Show what would be decided now for a step of this workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// The step; without it, a step that no binding names.
    #[arg(long, value_name = "NAME", requires = "workflow")]
    step: Option<String>,
    /// A principal that the step runs as, such as user:alice; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL", requires = "workflow")]
    run_as: Vec<String>,
    /// Show what would be decided if the broker acted with it, and the step got no value.
    #[arg(long = "use", requires = "workflow")]
    use_only: bool,
}

impl Explain {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        let question = match (self.workflow, self.step) {
            (Some(workflow), step) => Question::DryRun(pb::DryRun {
                workflow,
                step: step.unwrap_or_else(|| ANY_STEP.to_owned()),
                run_as: self.run_as,
                target: self.what,
                fields: Vec::new(),
                use_only: self.use_only,
            }),
            (None, _) if self.what.contains(['/', ':']) => {
                let text = format!(
                    "{} is no decision id; to see what would be decided, give --workflow",
                    self.what
                );
                return Err(Failure::usage(text));
            }
            (None, _) => Question::DecisionId(self.what),
        };
        let explained = ask(channel, question).await?;
        print(
            common.output,
            &to_json(&explained),
            || describe(&explained),
            || explained.outcome.clone(),
        )
    }
}

/// Asks the broker by `SystemService.Explain`.
pub(crate) async fn ask(
    channel: Channel,
    question: Question,
) -> Result<pb::ExplainResponse, Failure> {
    let request = pb::ExplainRequest { question: Some(question) };
    Ok(SystemServiceClient::new(channel).explain(request).await?.into_inner())
}

/// The explanation, for people.
pub(crate) fn describe(explained: &pb::ExplainResponse) -> String {
    let run_as = match explained.run_as.join(", ") {
        none if none.is_empty() => String::new(),
        run_as => format!(", as {run_as},"),
    };
    let asked = match &explained.past {
        Some(past) => {
            let time = moment(past.time.as_ref());
            format!("Decision {} at {time}: {}", past.decision_id, past_outcome(past))
        }
        None => "This is what would be decided now.".to_owned(),
    };
    let mint = explained.past.as_ref().and_then(|past| past.mint.as_ref());
    let mut lines = vec![asked];
    lines.extend(mint.into_iter().flat_map(mint_lines));
    lines.extend([
        format!("{}{run_as} asks for {}", explained.principal, explained.target),
        format!("now: {}: {}", explained.outcome, explained.explanation),
    ]);
    if explained.target.starts_with("default:") && explained.connection.is_empty() {
        lines.push("no connection of this integration is its default".to_owned());
    }
    if !explained.connection.is_empty() && !explained.connection.ends_with(&explained.target) {
        lines.push(format!("that is {}", explained.connection));
    }
    for resource in &explained.resources {
        lines.push(String::new());
        lines.extend(resource_lines(resource));
    }
    let ways = ways_without_values(explained);
    if !ways.is_empty() {
        lines.push("or without its values, in the step:".to_owned());
        lines.extend(ways.iter().map(|way| format!("  {way}")));
    }
    if !explained.near_members.is_empty() {
        lines.push(String::new());
        lines.push("nearest members:".to_owned());
        let rows = explained.near_members.iter().flat_map(|member| {
            member.differences.iter().map(|one| {
                vec![
                    member.name.clone(),
                    one.identifier.clone(),
                    one.asked.clone(),
                    one.value.clone(),
                ]
            })
        });
        lines.push(table(&["member", "identifier", "asked for", "has"], rows.collect()));
    }
    lines.join("\n")
}

/// What became of the credential that an upstream was asked for.
fn mint_lines(story: &pb::MintStory) -> Vec<String> {
    let mut lines = Vec::new();
    if !story.begun_for.is_empty() {
        let time = moment(story.begin_time.as_ref());
        let (mint, source) = (&story.mint, &story.source);
        lines.push(format!(
            "mint {mint} by {source} began at {time}, for decision {} of {}",
            story.begun_for, story.begun_by
        ));
    }
    let time = moment(story.end_time.as_ref());
    let mut words = match story.outcome.as_str() {
        "UNDER_WAY" => vec!["the upstream has not answered yet".to_owned()],
        "MINTED" => {
            let end = moment(story.credential_expire_time.as_ref());
            vec![format!("minted at {time}, accepted until {end}")]
        }
        reason => vec![format!("failed at {time}: {reason}")],
    };
    let more = [
        ("", &story.detail),
        ("the upstream's log calls it ", &story.handle),
        ("the upstream's request ", &story.upstream_request),
    ];
    let more = more.into_iter().filter(|(_, text)| !text.is_empty());
    words.extend(more.map(|(what, text)| format!("{what}{text}")));
    lines.push(words.join("; "));
    if let Some(ending) = &story.ending {
        let cause = match ending.cause.as_str() {
            "" => String::new(),
            cause => format!(", because of: {}", cause.replace('_', " ")),
        };
        let words = ending_words(ending, story.credential_expire_time.as_ref());
        lines.push(format!("{words}{cause}"));
    }
    lines
}

fn past_outcome(past: &pb::PastDecision) -> String {
    match past.outcome.as_str() {
        "ALLOWED" => {
            let fields = match past.fields.join(", ") {
                none if none.is_empty() => "without a value".to_owned(),
                fields => format!("with {fields}"),
            };
            format!("allowed by {}; version {} {fields}", past.allowed_by, past.version)
        }
        reason if past.refused_by.is_empty() => reason.to_owned(),
        reason if past.refused_by == "allowed_targets" => format!(
            "{reason}, by allowed_targets: its executor does not let the step ask for it (step run --allow)"
        ),
        reason => format!("{reason}: its relation was too low: {}", past.refused_by),
    }
}

fn resource_lines(resource: &pb::ExaminedResource) -> Vec<String> {
    let needed = relation_name(resource.needed());
    if !resource.exists {
        return vec![format!("{}: it does not exist", resource.name)];
    }
    let updated = moment(resource.update_time.as_ref());
    let verdict = match held_name(resource) {
        _ if resource.allowed => "given".to_owned(),
        None => "not given".to_owned(),
        Some(held) => format!("has {held}"),
    };
    let mut lines =
        vec![format!("{}: needs {needed}, {verdict}; last changed {updated}", resource.name)];
    let yes = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    let rows = resource.principals.iter().map(|one| {
        let relation = relation_name(one.relation()).to_owned();
        vec![one.principal.clone(), relation, yes(one.enough), yes(one.admits)]
    });
    let header = ["principal", "relation", "enough", "admits it"];
    let rows: Vec<_> = rows.collect();
    lines.push(match rows.is_empty() {
        true => "  nobody is bound".to_owned(),
        false => table(&header, rows),
    });
    if !resource.would_allow.is_empty() {
        let is_run_as = |one: &&String| !one.starts_with("workflow:");
        let kinds = [
            resource.would_allow.iter().find(|one| !is_run_as(one)),
            resource.would_allow.iter().find(is_run_as),
        ];
        lines.push("to allow it:".to_owned());
        for principal in kinds.into_iter().flatten() {
            let command = grant_command(&resource.name, resource.needed(), principal);
            lines.push(format!("  {command}"));
        }
    } else if !resource.allowed && !resource.run_as_needed.is_empty() {
        lines.push(format!(
            "its bindings name principals that a step must run as: run the step with --run-as and one of {}",
            resource.run_as_needed.join(", ")
        ));
    }
    lines
}

/// The relation that the step has, if that is too low.
fn held_name(resource: &pb::ExaminedResource) -> Option<&'static str> {
    Some(resource.held()).filter(|held| *held != pb::Relation::Unspecified).map(relation_name)
}

fn mint_json(story: &pb::MintStory) -> serde_json::Value {
    json!({
        "mint": story.mint,
        "source": story.source,
        "outcome": story.outcome,
        "detail": story.detail,
        "end_time": moment(story.end_time.as_ref()),
        "handle": story.handle,
        "credential_expire_time": moment(story.credential_expire_time.as_ref()),
        "upstream_request": story.upstream_request,
        "begun_for": story.begun_for,
        "begun_by": story.begun_by,
        "begin_time": moment(story.begin_time.as_ref()),
        "ending": ending_json(story.ending.as_ref()),
    })
}

fn resource_json(resource: &pb::ExaminedResource) -> serde_json::Value {
    let principals = resource.principals.iter().map(|one| {
        json!({
            "principal": one.principal,
            "relation": relation_name(one.relation()),
            "enough": one.enough,
            "admits": one.admits,
        })
    });
    json!({
        "name": resource.name,
        "exists": resource.exists,
        "needed": relation_name(resource.needed()),
        "allowed": resource.allowed,
        "held": held_name(resource),
        "principals": principals.collect::<Vec<_>>(),
        "would_allow": resource.would_allow,
        "run_as_needed": resource.run_as_needed,
        "update_time": moment(resource.update_time.as_ref()),
    })
}

fn to_json(explained: &pb::ExplainResponse) -> serde_json::Value {
    let past = explained.past.as_ref().map(|past| {
        json!({
            "decision_id": past.decision_id,
            "time": moment(past.time.as_ref()),
            "outcome": past.outcome,
            "allowed_by": past.allowed_by,
            "version": past.version,
            "fields": past.fields,
            "refused_by": past.refused_by,
            "mint": past.mint.as_ref().map(mint_json),
        })
    });
    let near = explained.near_members.iter().map(|member| {
        let differences = member.differences.iter().map(
            |one| json!({ "identifier": one.identifier, "asked": one.asked, "value": one.value }),
        );
        json!({ "name": member.name, "differences": differences.collect::<Vec<_>>() })
    });
    json!({
        "past": past,
        "principal": explained.principal,
        "run_as": explained.run_as,
        "target": explained.target,
        "outcome": explained.outcome,
        "explanation": explained.explanation,
        "allowed_by": explained.allowed_by,
        "connection": explained.connection,
        "resources": explained.resources.iter().map(resource_json).collect::<Vec<_>>(),
        "near_members": near.collect::<Vec<_>>(),
        "without_values": ways_without_values(explained),
    })
}
