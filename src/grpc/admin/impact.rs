//! `ImpactService`.

use tonic::Request;

use super::call::AdminService;
use super::group::members;
use crate::broker::{Error, Impact, ImpactedLease, LostValues, ProposedChange};
use crate::grpc::convert::page::cut;
use crate::grpc::pb::impact_service_server::ImpactService;
use crate::grpc::pb::preview_request::Change;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::journal::RunKey;
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ResourceName, Tag};

parse_requests! {
    PreviewRequest -> ProposedChange = |one| {
        let missing = "name the change: delete, access, members, tags or release";
        match one.change.ok_or_else(|| Error::TargetInvalid(missing.to_owned()))? {
            Change::Delete(name) => Ok(ProposedChange::Delete(name.parse()?)),
            Change::Access(change) => {
                let access = convert::bindings(&change.access)?;
                Ok(ProposedChange::Access(change.name.parse()?, access))
            }
            Change::Members(change) => Ok(ProposedChange::Members {
                group: convert::group_name(&change.name)?,
                removed: members(&change.remove_members)?,
                added: members(&change.add_members)?,
            }),
            Change::Tags(change) => {
                let tags = convert::tags(&change.tags)?;
                Ok(ProposedChange::Tags(convert::connection_name(&change.name)?, tags))
            }
            Change::Release(change) => {
                let release = convert::release(change.release)?;
                Ok(ProposedChange::Release(convert::connection_name(&change.name)?, release))
            }
        }
    };
}

/// The resource that a preview is about, as the request names it.
fn name_of(request: &pb::PreviewRequest) -> String {
    let name = request.change.as_ref().map(|change| match change {
        Change::Delete(name) => name,
        Change::Access(change) => &change.name,
        Change::Members(change) => &change.name,
        Change::Tags(change) => &change.name,
        Change::Release(change) => &change.name,
    });
    name.cloned().unwrap_or_default()
}

#[tonic::async_trait]
impl ImpactService for AdminService {
    async fn preview(&self, request: Request<pb::PreviewRequest>) -> Reply<pb::Impact> {
        let (call, change) = self.begin_on(request, name_of)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            Ok(to_message(broker.preview(caller, &change, is_cancelled)?))
        })
        .await
    }
}

fn to_message(impact: Impact) -> pb::Impact {
    let Impact { leases, runs, workflows, groups, default_of, endings } = impact;
    // Each of the lists has its part of the reply.
    let part = MAX_PAGE_BYTES / 5;
    let pending = convert::pending_endings(endings.first);
    pb::Impact {
        lease_count: convert::count(leases.count),
        leases: cut(leases.first.iter().map(lease), part).0,
        run_count: convert::count(runs.count),
        runs: cut(runs.first.iter().map(run), part).0,
        workflow_count: convert::count(workflows.count),
        workflows: cut(convert::uses(&workflows.first), part).0,
        group_count: convert::count(groups.count),
        groups: cut(groups.first.iter().map(group), part).0,
        default_of: default_of.map_or_else(String::new, |name| name.to_string()),
        ending_count: convert::count(endings.count),
        endings: cut(pending, part).0,
    }
}

fn lease(one: &ImpactedLease) -> pb::ImpactedLease {
    pb::ImpactedLease {
        workflow: one.step.workflow.to_string(),
        run: one.step.run.to_string(),
        step: one.step.step.to_string(),
        executor: one.step.executor.to_string(),
        resource: one.resource.clone(),
        version: convert::count(one.version),
        expire_time: convert::timestamp(one.expire_time),
    }
}

fn run((key, steps): &(RunKey, usize)) -> pb::ImpactedRun {
    pb::ImpactedRun {
        workflow: key.workflow.to_string(),
        run: key.run.to_string(),
        executor: key.executor.to_string(),
        steps: convert::count(*steps),
    }
}

fn group(one: &LostValues) -> pb::ImpactedGroup {
    let texts = |tags: &[Tag]| tags.iter().map(ToString::to_string).collect();
    pb::ImpactedGroup {
        group: ResourceName::Group(one.group.clone()).to_text(),
        member: ResourceName::Connection(one.member.clone()).to_text(),
        lost_values: texts(&one.lost),
        new_values: texts(&one.new),
    }
}
