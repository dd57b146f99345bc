//! Puppet Relay's metadata API, as far as relay-sdk and `ni` use it.
//!
//! | | |
//! |---|---|
//! | `GET /spec?q=&lang=`, `/environment`, `/environment/NAME` | evaluated |
//! | `GET /conditions` | whether all conditions of `when` are true |
//! | `GET /secrets/NAME` | a secret of the workflow |
//! | `PUT /outputs/NAME`, `/outputs/NAME/metadata`, `GET /outputs/STEP/NAME` | kept for the life of the command |
//! | `PUT`, `GET /state/NAME` | the same |
//! | `PUT /status`, `POST /decorators/NAME`, `/logs`, `/logs/ID/messages`, `/validate` | accepted and dropped |
//! | `POST /events`, `/workflows/NAME/run` | refused: there is no Relay service |
//!
//! Source: relay-core `pkg/metadataapi/server/api/server.go`; relay-sdk 0.3.1 against a socket.

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};

use super::answer::{self, RelayError};
use super::relay::Relay;
use crate::relay::{Evaluated, Language, Query, SpecReference, StepSpec, Tree};
use crate::sys::local_http::HttpResponse;

/// The longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

type RelayOutcome = Result<HttpResponse, RelayError>;

fn ok(body: &Json) -> RelayOutcome {
    Ok(answer::json(StatusCode::OK, body))
}

/// Answers a request that has the token.
pub async fn answer(relay: &Relay, request: Request<Incoming>) -> HttpResponse {
    route(relay, request).await.unwrap_or_else(RelayError::into_answer)
}

async fn route(relay: &Relay, request: Request<Incoming>) -> RelayOutcome {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_matches('/').to_owned();
    let (first, rest) = path.split_once('/').unwrap_or((&path, ""));
    match (head.method, first) {
        (Method::GET, "spec") => spec(relay, head.uri.query().unwrap_or_default()).await,
        (Method::GET, "environment") => environment(relay, &name(rest)?).await,
        (Method::GET, "conditions") => conditions(relay).await,
        (Method::GET, "secrets") => {
            let name = name(rest)?;
            let value = relay.secret(&name).await?;
            ok(&json!({ "key": name, "value": value }))
        }
        (Method::GET, "outputs") => output(relay, rest),
        (Method::GET, "state") => {
            let name = name(rest)?;
            let value = found(relay.outputs.state(&name), "no such state")?;
            ok(&json!({ "key": name, "value": value }))
        }
        (Method::POST, "events" | "workflows") => {
            let text =
                "there is no Relay service here to trigger a workflow; ask the workflow executor";
            Err(RelayError::not_implemented(text))
        }
        (method, first) => take(relay, (&method, first), rest, read(body).await?),
    }
}

/// Answers a request with a body.
fn take(relay: &Relay, what: (&Method, &str), rest: &str, body: Json) -> RelayOutcome {
    match what {
        (&Method::PUT, "outputs") => match rest.strip_suffix("/metadata") {
            Some(output) => {
                let sensitive = body.get("sensitive").and_then(Json::as_bool).unwrap_or(false);
                let is_there = relay.outputs.set_sensitive(&name(output)?, sensitive);
                found(is_there.then_some(()), "no such output")?;
                Ok(answer::empty(StatusCode::CREATED))
            }
            None => kept(relay.outputs.set(name(rest)?, body)),
        },
        (&Method::PUT, "state") => kept(relay.outputs.set_state(name(rest)?, body)),
        (&Method::POST, "logs") if rest.ends_with("/messages") => {
            Ok(answer::json(StatusCode::ACCEPTED, &json!({})))
        }
        (&Method::PUT, "status") | (&Method::POST, "decorators" | "logs") => {
            Ok(answer::json(StatusCode::CREATED, &json!({})))
        }
        (&Method::POST, "validate") => ok(&json!({})),
        _ => Err(RelayError::not_found("no such address")),
    }
}

async fn spec(relay: &Relay, query: &str) -> RelayOutcome {
    let parameter = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let language: Language = parameter("lang").parse().map_err(RelayError::language)?;
    let query = Query::parse(&parameter("q"), language).map_err(RelayError::evaluation)?;
    let evaluated = relay.evaluate(relay.tree(|step| &step.spec), &query).await?;
    ok(&envelope(&evaluated))
}

async fn environment(relay: &Relay, name: &str) -> RelayOutcome {
    let part: fn(&StepSpec) -> &Tree = |step| &step.env;
    let query = match name {
        "" => Query::everything(),
        name if relay.tree(part).has_key(name) => Query::key(name),
        _ => return Err(RelayError::not_found("no such variable")),
    };
    let evaluated = relay.evaluate(relay.tree(part), &query).await?;
    ok(&envelope(&evaluated))
}

async fn conditions(relay: &Relay) -> RelayOutcome {
    let evaluated = relay.evaluate(relay.tree(|step| &step.when), &Query::everything()).await?;
    let answer = match (evaluated.complete, &evaluated.value) {
        (true, Json::Array(conditions)) => {
            let values: Option<Vec<bool>> = conditions.iter().map(Json::as_bool).collect();
            let values = values
                .ok_or_else(|| RelayError::condition("a condition is neither true nor false"))?;
            let success = values.iter().all(|value| *value);
            let message = if success { "" } else { "one or more conditions failed" };
            json!({ "resolved": true, "success": success, "message": message })
        }
        _ => json!({
            "resolved": false, "success": false, "message": "one or more conditions were unresolvable",
        }),
    };
    ok(&answer)
}

fn output(relay: &Relay, rest: &str) -> RelayOutcome {
    let (step, output) = rest.split_once('/').unwrap_or((rest, ""));
    let (step, key) = (name(step)?, name(output)?);
    let found_output = (step == relay.step).then(|| relay.outputs.get(&key)).flatten();
    let output = found(found_output, "no such output of a step that this knows")?;
    let answer = json!({
        "task_name": step, "key": key, "value": output.value, "metadata": { "sensitive": output.sensitive },
    });
    ok(&answer)
}

fn found<T>(found: Option<T>, what: &str) -> Result<T, RelayError> {
    found.ok_or_else(|| RelayError::not_found(what))
}

fn kept(was_kept: bool) -> RelayOutcome {
    match was_kept {
        true => Ok(answer::empty(StatusCode::CREATED)),
        false => Err(RelayError::malformed("the outputs of the step are larger than the limit")),
    }
}

/// Decodes a part of a path. Relay's server reads + as a space there, too.
fn name(part: &str) -> Result<String, RelayError> {
    let spaced = part.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| RelayError::malformed("the path is not UTF-8"))
}

async fn read(body: Incoming) -> Result<Json, RelayError> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|_| {
        RelayError::malformed(format!(
            "the body is longer than {MAX_BODY_BYTES} bytes, or was cut off"
        ))
    })?;
    let body = body.to_bytes();
    if body.is_empty() {
        return Ok(Json::Null);
    }
    serde_json::from_slice(&body).map_err(|_| RelayError::malformed("the body is no JSON"))
}

fn envelope(evaluated: &Evaluated) -> Json {
    let mut unresolvable = serde_json::Map::new();
    for reference in &evaluated.unresolvable {
        let kind = match reference {
            SpecReference::Answer { .. } => "answers",
            SpecReference::Connection { .. } => "connections",
            SpecReference::Data { .. } => "data",
            SpecReference::Output { .. } => "outputs",
            SpecReference::Parameter { .. } => "parameters",
            SpecReference::Secret { .. } => "secrets",
            SpecReference::Status { .. } => "statuses",
        };
        let mut entry = reference.to_json();
        if let Some(map) = entry.as_object_mut() {
            map.remove("$type");
            if let Some(query) = map.remove("query") {
                map.insert("name".to_owned(), query);
            }
        }
        let list = unresolvable.entry(kind).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(entry);
        }
    }
    json!({ "value": evaluated.value, "unresolvable": unresolvable, "complete": evaluated.complete })
}
