//! `ApplyService`.

use prost::Message as _;
use tonic::{Request, Status, Streaming};

use super::call::{AdminService, Call};
use super::{group, integration};
use crate::broker::{
    Action, Applied, Broker, ConnectionDocument, Difference, Differences, Document, Error,
    GroupDocument, Patch, Planned, SecretDocument,
};
use crate::grpc::pb::apply_service_server::ApplyService;
use crate::grpc::request::{ApiRequest, parse_requests};
use crate::grpc::{Reply, convert, pb};
use crate::integration::Problem;
use crate::model::limits::{MAX_APPLY_BYTES, MAX_APPLY_DOCUMENTS};
use crate::model::{
    ConnectionName, ConnectionRef, GroupName, IntegrationName, SecretName, SecretRef, Value,
    WorkflowName,
};

parse_requests! {
    ApplyRequest -> Document = |one| document(one);
    PlanRequest -> Document = |one| document(one.document.unwrap_or_default());
}

#[tonic::async_trait]
impl ApplyService for AdminService {
    async fn apply(
        &self,
        request: Request<Streaming<pb::ApplyRequest>>,
    ) -> Reply<pb::ApplyResponse> {
        let (call, stream) = self.begin_stream(request)?;
        let documents = read(&call, stream, |message| message.document.as_ref()).await?;
        call.answer(async {
            let applied = call.broker.apply(call.caller.clone(), documents).await?;
            let results = applied.into_iter().map(result).collect();
            let mut response = pb::ApplyResponse { results };
            if response.encoded_len() > MAX_PLAN_BYTES {
                response.results.iter_mut().for_each(|result| result.findings.clear());
            }
            Ok(response)
        })
        .await
    }

    async fn plan(&self, request: Request<Streaming<pb::PlanRequest>>) -> Reply<pb::PlanResponse> {
        let (call, stream) = self.begin_stream(request)?;
        let documents =
            read(&call, stream, |message| message.document.as_ref()?.document.as_ref()).await?;
        let plan = call.broker.begin_plan(&call.caller, documents).await;
        let plan = plan.map_err(|error| call.refuse(&error))?;
        call.read(0, move |broker, caller, _| broker.plan(caller, plan).map(plan_response)).await
    }
}

/// Reads a stream to its end. `given` finds the document in a message, to name it in errors.
async fn read<T: ApiRequest<Parsed = Document>>(
    call: &Call,
    mut stream: Streaming<T>,
    given: impl Fn(&T) -> Option<&pb::apply_request::Document>,
) -> Result<Vec<Document>, Status> {
    let refuse = |error: Error| call.refuse(&error);
    // A caller without the role is refused before its documents are held in memory.
    Broker::check_may_apply(&call.caller).map_err(refuse)?;
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    while let Some(message) = stream.message().await? {
        bytes += message.encoded_len();
        if documents.len() == MAX_APPLY_DOCUMENTS || bytes > MAX_APPLY_BYTES {
            let text = format!(
                "one call takes at most {MAX_APPLY_DOCUMENTS} documents of {MAX_APPLY_BYTES} bytes in all"
            );
            return Err(refuse(Error::TooLarge(text)));
        }
        let name = given(&message).map(document_name).unwrap_or_default();
        match message.parse() {
            Ok(document) => documents.push(document),
            Err(error) => problems.push(Problem::new(&name, error.to_string())),
        }
    }
    if !problems.is_empty() {
        return Err(refuse(Error::DocumentsInvalid(problems)));
    }
    // Reading may take a while. A caller who was removed meanwhile is refused, even if the name is registered again.
    call.broker.admin_principal(&call.peer.svid, call.peer.origin).map_err(refuse)?;
    Ok(documents)
}

/// The resource that a document describes, as the broker names it. The document need not be well formed.
pub fn document_name(document: &pb::apply_request::Document) -> String {
    use pb::apply_request::Document as Given;
    match document {
        Given::Connection(one) => format!("connections/{}/{}", one.integration, one.name),
        Given::Group(group) => format!("groups/{}", group.name),
        Given::Integration(integration) => integration.name.clone(),
        Given::Secret(one) => format!("workflows/{}/secrets/{}", one.workflow, one.name),
    }
}

fn document(message: pb::ApplyRequest) -> Result<Document, Error> {
    use pb::apply_request::Document as Given;
    match message.document {
        Some(Given::Connection(given)) => connection(given).map(Document::Connection),
        Some(Given::Group(given)) => group(given).map(Document::Group),
        Some(Given::Integration(given)) => {
            integration::from_message(given).map(Document::Integration)
        }
        Some(Given::Secret(given)) => Ok(Document::Secret(SecretDocument {
            name: SecretRef {
                workflow: WorkflowName::parse(&given.workflow)?,
                name: SecretName::parse(&given.name)?,
            },
            value: Some(given.value).filter(|_| !given.kept).map(Value::new),
        })),
        None => Err(Error::TargetInvalid("a message without a document".to_owned())),
    }
}

fn connection(given: pb::ConnectionDocument) -> Result<ConnectionDocument, Error> {
    let name = format!("{}/{}", given.integration, given.name).parse()?;
    Ok(ConnectionDocument {
        kind: convert::kind_name(&given.kind)?,
        fields: Patch::Merge(convert::values(given.fields)),
        kept: given.kept_fields.into_iter().collect(),
        tags: Patch::Merge(convert::tags(&given.tags)?),
        labels: Patch::Merge(convert::labels(given.labels)?),
        access: Patch::Merge(convert::bindings(&given.access)?),
        disabled: given.disabled,
        max_ttl: given.max_ttl.map(|ttl| convert::duration(Some(ttl))),
        is_default: given.default,
        expires: given.expires.map(|moment| Some(convert::moment(&moment))),
        release: convert::release(given.release)?,
        send: given.send.map(convert::send_limits).transpose()?,
        ..ConnectionDocument::new(name)
    })
}

fn group(given: pb::GroupDocument) -> Result<GroupDocument, Error> {
    let integration = IntegrationName::parse(&given.integration)?;
    let keys = Some(given.identifiers).filter(|keys| !keys.is_empty());
    let member = |name: &String| {
        let (integration, name) = (integration.clone(), ConnectionName::parse(name)?);
        Ok::<_, Error>(ConnectionRef { integration, name })
    };
    let members = given.members.map(|members| members.names.iter().map(member).collect());
    Ok(GroupDocument {
        name: GroupName::parse(&given.name)?,
        identifiers: keys.map(|keys| group::identifiers(&keys)).transpose()?,
        members: members.transpose()?,
        access: convert::bindings(&given.access)?,
        labels: convert::labels(given.labels)?,
        integration,
    })
}

fn result(applied: Applied) -> pb::ApplyResult {
    pb::ApplyResult {
        name: applied.name.to_string(),
        action: action(applied.action).into(),
        findings: convert::findings(applied.findings),
    }
}

fn action(action: Action) -> pb::ApplyAction {
    match action {
        Action::Changed => pb::ApplyAction::Changed,
        Action::Created => pb::ApplyAction::Created,
        Action::Unchanged => pb::ApplyAction::Unchanged,
    }
}

/// Clients accept 4 MiB. Differences are shortened until the reply is smaller.
const MAX_PLAN_BYTES: usize = 3 * 1024 * 1024;

fn plan_response(planned: Vec<Planned>) -> pb::PlanResponse {
    let of_safety = |one: &Planned| one.differences.access.len() + one.differences.safety.len();
    let fewer: [Vec<usize>; 3] = [
        planned.iter().map(of_safety).collect(),
        planned.iter().map(|one| one.differences.access.len()).collect(),
        planned.iter().map(|_| 0).collect(),
    ];
    let results = planned.into_iter().map(planned_result).collect();
    let mut response = pb::PlanResponse { results };
    if response.encoded_len() > MAX_PLAN_BYTES {
        response.results.iter_mut().for_each(|result| result.findings.clear());
    }
    for most in fewer {
        if response.encoded_len() > MAX_PLAN_BYTES {
            response.results.iter_mut().zip(most).for_each(|(result, most)| shorten(result, most));
        }
    }
    response
}

/// Keeps the first differences and counts the others.
fn shorten(result: &mut pb::PlannedResult, most: usize) {
    result.untold_differences += convert::count_i32(result.differences.len().saturating_sub(most));
    result.differences.truncate(most);
}

fn planned_result(planned: Planned) -> pb::PlannedResult {
    let Planned { applied, differences, staying } = planned;
    let Differences { access, safety, others, untold } = differences;
    pb::PlannedResult {
        name: applied.name.to_string(),
        action: action(applied.action).into(),
        differences: access.into_iter().chain(safety).chain(others).map(difference).collect(),
        untold_differences: convert::count_i32(untold),
        staying_fields: staying.iter().map(ToString::to_string).collect(),
        findings: convert::findings(applied.findings),
    }
}

fn difference(difference: Difference) -> pb::Difference {
    let Difference { path, old, new, sensitive, removed } = difference;
    pb::Difference { path, old, new, sensitive, removed }
}
