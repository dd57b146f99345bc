//! Reflection on the admin door (grpc.reflection.v1 and v1alpha), for tools such as grpcurl.
//!
//! The descriptors take 1 MB when they are decoded, and few daemons are ever asked. They are decoded at the first
//! request.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder, v1alpha};
use tower::Service;

use crate::grpc::pb;

/// Reflection for current clients.
pub(crate) fn v1() -> Lazy<ServerReflectionServer<impl ServerReflection>> {
    Lazy::new(|| protos().build_v1().ok())
}

/// Reflection for older clients.
pub(crate) fn v1alpha() -> Lazy<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>> {
    Lazy::new(|| protos().build_v1alpha().ok())
}

fn protos() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// A service of tonic that is built at its first request.
pub(crate) struct Lazy<S> {
    /// `None` if it cannot be built.
    service: Arc<OnceLock<Option<S>>>,
    make: fn() -> Option<S>,
}

impl<S> Lazy<S> {
    fn new(make: fn() -> Option<S>) -> Self {
        Self { service: Arc::default(), make }
    }
}

impl<S> Clone for Lazy<S> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), make: self.make }
    }
}

impl<S: NamedService> NamedService for Lazy<S> {
    const NAME: &'static str = S::NAME;
}

type HttpReply = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Lazy<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<HttpReply>>;

    /// Services that tonic generates are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.service.get_or_init(self.make) {
            Some(service) => Either::Left(service.clone().call(request)),
            None => {
                let status =
                    Status::internal("the protos that this program was built with are malformed");
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}
