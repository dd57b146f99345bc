//! Tokens of servers that others wrote: oidc-provider, with jose for Google's assertions.

use keyhatch::egress::{Egress, Rules};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::integration::Source;

use super::end_alone;
use crate::harness::{Got, Internet, TestBroker, Upstream, allowing, bytes, resolver};

/// A broker with these rules of egress.
pub fn broker(rules: Rules) -> TestBroker {
    let mut broker = TestBroker::start();
    broker.config.egress = rules;
    broker.restart();
    broker
}

/// Creates a minted connection.
pub fn create(broker: &TestBroker, reference: &str, kind: &str, fields: &[(&str, &str)]) {
    let connection = pb::Connection {
        name: format!("connections/{reference}"),
        kind: kind.to_owned(),
        fields: bytes(fields),
        access: resolver(&["workflow:w"]),
        release: pb::Release::Minted.into(),
        ..Default::default()
    };
    let request =
        pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.create_connection(request)).unwrap();
}

fn resolve(broker: &TestBroker, reference: &str) -> Got {
    let step = broker.open("w", "s");
    broker.resolve(&step, reference).unwrap_or_else(|error| panic!("{reference}: {error}"))
}

/// True if the token server says that the token is valid.
pub fn is_active(tokens: &Upstream, token: &str) -> bool {
    let form = format!("token={token}&client_id=kh-post&client_secret=p0st-secret");
    let body = tokens.ask_with("POST", "/token/introspection", &form);
    body["active"] == true
}

#[test]
fn an_oauth_server_gives_a_token_to_either_form_of_client() {
    let Some(tokens) = Upstream::tokens() else { return };
    let broker = broker(allowing(&[&tokens.origin()]));
    let url = format!("{}/token", tokens.origin());
    for (name, secret, form) in [
        ("oauth2/kh-basic", "s3cret +/=&%", None),
        ("oauth2/kh-post", "p0st-secret", Some(("client_auth", "post"))),
    ] {
        let id = name.trim_start_matches("oauth2/");
        let mut fields = vec![("token_url", url.as_str()), ("scopes", "read")];
        fields.extend([("client_id", id), ("client_secret", secret)].into_iter().chain(form));
        create(&broker, name, "client_credentials", &fields);
        let got = resolve(&broker, name);
        assert_eq!(got.fields["token_type"], "Bearer");
        assert!(is_active(&tokens, &got.fields["access_token"]), "{name}");
        // The server's tokens live for ten minutes.
        assert_eq!(got.lease.ttl_limited_by(), pb::TtlLimit::Upstream, "{name}");
    }
    assert!(!is_active(&tokens, "made-up"));
}

/// The client kh-basic, whose tokens can be revoked.
fn revocable(tokens: &Upstream) -> [(&'static str, String); 5] {
    let origin = tokens.origin();
    [
        ("token_url", format!("{origin}/token")),
        ("revocation_url", format!("{origin}/token/revocation")),
        ("client_id", "kh-basic".to_owned()),
        ("client_secret", "s3cret +/=&%".to_owned()),
        ("scopes", "read".to_owned()),
    ]
}

#[test]
fn a_revoked_token_is_inactive_and_may_be_revoked_again() {
    let Some(tokens) = Upstream::tokens() else { return };
    let rules = || allowing(&[&tokens.origin()]);
    let (broker, fields) = (broker(rules()), revocable(&tokens));
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    create(&broker, "oauth2/own", "client_credentials", &fields);
    let token = resolve(&broker, "oauth2/own").fields["access_token"].clone();
    assert!(is_active(&tokens, &token));
    let ending = [&fields[1..4], &[("token", token.as_str())]].concat();
    for _ in 0..2 {
        end_alone(&Egress::new(rules()), Source::Oauth2Client, &ending);
        assert!(!is_active(&tokens, &token));
    }
}

#[test]
fn a_token_that_can_be_revoked_ends_with_its_one_step() {
    let Some(tokens) = Upstream::tokens() else { return };
    let broker = broker(allowing(&[&tokens.origin()]));
    let fields = revocable(&tokens);
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let shared: Vec<_> = fields.into_iter().filter(|(name, _)| *name != "revocation_url").collect();
    create(&broker, "oauth2/own", "client_credentials", &fields);
    create(&broker, "oauth2/shared", "client_credentials", &shared);
    let [one, other] = ["one", "other"].map(|name| broker.open("w", name));
    let token = |step, name| broker.resolve(step, name).unwrap().fields["access_token"].clone();
    assert_ne!(token(&one, "oauth2/own"), token(&other, "oauth2/own"));
    assert_eq!(token(&one, "oauth2/own"), token(&one, "oauth2/own"));
    assert_eq!(token(&one, "oauth2/shared"), token(&other, "oauth2/shared"));
    let [first, second] = [&one, &other].map(|step| token(step, "oauth2/own"));
    let third = token(&one, "oauth2/shared");
    assert!(broker.close(&one).pending_endings.is_empty());
    assert_eq!([first, second, third].map(|token| is_active(&tokens, &token)), [false, true, true]);
}

#[test]
fn microsoft_and_google_are_asked_under_their_own_names() {
    let Some(tokens) = Upstream::tokens() else { return };
    let hosts = ["login.microsoftonline.com", "oauth2.googleapis.com"];
    let internet = Internet::start(&hosts, tokens.port());
    let broker = broker(internet.rules());
    let ca = ("ca_certificate", internet.ca_pem.as_str());
    let teams = [
        ("tenant_id", tokens.told("tenant")),
        ("client_id", "kh-entra"),
        ("client_secret", "entra~secret"),
        ca,
    ];
    create(&broker, "microsoft-teams/chat", "client_secret", &teams);
    let google = [
        ("service_account_email", tokens.told("google.client_email")),
        ("private_key", tokens.told("google.private_key")),
        ca,
    ];
    create(&broker, "gcp/deploy", "service_account", &google);
    for (name, host) in [("microsoft-teams/chat", hosts[0]), ("gcp/deploy", hosts[1])] {
        let got = resolve(&broker, name);
        assert!(is_active(&tokens, &got.fields["access_token"]), "{name}");
        assert_eq!(internet.asked(), [format!("{host}:443")]);
        assert!(
            !got.fields.keys().any(|field| field.contains("secret") || field.contains("private"))
        );
    }
}
