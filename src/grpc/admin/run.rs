//! `RunService`.

use tonic::Request;

use super::call::AdminService;
use crate::broker::{
    Error, Order, OrderBy, RunPlace, RunQuery, RunSummary, WorkflowQuery, WorkflowSummary,
};
use crate::catalog::Filter;
use crate::grpc::convert::page::ListRequest;
use crate::grpc::pb::run_service_server::RunService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{Timestamp, WorkflowName};

/// The order of runs and workflows if the client does not say.
const NEWEST_FIRST: &str = "last_time desc";

parse_requests! {
    ListRunsRequest -> RunList = |one| {
        let filter = convert::filter(&one.filter)?;
        let since = one.since.as_ref().map(convert::moment);
        let query = ("runs", &one.filter, since);
        let asked = ListRequest::parse(one.page_size, &one.page_token, order(&one.order_by)?, query)?;
        Ok(RunList { asked, filter, since })
    };
    ListWorkflowsRequest -> WorkflowList = |one| {
        let filter = convert::filter(&one.filter)?;
        let query = ("workflows", &one.filter);
        let asked = ListRequest::parse(one.page_size, &one.page_token, order(&one.order_by)?, query)?;
        Ok(WorkflowList { asked, filter })
    };
}

/// Which runs a list shows.
pub struct RunList {
    asked: ListRequest<RunPlace>,
    filter: Filter<RunSummary>,
    since: Option<Timestamp>,
}

/// Which workflows a list shows.
pub struct WorkflowList {
    asked: ListRequest<WorkflowName>,
    filter: Filter<WorkflowSummary>,
}

fn order(given: &str) -> Result<Order, Error> {
    let text = if given.trim().is_empty() { NEWEST_FIRST } else { given };
    Order::parse(text, &OrderBy::OF_RUNS)
}

#[tonic::async_trait]
impl RunService for AdminService {
    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Reply<pb::ListRunsResponse> {
        let (call, RunList { asked, filter, since }) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let query = RunQuery { filter, since, page: asked.page.clone() };
            let answer = asked.answer(&broker.runs(caller, &query, is_cancelled)?, run);
            Ok(pb::ListRunsResponse {
                runs: answer.messages,
                next_page_token: answer.next_page_token,
                total_size: answer.total_size,
                total_size_estimated: answer.total_size_estimated,
            })
        })
        .await
    }

    async fn list_workflows(
        &self,
        request: Request<pb::ListWorkflowsRequest>,
    ) -> Reply<pb::ListWorkflowsResponse> {
        let (call, WorkflowList { asked, filter }) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let query = WorkflowQuery { filter, page: asked.page.clone() };
            let answer = asked.answer(&broker.workflows(caller, &query, is_cancelled)?, workflow);
            Ok(pb::ListWorkflowsResponse {
                workflows: answer.messages,
                next_page_token: answer.next_page_token,
                total_size: answer.total_size,
                total_size_estimated: answer.total_size_estimated,
            })
        })
        .await
    }
}

fn run(listed: &RunSummary) -> pb::RunSummary {
    let RunSummary { key, open, counts } = listed;
    pb::RunSummary {
        workflow: key.workflow.to_string(),
        run: key.run.to_string(),
        executor: key.executor.to_string(),
        open_steps: convert::count(*open),
        opened_steps: convert::count(counts.steps),
        first_time: convert::timestamp(counts.first),
        last_time: convert::timestamp(counts.last),
        use_count: convert::count(counts.uses),
        denial_count: convert::count(counts.denials),
    }
}

fn workflow(listed: &WorkflowSummary) -> pb::WorkflowSummary {
    let WorkflowSummary { name, runs, open, counts } = listed;
    pb::WorkflowSummary {
        workflow: name.to_string(),
        run_count: convert::count(*runs),
        open_steps: convert::count(*open),
        opened_steps: convert::count(counts.steps),
        first_time: convert::timestamp(counts.first),
        last_time: convert::timestamp(counts.last),
        use_count: convert::count(counts.uses),
        denial_count: convert::count(counts.denials),
    }
}
