//! Connections, steps and replies for tests.

use crate::egress::{Egress, Reply, Request, Rules};
use crate::identity::{Issuer, IssuerKeys, IssuerUrl};
use crate::model::{
    ExecutorName, FieldName, Fields, Id, RunName, SpiffeId, StepName, Timestamp, TrustDomain,
    Value, WorkflowName,
};

use super::roots::text_value;
use super::{Ask, TokenSubject, Upstreams};

/// What stock clients send; vectors.py beside it has written it.
pub fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/fixtures/mint/vectors.json")).unwrap()
}

/// The time of the vectors.
pub fn now() -> Timestamp {
    vectors()["now"].as_str().unwrap().parse().unwrap()
}

/// An issuer.
pub fn issuer() -> Issuer {
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let url = IssuerUrl::parse("https://keyhatch.example.com");
    Issuer::new(url, domain, IssuerKeys::create(now()).unwrap())
}

/// An issuer, and no way out.
pub fn upstreams() -> Upstreams {
    Upstreams { egress: Egress::new(Rules::default()), issuer: issuer().into() }
}

/// Step `build` of run `42` of workflow `deploy`, at that time.
pub fn ask() -> Ask {
    let mut mint = [0; Id::BYTES];
    mint[..4].copy_from_slice(&[1, 2, 3, 4]);
    Ask {
        mint: Id::from_bytes(mint),
        workflow: WorkflowName::parse("deploy").unwrap(),
        run: Some(RunName::parse("42").unwrap()),
        step: Some(StepName::parse("build").unwrap()),
        subject: Some(TokenSubject {
            id: SpiffeId::Step {
                workflow: WorkflowName::parse("deploy").unwrap(),
                run: RunName::parse("42").unwrap(),
                step: StepName::parse("build").unwrap(),
            },
            attempt: Some(1),
            executor: Some(ExecutorName::parse("local").unwrap()),
        }),
        now: now(),
    }
}

pub fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| (FieldName::parse(name).unwrap(), text_value(value))).collect()
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers = headers.iter().map(|(name, value)| super::roots::header(name, value)).collect();
    Reply { status, headers, body: text_value(body), date: Some(now()) }
}

pub fn text(value: &Value) -> String {
    String::from_utf8(value.expose().to_vec()).unwrap()
}

/// The value of a request's header.
pub fn sent(request: &Request, name: &str) -> Option<String> {
    request.headers.iter().find(|(header, _)| header == name).map(|(_, value)| text(value))
}

/// Fields as pairs of texts.
pub fn texts(fields: &Fields) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
