//! `exec --serve http` and `git`: requests to this address go to a connection's upstream, through the broker. The command
//! never gets the credential.
//!
//! The token of the command is the first segment of the path, because tools that take a base URL keep its path.

mod body;
mod git;
mod refusal;
mod request;
mod variables;

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::stream;
use http_body_util::{BodyDataStream, Either, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use zeroize::Zeroizing;

pub use git::{GitAddress, git_variables, inherited_entries};
pub use variables::{HttpAddress, http_variables};

use crate::cli::identity::session::Session;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::step::send::{Broken, Exchange, SendTarget, pieces};
use crate::grpc::pb;
use body::ForwardBody;
use refusal::{ERROR_HEADER, refusal};

/// An answer of this address: its own as a whole, or an upstream's as a stream.
pub type ForwardResponse = Response<Either<Full<Bytes>, ForwardBody>>;

/// An address below which requests go to one upstream.
pub struct Forward {
    /// The first segment of the path.
    token: Zeroizing<String>,
    target: SendTarget,
    session: Arc<Session>,
}

impl Forward {
    /// Forwards requests with this token to a target.
    pub fn new(token: Zeroizing<String>, target: SendTarget, session: Arc<Session>) -> Self {
        Self { token, target, session }
    }

    /// The path that requests begin with, without a slash at its end.
    pub fn path(&self) -> String {
        format!("/{}", self.token.as_str())
    }

    /// Whether a path is below this address.
    pub fn has(&self, path: &str) -> bool {
        let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
        first.is_some_and(|first| {
            verify_slices_are_equal(first.as_bytes(), self.token.as_bytes()).is_ok()
        })
    }

    /// Answers a request below this address.
    pub async fn answer(&self, request: Request<Incoming>) -> ForwardResponse {
        let answer = match request::check(&request) {
            Ok(()) => self.forward(request).await,
            Err(text) => Err(invalid(&text)),
        };
        answer.unwrap_or_else(|failure| refusal(&failure).map(Either::Left))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<ForwardResponse, Failure> {
        let (parts, body) = request.into_parts();
        let (method, length) = (parts.method, body.size_hint().exact());
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let path = path.get(self.path().len()..).unwrap_or_default();
        let headers = request::headers(&parts.headers);
        let head = self.target.head((method.as_str(), path), headers, length);
        let is_repeatable = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&method);
        if is_repeatable && length == Some(0) {
            let exchange = self.begin_repeatable(head).await?;
            return self.answered(&method, exchange, None).await;
        }
        let (body, mut broken) = pieces(BodyDataStream::new(body));
        let exchange = tokio::select! {
            exchange = self.begin(head, body) => exchange?,
            error = broken.wait() => return Err(invalid(&format!("the body broke off: {error}"))),
        };
        self.answered(&method, exchange, Some(broken)).await
    }

    /// Begins an exchange that can be begun again, and retries while the broker is away.
    async fn begin_repeatable(&self, head: pb::SendHead) -> Result<Exchange, Failure> {
        let (mut deadline, mut connection) =
            (self.session.deadline(), self.session.channel().await);
        loop {
            let begun =
                Exchange::begin(connection.channel.clone(), head.clone(), stream::empty()).await;
            match begun {
                Err(failure) if deadline.allows(&failure).await => {
                    connection = self.session.replace(&connection, &mut deadline, None).await?;
                }
                begun => return begun,
            }
        }
    }

    /// Begins any exchange. It is not begun again: nobody knows whether the upstream has got it. The next one gets
    /// another connection.
    async fn begin(
        &self,
        head: pb::SendHead,
        body: impl stream::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Exchange, Failure> {
        let connection = self.session.channel().await;
        let begun = Exchange::begin(connection.channel.clone(), head, body).await;
        if let Err(failure) = &begun
            && failure.is_of_the_connection()
        {
            let session = Arc::clone(&self.session);
            tokio::spawn(async move {
                let mut deadline = session.deadline();
                session.replace(&connection, &mut deadline, None).await.map(|_| ())
            });
        }
        begun
    }

    /// The upstream's answer for the command.
    async fn answered(
        &self,
        method: &Method,
        mut exchange: Exchange,
        broken: Option<Broken<hyper::Error>>,
    ) -> Result<ForwardResponse, Failure> {
        let status = exchange.status();
        let status = StatusCode::from_u16(status)
            .map_err(|_| invalid(&format!("the upstream answered with the status {status}")))?;
        let headers = self.headers_of(&exchange.answer);
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let is_empty = method == Method::HEAD
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
            || length == Some(0);
        let body = match is_empty {
            true => {
                // The broker takes an exchange whose end nobody waits for as broken off.
                while exchange.next().await?.is_some() {}
                Either::Left(Full::default())
            }
            false => Either::Right(ForwardBody::new(exchange, length, broken)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// The headers of an answer. Only this address says that an error is the broker's. A redirect below the upstream's
    /// address leads below this one.
    fn headers_of(&self, answer: &pb::SendAnswer) -> HeaderMap {
        let headers = answer.headers.iter().filter_map(|header| {
            let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(&header.value).ok()?))
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers.filter(|(name, _)| *name != ERROR_HEADER) {
            map.append(name, value);
        }
        let below = answer.location.as_ref().map(|path| format!("{}{path}", self.path()));
        if let Some(Ok(location)) = below.map(|path| HeaderValue::from_str(&path)) {
            map.insert(LOCATION, location);
        }
        map
    }
}

fn invalid(text: &str) -> Failure {
    Failure::new("SEND_INVALID", text, exit::FAILED)
}
