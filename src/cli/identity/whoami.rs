//! `keyhatch whoami`: the identity that commands use here, as the broker sees it.

use serde_json::json;

use super::endpoint::{Caller, Endpoint};
use super::retry::RETRY_TIME;
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::show;
use crate::cli::io::text::last_part;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::operator_service_client::OperatorServiceClient;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::model::SpiffeId;

/// Shows the identity of this step, or outside of a step that of the operator. Fails if there is neither.
pub(crate) async fn run(common: &Common) -> Result<(), Failure> {
    if common.context.is_some() {
        return operator(common).await;
    }
    let is_operators = |endpoint: &Endpoint| {
        endpoint.identity().is_ok_and(|identity| matches!(identity, SpiffeId::Operator(_)))
    };
    match Endpoint::find(Caller::Step, common.place()) {
        Ok(endpoint) if is_operators(&endpoint) => operator(common).await,
        Ok(endpoint) => of_step(common, &endpoint).await,
        Err(ended) if ended.reason == "STEP_NOT_OPEN" => Err(ended),
        // No step is here. If no operator is here either, the advice is that for a step.
        Err(missing) => match Endpoint::find(Caller::Operator, common.place()) {
            Err(broken) if broken.reason != "IDENTITY_MISSING" => Err(broken),
            Err(_) => Err(missing),
            Ok(_) => operator(common).await,
        },
    }
}

async fn of_step(common: &Common, endpoint: &Endpoint) -> Result<(), Failure> {
    let asked = endpoint.with_retries(RETRY_TIME, async |channel| {
        Ok(StepServiceClient::new(channel).who_am_i(pb::WhoAmIRequest {}).await?.into_inner())
    });
    let me = asked.await?;
    let answer = json!({
        "spiffe_id": me.spiffe_id,
        "workflow": me.workflow,
        "run": me.run,
        "step": me.step,
        "attempt": me.attempt,
        "certificate_expire_time": moment(me.certificate_expire_time.as_ref()),
        "step_expire_time": moment(me.step_expire_time.as_ref()),
    });
    let titles = [
        ("SPIFFE ID", "spiffe_id"),
        ("workflow", "workflow"),
        ("run", "run"),
        ("step", "step"),
        ("attempt", "attempt"),
        ("certificate until", "certificate_expire_time"),
        ("step until", "step_expire_time"),
    ];
    show(common.output, &answer, "spiffe_id", &titles)
}

async fn operator(common: &Common) -> Result<(), Failure> {
    let endpoint = Endpoint::find(Caller::Operator, common.place())?;
    let asked = endpoint.with_retries(RETRY_TIME, async |channel| {
        let request = pb::OperatorServiceWhoAmIRequest {};
        Ok(OperatorServiceClient::new(channel).who_am_i(request).await?.into_inner())
    });
    let me = asked.await?;
    let registered = me.operator.unwrap_or_default();
    let (role, may) = described(registered.role());
    let answer = json!({
        "spiffe_id": me.spiffe_id,
        "operator": last_part(&registered.name),
        "role": role,
        "may": may,
        "methods": me.methods,
        "certificate_expire_time": moment(me.certificate_expire_time.as_ref()),
        "broker": endpoint.address().to_string(),
    });
    let titles = [
        ("SPIFFE ID", "spiffe_id"),
        ("operator", "operator"),
        ("role", "role"),
        ("may", "may"),
        ("certificate until", "certificate_expire_time"),
        ("broker", "broker"),
    ];
    show(common.output, &answer, "spiffe_id", &titles)
}

/// A role, and what it may do.
fn described(role: pb::Role) -> (&'static str, &'static str) {
    match role {
        pb::Role::Administrator => ("administrator", "do everything but read values"),
        pb::Role::Operator => (
            "operator",
            "see all metadata, create connections and groups, write secrets, and change what it is an editor of",
        ),
        pb::Role::Viewer => ("viewer", "see all metadata, and change nothing"),
        pb::Role::Unspecified => ("none", "nothing"),
    }
}
