//! The upstreams that the tests of minted credentials use.

use keyhatch::egress::{Reply, Request};
use keyhatch::model::Value;

use super::{allowing, exchange, get};
use crate::harness::{Internet, Upstream};

fn post(url: &str, form: &str) -> Request {
    let content_type = Value::new(b"application/x-www-form-urlencoded".to_vec());
    Request {
        method: "POST",
        headers: vec![("content-type".to_owned(), content_type)],
        body: Value::new(form.into()),
        ..get(url)
    }
}

fn field(reply: &Reply, name: &str) -> String {
    let body: serde_json::Value = serde_json::from_slice(reply.body.expose()).unwrap();
    body[name].as_str().unwrap_or_default().to_owned()
}

#[test]
fn token_servers_answer_also_under_the_names_of_the_internet() {
    let Some(tokens) = Upstream::tokens() else { return };
    let form =
        "grant_type=client_credentials&client_id=kh-post&client_secret=p0st-secret&scope=read";
    let plain = post(&format!("{}/token", tokens.origin()), form);
    let reply = exchange(allowing(&[&tokens.origin()]), plain).unwrap();
    assert_eq!((reply.status, field(&reply, "token_type").as_str()), (200, "Bearer"));
    assert!(reply.date.is_some());
    let internet = Internet::start(&["login.microsoftonline.com"], tokens.port());
    let url =
        format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", tokens.told("tenant"));
    let ca_certificate = Some(internet.ca_pem.clone().into_bytes());
    let wrong = "grant_type=client_credentials&client_id=kh-entra&client_secret=wrong";
    let reply =
        exchange(internet.rules(), Request { ca_certificate, ..post(&url, wrong) }).unwrap();
    assert_eq!((reply.status, field(&reply, "error").as_str()), (401, "invalid_client"));
}

#[test]
fn aws_refuses_a_key_that_nobody_has() {
    let Some(aws) = Upstream::aws() else { return };
    let form = "Action=AssumeRole&Version=2011-06-15&RoleSessionName=kh";
    let form = format!("{form}&RoleArn={}", aws.told("role_arn"));
    let mut request = post(&format!("{}/", aws.origin()), &form);
    let signature = "AWS4-HMAC-SHA256 Credential=AKIANOBODY/20261130/us-east-1/sts/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature=00";
    for (name, value) in [("authorization", signature), ("x-amz-date", "20261130T000000Z")] {
        request.headers.push((name.to_owned(), Value::new(value.into())));
    }
    let reply = exchange(allowing(&[&aws.origin()]), request).unwrap();
    let said = String::from_utf8_lossy(reply.body.expose()).into_owned();
    assert!(
        reply.status == 403 && said.contains("InvalidClientTokenId"),
        "{} {said}",
        reply.status
    );
}
