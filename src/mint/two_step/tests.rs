use super::super::FailureReason;
use super::super::samples::{fields, reply, sent, text, texts};
use super::*;

const ROOTS: [(&str, &str); 10] = [
    ("base_url", "https://api.example.com"),
    ("request_url", "https://auth.example.com/token"),
    ("request_method", "POST"),
    ("request_headers.X-Key", "{{ apiKey }}"),
    ("request_url_parameters.key", "{{apiKey}}"),
    ("request_body", "{\"key\": \"{{ apiKey }}\"}"),
    ("request_content_type", "application/json"),
    ("tokens.apiKey", "canary &1"),
    ("headers.Authorization", "Bearer {{ accessToken }}"),
    ("url_parameters.token", "{{ accessToken }}"),
];

fn with(more: &[(&str, &str)]) -> Fields {
    fields(&[ROOTS.as_slice(), more].concat())
}

#[test]
fn the_first_request_is_rendered_with_the_tokens() {
    let roots = with(&[]);
    let made = request(Roots(&roots)).unwrap();
    assert_eq!(text(&made.url), "https://auth.example.com/token?key=canary+%261");
    assert_eq!(text(&made.body), "{\"key\": \"canary &1\"}");
    assert_eq!(sent(&made, "x-key").unwrap(), "canary &1");
    assert_eq!(sent(&made, "content-type").unwrap(), "application/json");
    assert!(made.method == "POST" && made.is_private_denied);
    let roots =
        with(&[("request_url", "https://a.example/?x=1"), ("username", "u"), ("password", "p")]);
    let made = request(Roots(&roots)).unwrap();
    assert_eq!(text(&made.url), "https://a.example/?x=1&key=canary+%261");
    // printf u:p | base64
    assert_eq!(sent(&made, "authorization").unwrap(), "Basic dTpw");
}

#[test]
fn a_header_or_text_that_cannot_be_rendered_sends_nothing() {
    for (name, value) in [
        ("tokens.apiKey", "canary\r\nX-Other: y"),
        ("request_headers.X-Key", "{{ accessToken }}"),
        ("request_body", "{{ apiKey"),
        ("request_method", "DELETE"),
    ] {
        let failure = request(Roots(&with(&[(name, value)]))).err().unwrap();
        assert_eq!(failure.reason, FailureReason::Refused, "{name}");
        assert!(!failure.detail.contains("canary"), "{failure:?}");
    }
}

#[test]
fn the_second_request_gets_the_fetched_token_and_no_other() {
    let roots = with(&[("body", "t={{accessToken}}"), ("password", "canary")]);
    let made = second_request(Roots(&roots), "abc").unwrap();
    let expected = [
        ("body", "t=abc"),
        ("headers.Authorization", "Bearer abc"),
        ("url_parameters.token", "abc"),
    ];
    assert_eq!(texts(&made), expected.map(|(name, value)| (name.into(), value.into())));
    let leaking = with(&[("headers.X-Key", "{{ apiKey }}")]);
    let failure = second_request(Roots(&leaking), "abc").err().unwrap();
    assert!(failure.detail.contains("headers.X-Key"), "{failure:?}");
}

#[test]
fn no_request_grows_without_bound_by_its_references() {
    let long = "t".repeat(64 * 1024);
    let many = "{{apiKey}}".repeat(6553);
    for field in ["request_body", "request_headers.X-Key", "request_url_parameters.key"] {
        let roots = with(&[("tokens.apiKey", &long), (field, &many)]);
        let failure = request(Roots(&roots)).err().unwrap();
        assert_eq!(failure.reason, FailureReason::Refused);
        let told = format!("the field {field} makes the first request longer than 256 KiB");
        assert!(failure.detail.starts_with(&told), "{failure:?}");
    }
    // Each field has room for its token, but not all of them together.
    let names = ["a", "b", "c", "d", "e"].map(|name| format!("request_headers.{name}"));
    let together: Vec<_> = names.iter().map(|name| (name.as_str(), "{{apiKey}}")).collect();
    let roots = with(&[together.as_slice(), &[("tokens.apiKey", &long)]].concat());
    assert!(request(Roots(&roots)).is_err());
}

#[test]
fn a_step_gets_no_more_than_its_fields_and_a_reply() {
    let token = "t".repeat(16 * 1024);
    let roots = |times| with(&[("body", &"{{accessToken}}".repeat(times))]);
    assert!(second_request(Roots(&roots(2)), &token).is_ok());
    let failure = second_request(Roots(&roots(4096)), &token).err().unwrap();
    assert_eq!(failure.reason, FailureReason::Refused);
    let told = "the field body makes what a step gets more than 64 KiB longer";
    assert!(failure.detail.starts_with(told), "{failure:?}");
}

#[test]
fn the_token_is_found_by_its_path_and_by_nothing_else() {
    let body = r#"{"token":"abc","data":{"list":[{"Token":"def"}]},"number":1,"long":"two words"}"#;
    let answer = reply(200, &[("x-auth-token", "ghi")], body);
    for (path, expected) in [
        ("body.token", Some("abc")),
        ("body.Token", None),
        ("body.data.list.0.Token", Some("def")),
        ("body.data.list.1.Token", None),
        ("body.number", None),
        ("body.long", None),
        ("body.data", None),
        ("body", None),
        ("headers.X-Auth-Token", Some("ghi")),
        ("headers.other", None),
    ] {
        let found = TokenPath::parse(path).unwrap().find(&answer);
        assert_eq!(found.as_ref().map(|found| found.as_str()), expected, "{path}");
    }
    let whole = TokenPath::parse("body").unwrap().find(&reply(200, &[], "abc\n"));
    assert_eq!(whole.unwrap().as_str(), "abc");
    assert!(TokenPath::parse("token").is_err());
}

#[test]
fn a_token_lives_as_long_as_its_interval() {
    let of = |value| interval(Roots(&fields(&[("refresh_interval_seconds", value)]))).unwrap();
    assert_eq!([of("60"), of("0"), of("")], [Some(Duration::from_secs(60)), None, None]);
}
