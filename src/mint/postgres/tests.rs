use super::*;
use crate::mint::FailureReason;
use crate::mint::samples::{ask, fields, texts};

const ROOTS: [(&str, &str); 5] = [
    ("host", "db.example"),
    ("database", "orders"),
    ("admin_user", "keyhatch"),
    ("admin_password", "canary"),
    ("roles", "writers, Two words"),
];

/// The failure of a connection with these fields beside the usual ones.
fn refused(more: &[(&str, &str)]) -> Option<Failure> {
    let roots = fields(&[ROOTS.as_slice(), more].concat());
    let wanted = Wanted::of(Roots(&roots)).err();
    assert_eq!(wanted.is_some(), ending_ahead(Roots(&roots), &ask()).is_err());
    wanted
}

#[test]
fn a_field_that_makes_no_role_is_named_before_anything_is_sent() {
    assert!(refused(&[]).is_none());
    let ca = ("ca_certificate", "PEM");
    for fine in [
        &[("port", "6432"), ("mint_seconds", "60"), ("connection_limit", "1")][..],
        &[("host", "::1")],
        &[("sslmode", "verify-ca"), ca],
        &[("sslmode", "disable")],
    ] {
        assert!(refused(fine).is_none(), "{fine:?}");
    }
    let long = "x".repeat(64);
    for (field, value) in [
        ("host", "one.example,other.example"),
        ("host", "/run/postgresql"),
        ("port", "0"),
        ("port", "65536"),
        ("database", ""),
        ("admin_password", ""),
        ("roles", "a,,b"),
        ("roles", &long),
        ("mint_seconds", "59"),
        ("mint_seconds", "86401"),
        ("connection_limit", "0"),
        ("connection_limit", "1; DROP ROLE x"),
        ("sslmode", "require"),
        ("drop_objects", "maybe"),
        ("reassign_to", &long),
    ] {
        let failure = refused(&[(field, value)]).unwrap_or_else(|| panic!("{field}: {value}"));
        assert_eq!(failure.reason, FailureReason::Refused);
        assert!(failure.detail.contains(field), "{failure:?}");
        assert!(!failure.is_uncertain && !failure.detail.contains("canary"));
    }
    // Every host has a certificate of some public authority.
    let failure = refused(&[("sslmode", "verify-ca")]).unwrap();
    assert!(failure.detail.contains("ca_certificate"), "{failure:?}");
}

#[test]
fn an_ending_has_the_login_and_the_roles_name() {
    let roots = fields(&[ROOTS.as_slice(), &[("connection_limit", "2")]].concat());
    let ending = ending_ahead(Roots(&roots), &ask()).unwrap();
    let expected = [
        ("admin_password", "canary"),
        ("admin_user", "keyhatch"),
        ("database", "orders"),
        ("host", "db.example"),
        ("role", "kh_010203040000_build"),
    ];
    assert_eq!(texts(&ending), expected.map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn a_newer_login_goes_to_the_same_server_alone() {
    let roots = fields(&ROOTS);
    let ending = ending_ahead(Roots(&roots), &ask()).unwrap();
    let again = |changes: &[(&str, &str)]| {
        let newest = fields(&[ROOTS.as_slice(), changes].concat());
        ending_by_newest(Roots(&ending), Roots(&newest)).map(|fields| texts(&fields))
    };
    let login = [("admin_password", "newer"), ("admin_user", "other")];
    let mut expected = texts(&ending);
    for (name, value) in [("admin_password", "newer"), ("admin_user", "other")] {
        expected.iter_mut().find(|(field, _)| field == name).unwrap().1 = value.to_owned();
    }
    assert_eq!(again(&login), Some(expected));
    assert_eq!(again(&[("roles", "others"), ("drop_objects", "true")]), Some(texts(&ending)));
    for other in [
        ("host", "db2.example"),
        ("port", "5432"),
        ("database", "other"),
        ("sslmode", "verify-full"),
        ("ca_certificate", "PEM"),
        ("admin_password", ""),
    ] {
        assert!(again(&[other]).is_none(), "{other:?}");
    }
}
