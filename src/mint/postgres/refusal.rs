//! What a server's refusal means. Its words quote what it was asked, so that only its SQLSTATE travels.

use super::wire::Fault;
use crate::egress::HostAndPort;
use crate::mint::failure::{Failure, FailureReason};

/// The SQLSTATEs (PostgreSQL's documentation, appendix A) with a next step of their own.
const CODES: [(&str, &str); 10] = [
    (
        "08P01",
        "a pooler such as PgBouncer may have answered, which takes no options at a login: write the server's own host and port, or \
         let the pooler ignore options; the broker asks again later",
    ),
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

/// The SQLSTATEs after which every request fails for a while: no connection is left, or the server stops or starts.
const OF_SERVER: [&str; 4] = ["53300", "57P01", "57P02", "57P03"];

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
    let detail = format!("{at}: the server refused with SQLSTATE {code}; {advice}");
    Failure { concerns_all: OF_SERVER.contains(&code), ..Failure::new(reason, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_code_and_the_next_step() {
        let at: HostAndPort = "db.example:5432".parse().unwrap();
        use FailureReason::{Refused, Unavailable};
        for (code, reason, concerns_all, word) in [
            ("08006", Unavailable, false, "again later"),
            ("08P01", Unavailable, false, "the server's own host"),
            ("28P01", Refused, false, "password is wrong"),
            ("2BP01", Refused, false, "appendix A"),
            ("40P01", Unavailable, false, "again later"),
            ("42501", Refused, false, "CREATEROLE"),
            ("42601", Refused, false, "appendix A"),
            ("53300", Unavailable, true, "no connection left"),
            ("55006", Unavailable, false, "again later"),
            ("55P03", Unavailable, false, "again later"),
            ("57014", Unavailable, false, "again later"),
            ("57P01", Unavailable, true, "again later"),
            ("57P02", Unavailable, true, "again later"),
            ("57P03", Unavailable, true, "again later"),
        ] {
            let failure = of_code(&at, code);
            assert_eq!((failure.reason, failure.concerns_all), (reason, concerns_all), "{code}");
            assert!(failure.detail.contains(word) && failure.detail.contains(code), "{failure:?}");
        }
    }
}
