//! `SystemService`.

mod backup;
mod bounded_stream;
mod explain;
mod issuer;
mod status;
mod suggest;
mod tail;

use tonic::Request;

use super::call::AdminService;
use crate::access::Principal;
use crate::broker::{Confirmed, Error, ListedDek, ListedKeys};
use crate::grpc::convert::page::{PageRequest, page};
use crate::grpc::pb::system_service_server::SystemService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::journal::RestoredAs;
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ConnectionRef, Id, Timestamp, WorkflowName};
use backup::BackupStream;
use explain::ExplainQuestion;
use status::lost_credentials;
use tail::TailStream;

parse_requests! {
    BackupRequest -> () = |_| Ok(());
    EndQuarantineRequest -> (Option<RestoredAs>, bool) =
        |one| Ok((convert::restored_as(one.restored_as)?, one.refresh_tokens_current));
    GetIssuerRequest -> () = |_| Ok(());
    GetStatusRequest -> () = |_| Ok(());
    ListEndingsRequest -> (Option<ConnectionRef>, PageRequest<Id>) = |one| {
        let connection = convert::given(&one.connection);
        let connection = connection.map(|name| convert::connection_name(&name)).transpose()?;
        Ok((connection, PageRequest::parse(one.page_size, &one.page_token)?))
    };
    ListKeysRequest -> () = |_| Ok(());
    RenewCertificateRequest -> Vec<u8> = |one| Ok(one.csr);
    RotateDekRequest -> () = |_| Ok(());
    RotateIssuerRequest -> bool = |one| Ok(one.force);
    RotateKekRequest -> () = |_| Ok(());
    SuggestAccessRequest -> (WorkflowName, Option<Timestamp>) = |one| {
        Ok((WorkflowName::parse(&one.workflow)?, one.since.as_ref().map(convert::moment)))
    };
}

#[tonic::async_trait]
impl SystemService for AdminService {
    async fn get_status(&self, request: Request<pb::GetStatusRequest>) -> Reply<pb::Status> {
        let (call, ()) = self.begin(request)?;
        call.answer(async {
            if !matches!(call.caller, Principal::Operator(..)) {
                return Err(Error::OperatorRequired);
            }
            Ok(pb::Status {
                caller_certificate_expire_time: convert::timestamp(call.peer.svid.not_after),
                ..status::response(call.broker.health())
            })
        })
        .await
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Reply<pb::RenewCertificateResponse> {
        let (call, csr) = self.begin(request)?;
        call.answer(async {
            let renewed = call.broker.renew_certificate(&call.caller, &call.peer.svid, &csr);
            let issued = renewed.await?;
            Ok(pb::RenewCertificateResponse {
                certificate_chain: issued.chain_pem,
                ca_certificate: call.broker.authority().root_pem().to_owned(),
                expire_time: convert::timestamp(issued.pinned.not_after),
            })
        })
        .await
    }

    type TailJournalStream = TailStream;

    async fn tail_journal(&self, request: Request<pb::TailJournalRequest>) -> Reply<TailStream> {
        let (call, request) = self.begin(request)?;
        call.stream(tail::begin(&call, request)).await
    }

    type BackupStream = BackupStream;

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Reply<BackupStream> {
        let (call, ()) = self.begin(request)?;
        call.stream(backup::begin(&call)).await
    }

    async fn end_quarantine(
        &self,
        request: Request<pb::EndQuarantineRequest>,
    ) -> Reply<pb::EndQuarantineResponse> {
        let (call, (restored_as, are_current)) = self.begin(request)?;
        call.answer(async {
            let confirmed =
                call.broker.end_quarantine(&call.caller, restored_as, are_current).await?;
            let Confirmed { is_ended: ended, search, not_sought } = confirmed;
            Ok(pb::EndQuarantineResponse {
                ended,
                lost: search.found.into_iter().map(lost_credentials).collect(),
                not_sought: not_sought.unwrap_or_default().to_owned(),
                connections_left: convert::count(search.left),
            })
        })
        .await
    }

    async fn suggest_access(
        &self,
        request: Request<pb::SuggestAccessRequest>,
    ) -> Reply<pb::SuggestAccessResponse> {
        let (call, (workflow, since)) = self.begin_on(request, |one| one.workflow.clone())?;
        let since = since.unwrap_or(Timestamp::from_millis(i64::MIN));
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let suggested = broker.suggest_access(caller, &workflow, since, is_cancelled)?;
            Ok(suggest::response(&suggested))
        })
        .await
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Reply<pb::ExplainResponse> {
        let (call, question) = self.begin(request)?;
        call.read(0, move |broker, caller, is_cancelled| {
            let explained = match question {
                ExplainQuestion::Decision(name) => {
                    broker.explain_decision(caller, name, is_cancelled)
                }
                ExplainQuestion::DryRun(dry_run) => broker.explain(caller, &dry_run),
            };
            explained.map(explain::response)
        })
        .await
    }

    async fn list_endings(
        &self,
        request: Request<pb::ListEndingsRequest>,
    ) -> Reply<pb::ListEndingsResponse> {
        let (call, (connection, PageRequest { after, size })) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let (listed, has_more) =
                broker.list_endings(caller, connection.as_ref(), after, size)?;
            let listed = listed.into_iter().map(convert::listed_ending);
            let (endings, next_page_token) = page(listed, has_more, |one| one.mint.as_str());
            Ok(pb::ListEndingsResponse { endings, next_page_token })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Reply<pb::ListKeysResponse> {
        let (call, ()) = self.begin(request)?;
        call.read(0, |broker, caller, _| broker.list_keys(caller).map(keys)).await
    }

    async fn rotate_kek(
        &self,
        request: Request<pb::RotateKekRequest>,
    ) -> Reply<pb::RotateKekResponse> {
        let (call, ()) = self.begin(request)?;
        call.answer(async {
            let rotated = call.broker.rotate_kek(&call.caller).await?;
            let kept = rotated.kept.map(|path| path.display().to_string());
            Ok(pb::RotateKekResponse {
                old_kek_id: rotated.old.to_string(),
                kek_id: rotated.new.to_string(),
                old_kek_file: kept.unwrap_or_default(),
            })
        })
        .await
    }

    async fn rotate_dek(
        &self,
        request: Request<pb::RotateDekRequest>,
    ) -> Reply<pb::RotateDekResponse> {
        let (call, ()) = self.begin(request)?;
        call.answer(async {
            let dek_id = call.broker.rotate_dek(&call.caller).await?.to_string();
            Ok(pb::RotateDekResponse { dek_id })
        })
        .await
    }

    async fn get_issuer(&self, request: Request<pb::GetIssuerRequest>) -> Reply<pb::Issuer> {
        let (call, ()) = self.begin(request)?;
        call.read(0, |broker, caller, _| broker.published_issuer(caller).map(issuer::response))
            .await
    }

    async fn rotate_issuer(
        &self,
        request: Request<pb::RotateIssuerRequest>,
    ) -> Reply<pb::RotateIssuerResponse> {
        let (call, force) = self.begin(request)?;
        call.answer(async {
            let (keys, hosted) = call.broker.rotate_issuer(&call.caller, force).await?;
            Ok(pb::RotateIssuerResponse { keys: keys.iter().map(issuer::key).collect(), hosted })
        })
        .await
    }
}

fn keys(listed: ListedKeys) -> pb::ListKeysResponse {
    let newest = listed.deks.last().map(|dek| dek.id);
    let dek = |dek: ListedDek| pb::Dek {
        id: dek.id.to_string(),
        create_time: dek.create_time.and_then(convert::timestamp),
        newest: Some(dek.id) == newest,
        records: convert::count(dek.records),
    };
    pb::ListKeysResponse {
        kek_id: listed.kek.to_string(),
        kek_source: listed.kek_kind.to_string(),
        deks: listed.deks.into_iter().map(dek).collect(),
    }
}
