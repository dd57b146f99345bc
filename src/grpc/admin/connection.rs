//! `ConnectionService`.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Request;

use super::call::AdminService;
use crate::broker::{
    ConnectionDocument, ConnectionInUse, ConnectionQuery, Deletion, Error, Inspected,
    ListedConnection, Order, OrderBy, Patch, TestMint, TimeFilter,
};
use crate::catalog::{ConnectionMetadata, Filter, FilterField};
use crate::grpc::convert::page::ListRequest;
use crate::grpc::pb::connection_service_server::ConnectionService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ConnectionRef, Invalid, ResourceName};

parse_requests! {
    CreateConnectionRequest [request_id validate_only] -> ConnectionDocument =
        |one| document(one.connection.unwrap_or_default());
    DeleteConnectionRequest [request_id validate_only] -> (ConnectionRef, Deletion) = |one| {
        let etag = convert::given(&one.etag);
        let deletion = Deletion { etag, force: one.force, allow_missing: one.allow_missing };
        Ok((convert::connection_name(&one.name)?, deletion))
    };
    GetConnectionRequest -> ConnectionRef = |one| convert::connection_name(&one.name);
    ListConnectionsRequest -> ConnectionList = |one| connection_list(&one);
    TestConnectionRequest -> (ConnectionRef, bool) =
        |one| Ok((convert::connection_name(&one.name)?, one.mint));
    UpdateConnectionRequest [request_id validate_only] -> ConnectionUpdate = |one| {
        let connection = one.connection.unwrap_or_default();
        let etag = convert::given(&connection.etag);
        let document = match convert::mask(one.update_mask) {
            None => document(connection)?,
            Some(paths) => masked(connection, &paths)?,
        };
        Ok(ConnectionUpdate { document, etag, allow_missing: one.allow_missing })
    };
}

/// Which connections a list shows.
pub struct ConnectionList {
    asked: ListRequest<ConnectionRef>,
    filter: Filter<ConnectionMetadata>,
    times: TimeFilter,
}

/// A parsed `UpdateConnectionRequest`.
pub struct ConnectionUpdate {
    document: ConnectionDocument,
    etag: Option<String>,
    allow_missing: bool,
}

#[tonic::async_trait]
impl ConnectionService for AdminService {
    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Reply<pb::Connection> {
        let (call, document) = self.begin_on(request, |one| name_of(one.connection.as_ref()))?;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            Ok(in_use(call.broker.create_connection(caller, document, options).await?))
        })
        .await
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Reply<pb::Connection> {
        let (call, name) = self.begin_on(request, |one| one.name.clone())?;
        call.read(0, move |broker, caller, _| Ok(in_use(broker.connection(caller, &name)?))).await
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Reply<pb::ListConnectionsResponse> {
        let (call, ConnectionList { asked, filter, times }) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let query = ConnectionQuery { filter, times, page: asked.page.clone() };
            let answer =
                asked.answer(&broker.connections(caller, &query, is_cancelled)?, to_message);
            let newer = broker.newer("connections/", &answer.next_page_token);
            Ok(pb::ListConnectionsResponse {
                connections: answer.messages,
                next_page_token: answer.next_page_token,
                newer,
                total_size: answer.total_size,
                total_size_estimated: answer.total_size_estimated,
            })
        })
        .await
    }

    async fn update_connection(
        &self,
        request: Request<pb::UpdateConnectionRequest>,
    ) -> Reply<pb::Connection> {
        let (call, update) = self.begin_on(request, |one| name_of(one.connection.as_ref()))?;
        let ConnectionUpdate { document, etag, allow_missing } = update;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            let updated =
                call.broker.update_connection(caller, document, etag, allow_missing, options);
            Ok(in_use(updated.await?))
        })
        .await
    }

    async fn delete_connection(&self, request: Request<pb::DeleteConnectionRequest>) -> Reply<()> {
        let (call, (name, deletion)) = self.begin_on(request, |one| one.name.clone())?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(async {
            let deleted = call.broker.delete_connection(caller, name, deletion, options);
            call.broker.wait_for_endings(&deleted.await?, call.patience).await;
            Ok(())
        })
        .await
    }

    async fn test_connection(
        &self,
        request: Request<pb::TestConnectionRequest>,
    ) -> Reply<pb::TestConnectionResponse> {
        let (call, (name, mints)) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async {
            let Inspected { version, decision_id, findings, trial } =
                call.broker.test_connection(&call.caller, &name, mints).await?;
            let (version, findings) = (convert::count(version), convert::findings(findings));
            let (minted, failure) = match trial {
                Some(Ok(minted)) => (Some(test_mint(minted)), ""),
                Some(Err(reason)) => (None, reason),
                None => (None, ""),
            };
            let mint_failure = failure.to_owned();
            Ok(pb::TestConnectionResponse { version, findings, decision_id, minted, mint_failure })
        })
        .await
    }
}

fn test_mint(minted: TestMint) -> pb::TestMint {
    let TestMint { fields, handle, expire_time, lifetime, upstream_request, ending } = minted;
    pb::TestMint {
        fields: fields.iter().map(ToString::to_string).collect(),
        handle: handle.unwrap_or_default(),
        expire_time: expire_time.and_then(convert::timestamp),
        lifetime: lifetime.and_then(|lifetime| lifetime.try_into().ok()),
        upstream_request: upstream_request.unwrap_or_default(),
        ending: Some(convert::ending(ending)),
    }
}

fn name_of(connection: Option<&pb::Connection>) -> String {
    connection.map_or_else(String::new, |connection| connection.name.clone())
}

fn connection_list(request: &pb::ListConnectionsRequest) -> Result<ConnectionList, Error> {
    let mut filter = convert::filter::<ConnectionMetadata>(&request.filter)?;
    if !request.integration.is_empty() {
        filter.with(FilterField::Integration, &request.integration);
    }
    let times = TimeFilter {
        unused_since: request.unused_since.as_ref().map(convert::moment),
        expires_before: request.expires_before.as_ref().map(convert::moment),
    };
    let order = Order::parse(&request.order_by, &OrderBy::OF_CONNECTIONS)?;
    let rest = (&request.filter, &request.integration, times.unused_since, times.expires_before);
    let query = ("connections", rest);
    let asked = ListRequest::parse(request.page_size, &request.page_token, order, query)?;
    Ok(ConnectionList { asked, filter, times })
}

/// The change that a message without a mask asks for: what is set in it is merged, the rest stays as it is.
fn document(connection: pb::Connection) -> Result<ConnectionDocument, Error> {
    let name = convert::connection_name(&connection.name)?;
    if !connection.integration.is_empty() && connection.integration != name.integration.as_str() {
        let rule = "it is not the integration in the connection's name";
        return Err(Invalid::new("integration", &connection.integration, rule).into());
    }
    Ok(ConnectionDocument {
        kind: convert::kind_name(&connection.kind)?,
        fields: Patch::Merge(convert::values(connection.fields)),
        tags: Patch::Merge(convert::tags(&connection.tags)?),
        labels: Patch::Merge(convert::labels(connection.labels)?),
        access: Patch::Merge(convert::bindings(&connection.access)?),
        disabled: Some(true).filter(|_| connection.disabled),
        max_ttl: connection.max_ttl.map(|ttl| convert::duration(Some(ttl))),
        is_default: Some(true).filter(|_| connection.default),
        expires: connection.expires.map(|moment| Some(convert::moment(&moment))),
        release: convert::release(connection.release)?,
        send: connection.send.map(convert::send_limits).transpose()?,
        ..ConnectionDocument::new(name)
    })
}

/// The parts that a mask can name; `*` stands for all of them.
const PARTS: [&str; 10] = [
    "fields", "tags", "labels", "access", "disabled", "max_ttl", "default", "expires", "release",
    "send",
];

/// The change that a message with a mask asks for: each named part is replaced as a whole.
fn masked(
    mut connection: pb::Connection,
    paths: &BTreeSet<String>,
) -> Result<ConnectionDocument, Error> {
    let mut fields = BTreeMap::new();
    let (mut removed, mut is_whole) = (BTreeSet::new(), false);
    let paths = paths.iter().flat_map(|path| match path.as_str() {
        "*" => PARTS.to_vec(),
        path => vec![path],
    });
    let mut masked = ConnectionDocument {
        kind: convert::kind_name(&connection.kind)?,
        ..ConnectionDocument::new(convert::connection_name(&connection.name)?)
    };
    for path in paths {
        match path {
            "fields" => {
                is_whole = true;
                fields.append(&mut connection.fields);
            }
            "tags" => masked.tags = Patch::Replace(convert::tags(&connection.tags)?),
            "labels" => {
                masked.labels = Patch::Replace(convert::labels(connection.labels.clone())?);
            }
            "access" => masked.access = Patch::Replace(convert::bindings(&connection.access)?),
            "disabled" => masked.disabled = Some(connection.disabled),
            "max_ttl" => masked.max_ttl = Some(convert::duration(connection.max_ttl)),
            "default" => masked.is_default = Some(connection.default),
            "expires" => {
                masked.expires = Some(connection.expires.as_ref().map(convert::moment));
            }
            "release" => masked.release = convert::release(connection.release)?,
            "send" => {
                let limits = connection.send.take().unwrap_or_default();
                masked.send = Some(convert::send_limits(limits)?);
            }
            path => match path.strip_prefix("fields.") {
                // A name that is not a protobuf word is in backticks (AIP-161).
                Some(name) => {
                    let name = name.trim_matches('`').to_owned();
                    match connection.fields.remove(&name) {
                        Some(value) => drop(fields.insert(name, value)),
                        None => drop(removed.insert(name)),
                    }
                }
                None => return Err(Error::UpdateMaskInvalid(path.chars().take(64).collect())),
            },
        }
    }
    let fields = convert::values(fields);
    masked.fields = if is_whole { Patch::Replace(fields) } else { Patch::Merge(fields) };
    masked.removed = removed;
    Ok(masked)
}

/// A connection without its sensitive values.
fn to_message(listed: &ListedConnection) -> pb::Connection {
    let metadata = &listed.metadata;
    let fields = metadata.fields.iter().map(|(name, field)| pb::FieldState {
        name: name.to_string(),
        sensitive: field.sensitive,
        // Metadata holds no sensitive value to begin with.
        value: field.value.clone(),
        update_time: convert::timestamp(field.update_time),
        updated_by: field.updated_by.clone(),
        expire_time: field.expire_time.and_then(convert::timestamp),
    });
    let max_ttl = metadata.max_ttl_seconds.and_then(|seconds| i64::try_from(seconds).ok());
    pb::Connection {
        name: ResourceName::Connection(metadata.reference()).to_string(),
        uid: metadata.uid.to_string(),
        integration: metadata.integration.to_string(),
        kind: metadata.kind.to_string(),
        fields: BTreeMap::new(),
        field_states: fields.collect(),
        access: convert::access(&metadata.access),
        version: convert::count(metadata.version),
        etag: metadata.etag(),
        create_time: convert::timestamp(metadata.create_time),
        update_time: convert::timestamp(metadata.update_time),
        updated_by: metadata.updated_by.clone(),
        tags: metadata.tags.iter().map(|tag| tag.to_string()).collect(),
        groups: listed.groups.iter().map(ToString::to_string).collect(),
        labels: metadata.labels.as_map().clone(),
        disabled: metadata.disabled,
        max_ttl: max_ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        default: metadata.is_default,
        live_leases: convert::count(listed.live_leases),
        stale_leases: convert::count(listed.stale_leases),
        expires: metadata.expires.and_then(convert::timestamp),
        expire_time: metadata.expire_time().and_then(convert::timestamp),
        last_use_time: listed.used.and_then(|used| convert::timestamp(used.last)),
        use_count: convert::count(listed.used.map_or(0, |used| used.times)),
        uses: Vec::new(),
        holders: Vec::new(),
        findings: Vec::new(),
        release: convert::release_message(metadata.release),
        mintable: metadata.is_mintable(),
        send: convert::send_limits_message(&metadata.send),
        refresh_token: metadata.refresh_state().map(|state| pb::RefreshTokenState {
            generation: convert::count(state.generation),
            update_time: convert::timestamp(state.update_time),
            reauthorization_required: match &state.unusable {
                Some(unusable) => unusable.to_string(),
                None => String::new(),
            },
        }),
    }
}

/// A connection without its sensitive values, with its users.
fn in_use(found: ConnectionInUse) -> pb::Connection {
    let holders = found.holders.iter().map(|holder| pb::LeaseHolder {
        workflow: holder.step.workflow.to_string(),
        run: holder.step.run.to_string(),
        step: holder.step.step.to_string(),
        version: convert::count(holder.version),
        expire_time: convert::timestamp(holder.expire_time),
    });
    pb::Connection {
        uses: convert::uses(&found.users),
        holders: holders.collect(),
        findings: convert::findings(found.findings),
        ..to_message(&found.listed)
    }
}
