//! `SystemService`.

pub(crate) mod backup;
pub(crate) mod bounded_stream;
pub(crate) mod suggest;
pub(crate) mod tail;

use tonic::{Request, Response, Status};

use super::call::AdminService;
use crate::access::{Examined, Principal};
use crate::broker::{
    DryRun, Error, ExaminedResource, Explanation, Health, ListedDek, ListedKeys, NearMember,
    PastDecision,
};
use crate::grpc::edge::peer;
use crate::grpc::pb::system_service_server::SystemService;
use crate::grpc::{convert, pb};
use crate::journal::{DecisionName, JournalStatus, Outcome};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ResourceName, StepName, Timestamp, WorkflowName};
use backup::BackupStream;
use tail::TailStream;

#[tonic::async_trait]
impl SystemService for AdminService {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::Status>, Status> {
        let peer = peer::admin_connection(&request)?;
        let (call, _) = self.begin(request, "GetStatus", |_| String::new())?;
        call.answer(async {
            if !matches!(call.caller, Principal::Operator(..)) {
                return Err(Error::OperatorRequired);
            }
            let expire_time = convert::timestamp(peer.svid.not_after);
            let status = status(call.broker.health());
            Ok(pb::Status { caller_certificate_expire_time: expire_time, ..status })
        })
        .await
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::RenewCertificateResponse>, Status> {
        let peer = peer::admin_connection(&request)?;
        let (call, request) = self.begin(request, "RenewCertificate", |_| String::new())?;
        call.answer(async {
            let renewed = call.broker.renew_certificate(&call.caller, &peer.svid, &request.csr);
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

    async fn tail_journal(
        &self,
        request: Request<pb::TailJournalRequest>,
    ) -> Result<Response<TailStream>, Status> {
        let peer = peer::admin_connection(&request)?;
        let (call, request) = self.begin(request, "TailJournal", |_| String::new())?;
        call.stream(tail::begin(&call, peer, request)).await
    }

    type BackupStream = BackupStream;

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<BackupStream>, Status> {
        let peer = peer::admin_connection(&request)?;
        let (call, _) = self.begin(request, "Backup", |_| String::new())?;
        call.stream(backup::begin(&call, peer)).await
    }

    async fn end_quarantine(
        &self,
        request: Request<pb::EndQuarantineRequest>,
    ) -> Result<Response<pb::EndQuarantineResponse>, Status> {
        let (call, _) = self.begin(request, "EndQuarantine", |_| String::new())?;
        call.answer(async {
            let ended = call.broker.end_quarantine(&call.caller).await?;
            Ok(pb::EndQuarantineResponse { ended })
        })
        .await
    }

    async fn suggest_access(
        &self,
        request: Request<pb::SuggestAccessRequest>,
    ) -> Result<Response<pb::SuggestAccessResponse>, Status> {
        let (call, request) = self.begin(request, "SuggestAccess", |one| one.workflow.clone())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let workflow = WorkflowName::parse(&request.workflow)?;
            let since = request.since.as_ref().map(convert::moment);
            let since = since.unwrap_or(Timestamp::from_millis(i64::MIN));
            let suggested = broker.suggest_access(caller, &workflow, since, is_cancelled)?;
            Ok(suggest::response(&suggested))
        })
        .await
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        use pb::explain_request::Question;
        let (call, request) = self.begin(request, "Explain", |_| String::new())?;
        call.read(0, move |broker, caller, _| {
            let told = match request.question {
                None => Err(Error::DecisionInvalid(String::new())),
                Some(Question::DryRun(asked)) => broker.explain(caller, &dry_run(&asked)?),
                Some(Question::DecisionId(id)) => {
                    broker.explain_decision(caller, decision_name(&id)?)
                }
            };
            told.map(to_message)
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let (call, _) = self.begin(request, "ListKeys", |_| String::new())?;
        call.read(0, |broker, caller, _| broker.list_keys(caller).map(keys)).await
    }

    async fn rotate_kek(
        &self,
        request: Request<pb::RotateKekRequest>,
    ) -> Result<Response<pb::RotateKekResponse>, Status> {
        let (call, _) = self.begin(request, "RotateKek", |_| String::new())?;
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
    ) -> Result<Response<pb::RotateDekResponse>, Status> {
        let (call, _) = self.begin(request, "RotateDek", |_| String::new())?;
        call.answer(async {
            let dek_id = call.broker.rotate_dek(&call.caller).await?.to_string();
            Ok(pb::RotateDekResponse { dek_id })
        })
        .await
    }
}

fn status(health: Health) -> pb::Status {
    let Health { counts, keys, memory, journal, signature, .. } = health;
    let unsynced = journal.as_ref().map(|journal| convert::count(journal.unsynced_lines));
    let signed = signature.as_ref().and_then(|signature| convert::timestamp(signature.time));
    pb::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: health.trust_domain,
        start_time: convert::timestamp(health.start_time),
        state: health.state.to_string(),
        connections: convert::count(counts.connections),
        groups: convert::count(counts.groups),
        secrets: convert::count(counts.secrets),
        own_integrations: convert::count(counts.own_integrations),
        operators: convert::count(counts.operators),
        executors: convert::count(counts.executors),
        open_steps: convert::count(counts.open_steps),
        live_leases: convert::count(counts.live_leases),
        watches: convert::count(counts.watches),
        head: convert::count(health.head),
        journal_mode: health.journal_mode.to_string(),
        journal_position: journal.as_ref().map(JournalStatus::position).unwrap_or_default(),
        journal_unsynced_lines: unsynced,
        journal_unsynced_for: journal.and_then(|journal| journal.unsynced_for.try_into().ok()),
        journal_signed_position: signature.map(|one| one.position).unwrap_or_default(),
        journal_sign_time: signed,
        kek_id: keys.kek.to_string(),
        kek_source: keys.kek_kind.to_string(),
        deks: convert::count(keys.deks),
        resealing: keys.is_resealing(),
        key_memory: memory.key_memory.to_string(),
        core_dumps_off: memory.has_no_core_dumps,
        freed_memory_wiped: memory.wipes_freed_memory,
        daemon_certificate_expire_time: convert::timestamp(health.certificate_end),
        ca_expire_time: convert::timestamp(health.authority_end),
        caller_certificate_expire_time: None,
        ca_sha256: hex::encode(health.authority_sha256),
        newer: health.newer,
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

pub(crate) fn decision_name(id: &str) -> Result<DecisionName, Error> {
    id.parse().map_err(|_| Error::DecisionInvalid(id.chars().take(64).collect()))
}

pub(crate) fn dry_run(asked: &pb::DryRun) -> Result<DryRun, Error> {
    let target = asked.target.parse();
    Ok(DryRun {
        workflow: WorkflowName::parse(&asked.workflow)?,
        step: StepName::parse(&asked.step)?,
        run_as: convert::run_as(&asked.run_as)?,
        target: target
            .map_err(|error: crate::model::Invalid| Error::TargetInvalid(error.to_string()))?,
        fields: asked.fields.clone(),
    })
}

fn to_message(told: Explanation) -> pb::ExplainResponse {
    let (explanation, allowed_by) = match told.outcome {
        Ok(by) => (format!("allowed by {by}"), by),
        // The step is told less: it is not to know whether there is such a connection.
        Err(Error::Denied { .. }) => {
            ("no binding allows it; see what was looked at".to_owned(), String::new())
        }
        Err(error) => (error.to_string(), String::new()),
    };
    let name = |name| ResourceName::Connection(name).to_string();
    pb::ExplainResponse {
        past: told.past.map(past),
        principal: told.principal,
        run_as: told.run_as,
        target: told.target,
        outcome: told.reason.to_owned(),
        explanation,
        allowed_by,
        connection: told.connection.map(name).unwrap_or_default(),
        resources: told.resources.into_iter().map(resource).collect(),
        near_members: told.near_members.into_iter().map(near_member).collect(),
    }
}

fn past(past: PastDecision) -> pb::PastDecision {
    let time = convert::timestamp(past.time);
    let decision_id = past.decision_id;
    match past.outcome {
        Outcome::Allow { by, version, released, .. } => pb::PastDecision {
            decision_id,
            time,
            outcome: "ALLOWED".to_owned(),
            allowed_by: by,
            version: convert::count(version),
            fields: released.iter().map(ToString::to_string).collect(),
            refused_by: String::new(),
        },
        Outcome::Refuse { reason, by } => pb::PastDecision {
            decision_id,
            time,
            outcome: reason,
            refused_by: by,
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
