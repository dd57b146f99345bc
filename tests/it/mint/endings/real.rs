//! Tokens of a server that others wrote, which are no longer valid when their step has closed.

use crate::harness::{Upstream, allowing};
use crate::mint::token_servers::{broker, create, is_active};

#[test]
fn a_token_is_inactive_when_its_step_has_closed() {
    let Some(tokens) = Upstream::tokens() else { return };
    let broker = broker(allowing(&[&tokens.origin()]));
    let urls = ["/token", "/token/revocation"].map(|path| format!("{}{path}", tokens.origin()));
    let fields = [
        ("token_url", urls[0].as_str()),
        ("revocation_url", urls[1].as_str()),
        ("scopes", "read"),
        ("client_id", "kh-basic"),
        ("client_secret", "s3cret +/=&%"),
    ];
    create(&broker, "oauth2/api", "client_credentials", &fields);
    let (one, other) = (broker.open("w", "one"), broker.open("w", "other"));
    let token = |step| broker.resolve(step, "oauth2/api").unwrap().fields["access_token"].clone();
    let (ended, lives) = (token(&one), token(&other));
    assert!(is_active(&tokens, &ended) && is_active(&tokens, &lives));
    assert_eq!(broker.close(&one).pending_endings, []);
    assert!(!is_active(&tokens, &ended));
    assert!(is_active(&tokens, &lives), "the neighbour's token is not touched");
    broker.close(&other);
    assert!(!is_active(&tokens, &lives));
}
