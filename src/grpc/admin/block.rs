//! `BlockService`.

use tonic::Request;

use super::call::AdminService;
use crate::access::BlockTarget;
use crate::grpc::convert::page::{PageRequest, page_of};
use crate::grpc::pb::block_service_server::BlockService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::Because;
use crate::model::limits::MAX_PAGE_BYTES;

parse_requests! {
    BlockRequest -> (BlockTarget, Because) = |one| Ok((one.target.parse()?, one.reason.parse()?));
    ListBlocksRequest -> PageRequest<String> =
        |one| PageRequest::parse(one.page_size, &one.page_token);
    UnblockRequest -> (BlockTarget, Because) =
        |one| Ok((one.target.parse()?, one.reason.parse()?));
}

#[tonic::async_trait]
impl BlockService for AdminService {
    async fn block(&self, request: Request<pb::BlockRequest>) -> Reply<pb::BlockResponse> {
        let (call, (target, reason)) = self.begin_on(request, |one| one.target.clone())?;
        call.answer(async {
            let blocked = call.broker.block(&call.caller, target, reason).await?;
            let pending = call.broker.wait_for_endings(&blocked.endings, call.patience).await;
            Ok(pb::BlockResponse {
                block: Some(convert::block(&blocked.block)),
                revoked_leases: convert::count_i32(blocked.revoked),
                pending_endings: convert::pending_endings(pending),
            })
        })
        .await
    }

    async fn unblock(&self, request: Request<pb::UnblockRequest>) -> Reply<pb::UnblockResponse> {
        let (call, (target, reason)) = self.begin_on(request, |one| one.target.clone())?;
        call.answer(async {
            let block = call.broker.unblock(&call.caller, &target, reason).await?;
            Ok(pb::UnblockResponse { block: Some(convert::block(&block)) })
        })
        .await
    }

    async fn list_blocks(
        &self,
        request: Request<pb::ListBlocksRequest>,
    ) -> Reply<pb::ListBlocksResponse> {
        let (call, asked) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let blocks = broker.blocks(caller)?;
            let messages = blocks.iter().map(convert::block);
            let (blocks, next_page_token) = page_of(messages, &asked, |one| &one.target);
            Ok(pb::ListBlocksResponse { blocks, next_page_token })
        })
        .await
    }
}
