//! Tables of all that can be wrong in a certificate.

use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose as Extended, IsCa, KeyPair,
    KeyUsagePurpose as Usage, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};

use super::forge::{Leaf, Name, Signer};
use super::world::Door;
use crate::harness::START;

/// A change of a leaf that is correct but not registered, by name.
type Change = (&'static str, fn(&mut Leaf));

pub const CHANGES: [Change; 52] = [
    // Correct, but never issued.
    ("the right name, never registered", |_| {}),
    ("another issuer's key under the issuer's name", |leaf| {
        leaf.signer = Signer::Stranger;
    }),
    ("the other door's issuer", |leaf| leaf.signer = Signer::OtherDoors),
    ("the root itself as issuer", |leaf| leaf.signer = Signer::Root),
    ("its own issuer", |leaf| leaf.signer = Signer::Itself),
    // Dates.
    ("ended a second ago", |leaf| leaf.not_after = *START - 1000),
    ("ended half an hour ago", |leaf| leaf.not_after = *START - 1_800_000),
    ("begins in ten minutes", |leaf| leaf.not_before = *START + 600_000),
    ("begins in 2049", |leaf| {
        (leaf.not_before, leaf.not_after) = (2_493_072_000_000, 2_493_158_400_000);
    }),
    ("ended in 1970", |leaf| (leaf.not_before, leaf.not_after) = (0, 1000)),
    ("ends before it begins", |leaf| {
        std::mem::swap(&mut leaf.not_before, &mut leaf.not_after);
    }),
    // Key usages.
    ("a CA", |leaf| leaf.ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    ("a CA of leaves", |leaf| leaf.ca = IsCa::Ca(BasicConstraints::Constrained(0))),
    ("a CA that may sign certificates", |leaf| {
        leaf.ca = IsCa::Ca(BasicConstraints::Unconstrained);
        leaf.usages.push(Usage::KeyCertSign);
    }),
    ("may sign certificates", |leaf| leaf.usages.push(Usage::KeyCertSign)),
    ("may sign revocation lists", |leaf| leaf.usages.push(Usage::CrlSign)),
    ("may sign certificates only", |leaf| leaf.usages = vec![Usage::KeyCertSign]),
    ("no key usage", |leaf| leaf.usages.clear()),
    ("for enciphering keys", |leaf| leaf.usages = vec![Usage::KeyEncipherment]),
    ("for agreeing on keys", |leaf| leaf.usages = vec![Usage::KeyAgreement]),
    ("for content commitment", |leaf| leaf.usages = vec![Usage::ContentCommitment]),
    ("for enciphering data", |leaf| leaf.usages = vec![Usage::DataEncipherment]),
    ("for servers", |leaf| leaf.extended = vec![Extended::ServerAuth]),
    ("no extended key usage", |leaf| leaf.extended.clear()),
    ("any extended key usage", |leaf| leaf.extended = vec![Extended::Any]),
    ("for signing code", |leaf| leaf.extended = vec![Extended::CodeSigning]),
    ("for mail", |leaf| leaf.extended = vec![Extended::EmailProtection]),
    ("for time stamps", |leaf| leaf.extended = vec![Extended::TimeStamping]),
    ("for OCSP", |leaf| leaf.extended = vec![Extended::OcspSigning]),
    ("for servers and mail", |leaf| {
        leaf.extended = vec![Extended::ServerAuth, Extended::EmailProtection];
    }),
    ("for clients and servers", |leaf| leaf.extended.push(Extended::ServerAuth)),
    // Names.
    ("no subjectAltName", |leaf| leaf.names.clear()),
    ("an empty subjectAltName", |leaf| leaf.names = vec![vec![]]),
    ("a DNS name only", |leaf| leaf.names = vec![vec![Name::Dns("localhost")]]),
    ("a mail address only", |leaf| leaf.names = vec![vec![Name::Email("a@b.example")]]),
    ("an IP address only", |leaf| leaf.names = vec![vec![Name::Ip([127, 0, 0, 1])]]),
    ("its URI as a DNS name", |leaf| {
        leaf.names = vec![vec![Name::Dns("spiffe://keyhatch.local/operator/admin")]];
    }),
    ("its URI twice", |leaf| {
        let name = leaf.names[0][0].clone();
        leaf.names[0].push(name);
    }),
    ("its URI in two extensions", |leaf| {
        let names = leaf.names[0].clone();
        leaf.names.push(names);
    }),
    ("another URI behind it", |leaf| {
        leaf.names[0].push(Name::Uri(b"https://keyhatch.local/".to_vec()));
    }),
    ("another URI before it", |leaf| {
        leaf.names[0].insert(0, Name::Uri(b"spiffe://keyhatch.local/operator/root".to_vec()));
    }),
    ("three URIs", |leaf| {
        let name = leaf.names[0][0].clone();
        leaf.names[0].extend([name.clone(), name]);
    }),
    ("an empty URI beside it", |leaf| leaf.names[0].push(Name::Uri(Vec::new()))),
    ("a DNS name beside it", |leaf| leaf.names[0].push(Name::Dns("localhost"))),
    ("a mail address beside it", |leaf| leaf.names[0].push(Name::Email("a@b.example"))),
    // Extensions.
    ("a critical extension that nobody knows", |leaf| {
        let mut unknown =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        unknown.set_criticality(true);
        leaf.extensions.push(unknown);
    }),
    ("an extension of 40 KiB", |leaf| {
        let content = vec![0; 40 * 1024];
        let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 2], content);
        leaf.extensions.push(unknown);
    }),
    ("a key usage that is no DER", |leaf| {
        leaf.usages.clear();
        leaf.extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![0xff; 8]));
    }),
    ("a subjectAltName that is no DER", |leaf| {
        leaf.names.clear();
        leaf.extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0xff; 8]));
    }),
    // Kinds of keys that the issuer does not sign.
    ("an Ed25519 key", |leaf| leaf.key = KeyPair::generate_for(&PKCS_ED25519).unwrap()),
    ("a P-384 key", |leaf| {
        leaf.key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    }),
    ("an RSA key", |leaf| leaf.key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()),
];

/// Wrong SPIFFE IDs, or other spellings of the right one. GOOD is the right ID, PATH its part after the trust domain,
/// FIRST the first segment of the path, REST the others.
const MALFORMED: [&str; 107] = [
    // Scheme and trust domain.
    "SPIFFE://keyhatch.local/PATH",
    "Spiffe://keyhatch.local/PATH",
    "spiffe:/keyhatch.local/PATH",
    "spiffe:keyhatch.local/PATH",
    "spiffe:///keyhatch.local/PATH",
    "spiffe:\\\\keyhatch.local\\PATH",
    "https://keyhatch.local/PATH",
    "urn:spiffe:keyhatch.local/PATH",
    "spiffe%3A//keyhatch.local/PATH",
    "//keyhatch.local/PATH",
    "keyhatch.local/PATH",
    "/PATH",
    "PATH",
    "",
    " ",
    "spiffe://KEYHATCH.LOCAL/PATH",
    "spiffe://Keyhatch.local/PATH",
    "spiffe://elsewhere.example/PATH",
    "spiffe://keyhatch.local.elsewhere.example/PATH",
    "spiffe://akeyhatch.local/PATH",
    "spiffe://keyhatch.loca/PATH",
    "spiffe://keyhatch%2Elocal/PATH",
    "spiffe://keyhatch.local./PATH",
    "spiffe://keyhatch.local:443/PATH",
    "spiffe://keyhatch.local:/PATH",
    "spiffe://user@keyhatch.local/PATH",
    "spiffe://user:word@keyhatch.local/PATH",
    "spiffe://[::1]/PATH",
    "spiffe:///PATH",
    "spiffe://keyhatch.local@elsewhere.example/PATH",
    "spiffe://keyhatch.local\\PATH",
    // Query and fragment.
    "GOOD?",
    "GOOD?a=b",
    "GOOD#",
    "GOOD#a",
    "GOOD;a=b",
    "GOOD&a",
    // Segments.
    "GOOD/",
    "GOOD//",
    "GOOD/.",
    "GOOD/..",
    "GOOD/../x",
    "spiffe://keyhatch.local",
    "spiffe://keyhatch.local/",
    "spiffe://keyhatch.local//PATH",
    "spiffe://keyhatch.local/./PATH",
    "spiffe://keyhatch.local/../PATH",
    "spiffe://keyhatch.local/x/../PATH",
    "spiffe://keyhatch.local/FIRST",
    "spiffe://keyhatch.local/FIRST/",
    "spiffe://keyhatch.local/FIRST//REST",
    "spiffe://keyhatch.local/FIRST/./REST",
    "spiffe://keyhatch.local/FIRST/../FIRST/REST",
    "GOOD/extra",
    "spiffe://keyhatch.local/extra/PATH",
    "spiffe://keyhatch.local/REST/FIRST",
    // Paths of no known form.
    "spiffe://keyhatch.local/ns/default/sa/admin",
    "spiffe://keyhatch.local/agent/admin",
    "spiffe://keyhatch.local/operators/admin",
    "spiffe://keyhatch.local/Operator/admin",
    "spiffe://keyhatch.local/OPERATOR/admin",
    "spiffe://keyhatch.local/operator/",
    "spiffe://keyhatch.local/executor/",
    "spiffe://keyhatch.local/workflow/a/run/b",
    "spiffe://keyhatch.local/workflow/a/run/b/step/",
    "spiffe://keyhatch.local/workflow//run/b/step/c",
    "spiffe://keyhatch.local/step/a/run/b/workflow/c",
    "spiffe://keyhatch.local/run/b/workflow/a/step/c",
    "spiffe://keyhatch.local/workflow/a/run/b/step/c/step/d",
    // Escapes that are needless, lower-case, not hexadecimal, cut off, or no name.
    "GOOD_",
    "GOOD_5",
    "GOOD_5f",
    "GOOD_5F",
    "GOOD__",
    "GOOD_GG",
    "GOOD_+1",
    "GOOD_ 1",
    "GOOD_61",
    "GOOD_2D",
    "GOOD_2E",
    "GOOD_2F",
    "GOOD_2f",
    "GOOD_00",
    "GOOD_0A",
    "GOOD_7F",
    "GOOD_80",
    "GOOD_FF",
    "GOOD_C3_28",
    "GOOD_C3_A9",
    "GOOD_20",
    "GOOD%20",
    "GOOD%2F",
    "GOOD%00",
    "GOOD+",
    "GOOD~",
    "GOOD*",
    "GOOD ",
    " GOOD",
    "GOOD\n",
    "GOOD\0",
    "GOOD\0.elsewhere.example",
    "GOOD\u{e9}",
    "GOOD\u{200d}",
    "GOOD\u{202e}nimda",
    "spiffe://keyhatch.local/FIRS\u{ff34}/REST",
    "\u{feff}GOOD",
    "spiffe://k\u{435}yhatch.local/PATH",
];

/// All malformed SPIFFE IDs.
pub fn malformed_ids(door: Door) -> Vec<Vec<u8>> {
    let path = door.path();
    let good = format!("spiffe://keyhatch.local/{path}");
    let (first, rest) = path.split_once('/').unwrap();
    let filled = MALFORMED.iter().map(|text| {
        let text = text.replace("GOOD", &good).replace("PATH", path);
        text.replace("FIRST", first).replace("REST", rest).into_bytes()
    });
    let no_text = [&[0xe9][..], &[0xff, 0xfe]].map(|end| [good.as_bytes(), end].concat());
    // The first has the largest length of an ID, which is longer than any name.
    let long = [2048, 2049, 2 * 1024 + 100, 16 * 1024, 60 * 1024]
        .map(|length| format!("{good}{}", "a".repeat(length - good.len())).into_bytes());
    filled.chain(no_text).chain(long).collect()
}

/// Well-formed IDs that this door does not admit.
pub fn others_ids(door: Door) -> Vec<String> {
    let paths: &[&str] = match door {
        Door::Step => &[
            "workflow/deploy/run/1/step/test",
            "workflow/deploy/run/2/step/build",
            "workflow/other/run/1/step/build",
            "workflow/Deploy/run/1/step/build",
            "workflow/deploy/run/1/step/Build",
            "workflow/deploy/run/01/step/build",
            "workflow/deploy/run/1/step/build_5F1",
            "operator/admin",
            "executor/local",
            "broker/test",
        ],
        Door::Admin => &[
            "operator/mallory",
            "operator/Admin",
            "operator/ADMIN",
            "operator/admin_5F1",
            "executor/mallory",
            "executor/local",
            "executor/admin",
            "broker/test",
            "broker/keyhatch",
            "workflow/deploy/run/1/step/build",
        ],
    };
    paths.iter().map(|path| format!("spiffe://keyhatch.local/{path}")).collect()
}
