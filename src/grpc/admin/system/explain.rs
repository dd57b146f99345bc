//! `SystemService.Explain`: the question and its answer.

use crate::access::{Block, Examined, Purpose};
use crate::broker::{
    DryRun, Error, ExaminedResource, Explanation, MintBegun, MintEnd, MintStory, NearMember,
    PastDecision, PastOutcome,
};
use crate::grpc::request::parse_requests;
use crate::grpc::{convert, pb};
use crate::journal::DecisionName;
use crate::model::{Invalid, ResourceName, StepName, WorkflowName};

parse_requests! {
    ExplainRequest -> ExplainQuestion = |one| match one.question {
        None => Err(Error::DecisionInvalid(String::new())),
        Some(pb::explain_request::Question::DryRun(asked)) => dry_run(asked).map(ExplainQuestion::DryRun),
        Some(pb::explain_request::Question::DecisionId(id)) => {
            decision_name(&id).map(ExplainQuestion::Decision)
        }
    };
}

/// The question.
pub enum ExplainQuestion {
    /// Why was this decision made? The journal holds it.
    Decision(DecisionName),
    /// What would a step get now?
    DryRun(DryRun),
}

fn decision_name(id: &str) -> Result<DecisionName, Error> {
    id.parse().map_err(|_| Error::DecisionInvalid(id.chars().take(64).collect()))
}

fn dry_run(asked: pb::DryRun) -> Result<DryRun, Error> {
    Ok(DryRun {
        workflow: WorkflowName::parse(&asked.workflow)?,
        run: None,
        step: StepName::parse(&asked.step)?,
        run_as: convert::run_as(&asked.run_as)?,
        target: asked
            .target
            .parse()
            .map_err(|invalid: Invalid| Error::TargetInvalid(invalid.to_string()))?,
        purpose: if asked.use_only { Purpose::Use } else { Purpose::Reveal },
        fields: asked.fields,
    })
}

pub(crate) fn response(explained: Explanation) -> pb::ExplainResponse {
    let (explanation, allowed_by) = match explained.outcome {
        Ok(by) => (format!("allowed by {by}"), by),
        // The step itself is not told: it must not learn whether the connection exists.
        Err(Error::Denied { .. }) => (denied(&explained), String::new()),
        Err(error) => (error.to_string(), String::new()),
    };
    let name = |name| ResourceName::Connection(name).to_string();
    pb::ExplainResponse {
        past: explained.past.map(past),
        principal: explained.principal,
        run_as: explained.run_as,
        target: explained.target,
        outcome: explained.reason.to_owned(),
        explanation,
        allowed_by,
        connection: explained.connection.map(name).unwrap_or_default(),
        resources: explained.resources.into_iter().map(resource).collect(),
        near_members: explained.near_members.into_iter().map(near_member).collect(),
        block: explained.block.as_ref().map(convert::block),
    }
}

fn denied(explained: &Explanation) -> String {
    if let Some(block) = &explained.block {
        let Block { target, principal, reason, time, .. } = block;
        return format!(
            "{principal} has blocked {target} at {time}: {reason}; lift it with keyhatch access unblock"
        );
    }
    let too_low = explained
        .resources
        .iter()
        .find_map(|one| Some((one, one.held.filter(|_| !one.is_allowed)?)));
    match too_low {
        Some((ExaminedResource { name, needed, .. }, held)) => {
            format!("its relation to {name} is {held}, and it needs {needed}")
        }
        None => "no binding allows it; see the resources that were checked".to_owned(),
    }
}

/// The end of a mint in the reply, if its journal has no end for it.
const UNDER_WAY: &str = "UNDER_WAY";

fn mint_story(story: MintStory) -> pb::MintStory {
    let MintStory { mint, source, begun, end, ending } = story;
    let (end_time, end) = end.unzip();
    let told = match end {
        None => pb::MintStory { outcome: UNDER_WAY.to_owned(), ..Default::default() },
        Some(MintEnd::Made { handle, credential_expire_time, upstream_request }) => pb::MintStory {
            outcome: "MINTED".to_owned(),
            handle: handle.unwrap_or_default(),
            credential_expire_time: convert::timestamp(credential_expire_time),
            upstream_request: upstream_request.unwrap_or_default(),
            ..Default::default()
        },
        Some(MintEnd::Failed(fault)) => pb::MintStory {
            outcome: fault.reason,
            detail: fault.detail,
            upstream_request: fault.upstream_request.unwrap_or_default(),
            ..Default::default()
        },
    };
    let begun = begun.map(|MintBegun { time, decision, principal }| {
        (convert::timestamp(time), decision.to_string(), principal)
    });
    let (begin_time, begun_for, begun_by) = begun.unwrap_or_default();
    pb::MintStory {
        mint: mint.map(|mint| mint.to_string()).unwrap_or_default(),
        source: source.map(|source| source.name().to_owned()).unwrap_or_default(),
        end_time: end_time.and_then(convert::timestamp),
        begun_for,
        begun_by,
        begin_time,
        ending: ending.map(convert::ending),
        ..told
    }
}

fn past(past: PastDecision) -> pb::PastDecision {
    let time = convert::timestamp(past.time);
    let decision_id = past.decision_id;
    let mint = past.mint.map(mint_story);
    match past.outcome {
        PastOutcome::Allowed { by, version, fields } => pb::PastDecision {
            decision_id,
            time,
            outcome: "ALLOWED".to_owned(),
            allowed_by: by,
            version: convert::count(version),
            fields: fields.iter().map(ToString::to_string).collect(),
            refused_by: String::new(),
            mint,
        },
        PastOutcome::Refused { reason, by } => pb::PastDecision {
            decision_id,
            time,
            outcome: reason,
            refused_by: by,
            mint,
            ..Default::default()
        },
    }
}

fn resource(examined: ExaminedResource) -> pb::ExaminedResource {
    let principal = |one: Examined| pb::ExaminedPrincipal {
        principal: one.pattern.to_string(),
        relation: convert::relation(one.relation).into(),
        enough: one.is_enough,
        admits: one.admits,
    };
    pb::ExaminedResource {
        name: examined.name.to_string(),
        exists: examined.update_time.is_some(),
        needed: convert::relation(examined.needed).into(),
        allowed: examined.is_allowed,
        principals: examined.principals.into_iter().map(principal).collect(),
        would_allow: examined.would_allow,
        run_as_needed: examined.run_as_needed,
        update_time: examined.update_time.and_then(convert::timestamp),
        held: examined.held.map(convert::relation).unwrap_or_default().into(),
    }
}

fn near_member(member: NearMember) -> pb::NearMember {
    let difference =
        |(identifier, asked, value)| pb::DifferentIdentifier { identifier, asked, value };
    pb::NearMember {
        name: ResourceName::Connection(member.name).to_string(),
        differences: member.differences.into_iter().map(difference).collect(),
    }
}
