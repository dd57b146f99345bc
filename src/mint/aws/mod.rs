//! AWS STS, AssumeRole and AssumeRoleWithWebIdentity: version 2011-06-15, in the form of the query protocol.

mod endpoint;
mod form;
mod reply;
mod session;
mod sigv4;
mod web_identity;
mod xml;

use crate::egress::{Egress, Request};
use crate::model::{Timestamp, Value};

use super::failure::Failure;
use super::reply::exchange_at;
use super::roots::{Roots, is_of, text_value};
use super::{Ask, Minted};
use endpoint::Endpoint;
use form::{CONTENT_TYPE, form, tags};
use sigv4::{Signer, Unsigned};

pub use web_identity::mint_by_token;

/// The action with an access key.
const ACTION: &str = "AssumeRole";

/// Makes the credentials of a role session. If STS refuses the request for its time, it is signed once more by the reply's
/// `Date`. A repeated request makes another session, which nobody gets.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let call = Call::of(roots, ask)?;
    let request = |now| Ok(call.request(roots, now));
    let reply = exchange_at(egress, ask.now, reply::is_skewed, request).await?;
    reply::minted(&reply, ACTION, roots, ask.now)
}

/// A call of AssumeRole, not yet signed.
struct Call<'a> {
    endpoint: Endpoint<'a>,
    signer: Signer<'a>,
    body: String,
}

impl<'a> Call<'a> {
    fn of(roots: Roots<'a>, ask: &Ask) -> Result<Self, Failure> {
        let endpoint = Endpoint::of(roots)?;
        let is_header = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        let id = "source_access_key_id";
        let access_key_id = roots.checked(id, "an access key ID", |text| is_of(text, "_"))?;
        let token = "source_session_token";
        let signer = Signer {
            access_key_id: access_key_id.ok_or_else(|| Failure::field(id, "is missing"))?,
            secret_access_key: roots.bytes("source_secret_access_key")?,
            session_token: roots.checked(token, "a session token", is_header)?,
            region: endpoint.region,
            service: "sts",
        };
        let external_id = roots.optional("external_id")?;
        let mut form = form(ACTION, roots, ask, endpoint.partition, external_id)?;
        for (number, (key, value)) in (1..).zip(tags(roots)?) {
            form.append_pair(&format!("Tags.member.{number}.Key"), key);
            form.append_pair(&format!("Tags.member.{number}.Value"), value);
        }
        let body = form.finish();
        Ok(Self { endpoint, signer, body })
    }

    fn request(&self, roots: Roots<'_>, now: Timestamp) -> Request {
        let body = self.body.as_bytes();
        let Endpoint { host, path, url, .. } = &self.endpoint;
        let headers =
            self.signer.sign(&Unsigned { host, path, content_type: CONTENT_TYPE, body }, now);
        roots.request("POST", text_value(url), headers, Value::new(body.to_vec()))
    }
}

#[cfg(test)]
mod tests;
