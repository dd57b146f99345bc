//! Makes short-lived credentials upstream: one file a protocol. It knows neither journal nor broker.
//!
//! A protocol builds its request from the connection's fields and reads the reply; both are pure. Of a reply only what has a
//! strict form travels: tokens to the step, codes and request numbers to operators.

mod aws;
mod bearer;
mod client;
mod clock;
mod entra;
mod failure;
mod gcp;
mod github;
mod hosted;
mod jwt;
mod oauth2;
mod oidc;
mod postgres;
mod refresh;
mod reply;
mod roots;
mod two_step;

pub use clock::CredentialEnd;
pub use failure::{Failure, FailureReason};
pub use hosted::is_hosted;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;

use crate::egress::{EXCHANGE_TIMEOUT, Egress};
use crate::identity::Issuer;
use crate::integration::Source;
use crate::model::{
    ExecutorName, FieldName, Fields, Id, RunName, SpiffeId, StepName, Timestamp, Value,
    WorkflowName,
};
use roots::Roots;

/// What makes credentials.
pub struct Upstreams {
    /// The way to the upstreams.
    pub egress: Egress,
    /// The broker's own issuer of tokens.
    pub issuer: Arc<Issuer>,
}

/// Whom a token of the broker's issuer names.
pub struct TokenSubject {
    /// The token's subject.
    pub id: SpiffeId,
    /// The number of the step's attempt; `None` if it is no step.
    pub attempt: Option<i32>,
    /// The executor that opened the step; `None` if it is no step.
    pub executor: Option<ExecutorName>,
}

/// Who a credential is made for.
pub struct Ask {
    /// The number of this mint; its first characters are part of what the upstream sees.
    pub mint: Id,
    /// The step's workflow.
    pub workflow: WorkflowName,
    /// Its run; `None` if several steps share the credential.
    pub run: Option<RunName>,
    /// Its name; `None` if several steps share the credential.
    pub step: Option<StepName>,
    /// Whom tokens of the broker's issuer name; `None` if several steps share the credential.
    pub subject: Option<TokenSubject>,
    /// The time now.
    pub now: Timestamp,
}

/// A credential that was made.
pub struct Minted {
    /// What a step gets, by the names of the kind's minted fields.
    pub fields: Fields,
    /// Its end: later than now, and no later than the connection's `mint_seconds` and 24 hours. `None` if neither the upstream
    /// nor the connection tells one.
    pub end: Option<CredentialEnd>,
    /// Its name in the upstream's audit log, which is no secret: an access key ID, a token's hash.
    pub handle: Option<String>,
    /// The upstream's number of the request, if it tells it.
    pub upstream_request: Option<String>,
    /// What [`end`] needs, if the upstream can end the credential only by the credential's own values. The broker keeps it
    /// sealed until the credential has ended.
    pub ending: Option<Fields>,
}

/// A credential that an upstream lists.
pub struct Listed {
    /// The mint that has made it.
    pub mint: Id,
    /// Its name in the upstream's audit log.
    pub handle: String,
    /// Its end, if the upstream tells it.
    pub end: Option<CredentialEnd>,
    /// What [`end`] needs.
    pub ending: Fields,
}

/// What an upstream has answered.
pub struct Answer {
    /// The credential, or why there is none.
    pub made: Result<Minted, Failure>,
    /// The refresh token that replaces the one that was used, which the upstream may refuse from now on. There can be one
    /// even if no credential was made.
    pub rotated: Option<Value>,
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Self { made: Err(failure), rotated: None }
    }
}

/// How a credential has ended.
pub enum End {
    /// The upstream accepts it no more, and nothing of it is left.
    Ended,
    /// The upstream accepts it no more, but something of it could not be removed. The text says what and why, for operators;
    /// it contains no value.
    Disabled(String),
}

/// For how long a credential is asked for, if its connection says so: the field `mint_seconds`. No credential counts as
/// longer, even if the upstream cannot be asked for a time.
pub fn asked_life(roots: &Fields) -> Option<Duration> {
    let text = Roots(roots).optional("mint_seconds").ok()??;
    text.parse().ok().map(Duration::from_secs)
}

/// Makes a credential. `roots` are all fields of the connection. It takes at most [`EXCHANGE_TIMEOUT`], with all its
/// requests. It fails if the upstream cannot be reached, refuses, or answers something else; or if the fields make no request.
pub async fn mint(upstreams: &Upstreams, source: Source, roots: &Fields, ask: &Ask) -> Answer {
    let (roots, egress, mut rotated) = (Roots(roots), &upstreams.egress, None);
    let made = async {
        match source {
            Source::AwsSts => aws::mint(egress, roots, ask).await,
            Source::AwsWebIdentity => aws::mint_by_token(upstreams, roots, ask).await,
            Source::Entra => entra::mint(egress, roots, ask, entra::AZURE).await,
            Source::EntraGraph => entra::mint(egress, roots, ask, entra::GRAPH).await,
            Source::Gcp => gcp::mint(egress, roots, ask).await,
            Source::GcpWebIdentity => gcp::mint_by_token(upstreams, roots, ask).await,
            Source::OidcIssuer => oidc::mint(&upstreams.issuer, roots, ask),
            Source::GithubApp => github::mint(egress, roots, ask).await,
            Source::Oauth2Client => oauth2::mint(egress, roots, ask).await,
            Source::Oauth2Refresh => refresh::mint(egress, roots, ask, &mut rotated).await,
            Source::Postgres => postgres::mint(egress, roots, ask).await,
            Source::TwoStep => two_step::mint(egress, roots, ask).await,
        }
    };
    let made = tokio::time::timeout(EXCHANGE_TIMEOUT, made).await.map_err(late);
    Answer { made: made.flatten(), rotated }
}

/// What [`end`] will need for the credential that is about to be made, if the upstream ends it by its name. `None` if nothing
/// ends it, or only its own values do. `roots` are all fields of the connection.
///
/// # Errors
/// If the fields make no request.
pub fn ending_ahead(source: Source, roots: &Fields, ask: &Ask) -> Result<Option<Fields>, Failure> {
    let ahead = || postgres::ending_ahead(Roots(roots), ask);
    source.ends_by_name().then(ahead).transpose()
}

/// What [`end`] needs to try again with the newest fields of the connection, if the upstream has refused the kept fields:
/// only the login is taken from the newest. `None` if nothing but the credential itself ends it, or the newest fields are
/// for another destination: no login goes to a place that its connection does not name.
pub fn ending_by_newest(source: Source, ending: &Fields, newest: &Fields) -> Option<Fields> {
    let by_newest = || postgres::ending_by_newest(Roots(ending), Roots(newest));
    source.ends_by_name().then(by_newest).flatten()
}

/// Lists the credentials that brokers have made at an upstream; none if it does not list them. `roots` are all fields of a
/// connection. It takes at most [`EXCHANGE_TIMEOUT`].
///
/// # Errors
/// If the upstream cannot be reached, or refuses, or has over 50,000 of them; or if the fields make no request.
pub async fn list(egress: &Egress, source: Source, roots: &Fields) -> Result<Vec<Listed>, Failure> {
    if !source.ends_by_name() {
        return Ok(Vec::new());
    }
    let listing = postgres::list(egress, Roots(roots));
    tokio::time::timeout(EXCHANGE_TIMEOUT, listing).await.map_err(late)?
}

/// Ends a credential upstream. `ending` is what the mint or [`ending_ahead`] has given. A credential that is gone already
/// counts as ended, so this may be repeated. It takes at most [`EXCHANGE_TIMEOUT`].
///
/// # Errors
/// If the upstream cannot be reached, or refuses.
pub async fn end(egress: &Egress, source: Source, ending: &Fields) -> Result<End, Failure> {
    let ending = Roots(ending);
    let ended = async {
        match source {
            Source::GithubApp => github::end(egress, ending).await,
            Source::Oauth2Client => oauth2::end(egress, ending).await,
            Source::Postgres => postgres::end(egress, ending).await,
            Source::AwsSts
            | Source::AwsWebIdentity
            | Source::Entra
            | Source::EntraGraph
            | Source::Gcp
            | Source::GcpWebIdentity
            | Source::OidcIssuer
            | Source::Oauth2Refresh
            | Source::TwoStep => Err(Failure::invalid("what this protocol makes only expires")),
        }
    };
    let ended = tokio::time::timeout(EXCHANGE_TIMEOUT, ended).await;
    // A step can hold up the end of its own role, and of nothing else.
    let concerns_all = !source.ends_by_name();
    ended.map_err(|elapsed| Failure { concerns_all, ..late(elapsed) })?
}

/// The failure of an upstream that did not answer in time.
fn late(_: Elapsed) -> Failure {
    let text = format!("the upstream did not answer within {} s", EXCHANGE_TIMEOUT.as_secs());
    Failure { is_uncertain: true, ..Failure::new(FailureReason::Unavailable, text) }
}

/// The name of a credential in what ends it.
const TOKEN: &str = "token";

/// What ends a credential that has nothing but itself to end it: the credential, and these fields of the connection.
fn ending(roots: Roots<'_>, kept: &[&str], token: &str) -> Result<Fields, Failure> {
    let kept = kept.iter().filter_map(|name| roots.copy(name).map(|value| (*name, value)));
    fields(kept.chain([(TOKEN, roots::text_value(token))]))
}

/// Fields by these names.
fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Result<Fields, Failure> {
    let named = pairs.into_iter().map(|(name, value)| {
        let name = FieldName::parse(name).map_err(|error| Failure::invalid(&error.to_string()))?;
        Ok((name, value))
    });
    named.collect()
}

#[cfg(test)]
mod samples;
