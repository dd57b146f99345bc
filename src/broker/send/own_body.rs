//! The connection's own body, and how a body of the step is joined with it.
//!
//! | type | body that goes out |
//! |---|---|
//! | JSON | the members of both objects; the connection's win |
//! | other | the connection's, a line end, the step's, which is streamed |
//! | a form | the connection's; the step must have none |

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use serde::Serializer as _;
use serde_json::value::RawValue;

use crate::broker::error::Error;
use crate::egress::{Bytes, Outgoing, Pieces, StepGone};
use crate::model::Value;

/// The longest body of a step that is merged, in bytes. It is held as a whole.
const MAX_MERGED_BYTES: usize = 64 * 1024;

/// The connection's own body.
pub(super) struct OwnBody {
    content: Value,
    join: Join,
}

/// How a body of the step is joined with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    /// The members of two JSON objects.
    Members,
    /// One after the other.
    Lines,
    /// Not at all, because both are forms.
    Forms,
    /// Not at all, because they are of different types.
    Types,
}

impl OwnBody {
    /// The body of a connection. The types are those of the headers `Content-Type`, if there are such headers.
    pub(super) fn new(content: Value, own_type: Option<&str>, step_type: Option<&str>) -> Self {
        let (own_type, step_type) = (own_type.map(essence), step_type.map(essence));
        let join = match own_type.as_deref().or(step_type.as_deref()).unwrap_or_default() {
            _ if own_type.is_some() && step_type.is_some() && own_type != step_type => Join::Types,
            "application/x-www-form-urlencoded" => Join::Forms,
            form if form.starts_with("multipart/") => Join::Forms,
            json if json == "application/json" || json.ends_with("+json") => Join::Members,
            _ => Join::Lines,
        };
        Self { content, join }
    }

    /// The body that goes out.
    ///
    /// # Errors
    /// If the step has a body that is not joined with this one. The text shows no value.
    pub(super) async fn joined(self, of_step: Outgoing) -> Result<Outgoing, Error> {
        let (length, pieces) = match of_step {
            Outgoing::Pieces { length, pieces } if length != Some(0) => (length, pieces),
            _ => return Ok(Outgoing::Whole(self.content)),
        };
        let alone = |why: &str| {
            let text = format!("the connection sends a body of its own, and {why}: send none");
            Err(Error::SendInvalid(text))
        };
        match self.join {
            Join::Members => {
                let of_step = whole(length, pieces).await?;
                merged(self.content.expose(), &of_step).map(Outgoing::Whole)
            }
            Join::Lines => Ok(self.before(length, pieces)),
            Join::Forms => alone("two forms are not joined"),
            Join::Types => alone("yours has another Content-Type"),
        }
    }

    fn before(self, length: Option<u64>, pieces: Pieces) -> Outgoing {
        let mut first = self.content.into_exposed();
        first.extend_from_slice(b"\r\n");
        let own = u64::try_from(first.len()).unwrap_or(u64::MAX);
        let pieces = stream::iter([Ok(Bytes::from(first))]).chain(pieces);
        Outgoing::Pieces {
            length: length.map(|length| length.saturating_add(own)),
            pieces: Box::pin(pieces),
        }
    }
}

/// A media type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a body of the step to its end.
async fn whole(length: Option<u64>, mut pieces: Pieces) -> Result<Vec<u8>, Error> {
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|StepGone| Error::SendInvalid(StepGone.to_string()))?;
        if whole.len() + piece.len() > MAX_MERGED_BYTES {
            let text = "a body that is merged with the connection's own has at most 64 KiB";
            return Err(Error::SendInvalid(text.to_owned()));
        }
        whole.extend_from_slice(&piece);
    }
    let length = length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length.is_some_and(|length| whole.len() < length) {
        return Err(Error::SendInvalid("the body is shorter than content_length".to_owned()));
    }
    whole.truncate(length.unwrap_or(usize::MAX));
    Ok(whole)
}

/// The members of a JSON object, as they are written. Of two with a name, the last one counts.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The members of both objects. The connection's win and come last, because some servers take the last one of several, and
/// names that differ in upper and lower case for one.
fn merged(own: &[u8], of_step: &[u8]) -> Result<Value, Error> {
    let own: Members<'_> = serde_json::from_slice(own).map_err(|_| {
        let text =
            "the connection's own body is no JSON object, so nothing can be merged: send no body";
        Error::SendUnsupported(text.to_owned())
    })?;
    let mut of_step: Members<'_> = serde_json::from_slice(of_step).map_err(|_| {
        let text = "the body is no JSON object, which could be merged with the connection's own";
        Error::SendInvalid(text.to_owned())
    })?;
    let plain = |name: &str| name.to_uppercase().to_lowercase();
    of_step.retain(|name, _| !own.keys().any(|own| plain(own) == plain(name)));
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut text);
    serializer
        .collect_map(of_step.iter().chain(&own))
        .map_err(|_| Error::Internal("members cannot be written".to_owned()))?;
    Ok(Value::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(own: &str, of_step: &str) -> Result<String, Error> {
        let merged = merged(own.as_bytes(), of_step.as_bytes())?;
        Ok(String::from_utf8(merged.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_connections_members_win_however_the_step_writes_them() {
        for (own, of_step, expected) in [
            (r#"{"key":"k"}"#, r#"{"a":1}"#, r#"{"a":1,"key":"k"}"#),
            (r#"{"key":"k"}"#, r#"{"key":"own","KEY":1,"\u006bey":2}"#, r#"{"key":"k"}"#),
            ("{\"key\":\"k\"}", "{\"\u{212a}ey\":1}", r#"{"key":"k"}"#),
            (r#"{"o":{"key":"k"}}"#, r#"{"o":{"b":2}}"#, r#"{"o":{"key":"k"}}"#),
            // Values stay as they are written.
            ("{}", r#"{ "n": 1.10e400, "s": "\u00e9" }"#, r#"{"n":1.10e400,"s":"\u00e9"}"#),
            (r#"{"key":"k"}"#, "{}", r#"{"key":"k"}"#),
        ] {
            assert_eq!(merge(own, of_step).unwrap(), expected, "{of_step}");
        }
        for of_step in ["", "[]", "null", "{", r#"{"a":1}{"key":2}"#, "\"text\""] {
            let fault = merge(r#"{"key":"k"}"#, of_step).unwrap_err();
            assert!(matches!(fault, Error::SendInvalid(_)), "{of_step}");
        }
        assert!(matches!(merge("[1]", "{}").unwrap_err(), Error::SendUnsupported(_)));
    }

    #[test]
    fn bodies_are_joined_by_their_type() {
        let json = Some("application/json");
        for (own, step, join) in [
            (json, None, Join::Members),
            (json, Some("Application/JSON; charset=utf-8"), Join::Members),
            (None, Some("application/problem+json"), Join::Members),
            (Some("text/plain"), None, Join::Lines),
            (None, None, Join::Lines),
            (json, Some("text/plain"), Join::Types),
            (Some("application/x-www-form-urlencoded"), None, Join::Forms),
            (None, Some("multipart/form-data; boundary=x"), Join::Forms),
        ] {
            let body = OwnBody::new(Value::new(Vec::new()), own, step);
            assert_eq!(body.join, join, "{own:?} {step:?}");
        }
    }
}
