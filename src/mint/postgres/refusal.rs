//! What a server's refusal means. Its words quote what it was asked, so that only its SQLSTATE travels.

use super::wire::Fault;
use crate::egress::HostAndPort;
use crate::mint::failure::{Failure, FailureReason};

/// The SQLSTATEs (PostgreSQL's documentation, appendix A) with a next step of their own.
const CODES: [(&str, &str); 9] = [
    ("25006", "the server is a standby; write the primary's host"),
    ("28000", "allow the admin role to connect: its LOGIN, and the server's pg_hba.conf"),
    ("28P01", "the admin role's password is wrong or has expired; write the valid password"),
    ("3D000", "the server has no such database; correct the field database"),
    (
        "42501",
        "the admin role needs CREATEROLE and, from PostgreSQL 16 on, each role of the field roles WITH ADMIN OPTION",
    ),
    (
        "42704",
        "a role that a field names does not exist on the server; create the role, or correct the field",
    ),
    ("42710", "a role of this name exists already; the broker asks again with another name"),
    ("0LP01", "a role of the field roles cannot be granted; correct the field"),
    ("53300", "the server has no connection left; the broker asks again later"),
];

/// The classes of SQLSTATEs after which the same request may succeed later.
const PASSING: [&str; 7] = ["08", "40", "53", "55", "57", "58", "XX"];

/// What a fault of a connection means.
pub(super) fn failure(at: &HostAndPort, fault: &Fault) -> Failure {
    match fault {
        Fault::Broken => {
            Failure::new(FailureReason::Unavailable, format!("{at}: the connection broke"))
        }
        Fault::NoProtocol => Failure::invalid(&format!(
            "{at}: it does not speak PostgreSQL's protocol; check host and port"
        )),
        Fault::Refused(code) => of_code(at, code),
    }
}

fn of_code(at: &HostAndPort, code: &str) -> Failure {
    let is_passing = PASSING.iter().any(|class| code.starts_with(class));
    let (reason, general) = match is_passing {
        true => (FailureReason::Unavailable, "the broker asks again later"),
        false => (FailureReason::Refused, "look the code up in PostgreSQL's manual, appendix A"),
    };
    let advice = CODES.iter().find(|(known, _)| *known == code).map_or(general, |(_, text)| *text);
    Failure::new(reason, format!("{at}: the server refused with SQLSTATE {code}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_code_and_the_next_step() {
        let at: HostAndPort = "db.example:5432".parse().unwrap();
        for (code, reason, word) in [
            ("28P01", FailureReason::Refused, "password is wrong"),
            ("42501", FailureReason::Refused, "CREATEROLE"),
            ("42601", FailureReason::Refused, "appendix A"),
            ("53300", FailureReason::Unavailable, "no connection left"),
            ("57P03", FailureReason::Unavailable, "again later"),
        ] {
            let failure = of_code(&at, code);
            assert_eq!(failure.reason, reason, "{code}");
            assert!(failure.detail.contains(word) && failure.detail.contains(code), "{failure:?}");
        }
    }
}
