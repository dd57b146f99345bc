//! Limits.
//!
//! A limit that depends on the deployment is a field of [`Limits`], set in the configuration file's `[limits]`. The
//! constants here are limits of the protocol and of the storage formats that several files share. A limit that one file
//! alone enforces is a constant of that file.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RateLimit;

/// The longest path of a Unix socket, in bytes: `sockaddr_un.sun_path` holds 108 with the final zero (unix(7)).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// The longest path of a file, in bytes (PATH_MAX of limits.h, with its final zero).
pub const MAX_PATH_BYTES: usize = 4095;
/// The most fields of one connection.
pub const MAX_FIELDS: usize = 128;
/// A page of a list ends at this many bytes, so that every client can receive it: gRPC's usual limit is 4 MiB.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// The largest response about one run, in bytes, for the same reason.
pub const MAX_RUN_BYTES: usize = 3 * 1024 * 1024;
/// The bytes that a caller has chosen count as a further line of the journal each time there are so many.
pub const LINE_BYTES: usize = 1024;
/// The bytes that an executor has chosen count as a further step to open each time there are so many.
pub const OPENED_LINE_BYTES: usize = 4096;
/// The longest value of one field, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// The most that all values of one connection take, in bytes.
pub const MAX_CONNECTION_BYTES: usize = 256 * 1024;
/// The largest request message on the step door, in bytes: names and a few numbers.
pub const MAX_STEP_REQUEST_BYTES: usize = 64 * 1024;
/// The largest request message on the admin door, in bytes: a whole connection and its access.
pub const MAX_ADMIN_REQUEST_BYTES: usize = 512 * 1024;
/// The largest message of an Apply or Plan, in bytes: a group with all of its members.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// The most requests in one BatchResolve.
pub const MAX_BATCH: usize = 32;
/// A BatchResolve opens no further credential once its reply has this many bytes. One more credential still leaves it
/// below gRPC's usual limit of 4 MiB.
pub const MAX_BATCH_REPLY_BYTES: usize = 3 * 1024 * 1024 - MAX_CONNECTION_BYTES - 64 * 1024;
/// The most documents in one Apply.
pub const MAX_APPLY_DOCUMENTS: usize = 10_000;
/// The largest Apply, all documents together, in bytes.
pub const MAX_APPLY_BYTES: usize = 64 * 1024 * 1024;
/// How often a minute an operator may have stored values compared with documents, which can be used to guess them.
pub const PLANS_PER_MINUTE: u32 = 10;
/// The most fields that one Resolve may name.
pub const MAX_REQUESTED_FIELDS: usize = 64;
/// The most principals in one access binding.
pub const MAX_PRINCIPALS: usize = 100;
/// The shortest TTL that may be asked for.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest TTL that may be asked for.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest life of a step's certificate, which is renewed before its end.
pub const MAX_STEP_CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The most Watches of one opening at a time.
pub const MAX_WATCHES: usize = 64;
/// The most endings of credentials that one step had of one connection. A step has one credential in use, and one more for
/// each renewal or change that its upstream has not heard of; a step that asks again and again stops here.
pub const MAX_STEP_ENDINGS: usize = 16;
/// The most endings of one connection: more than the steps that end while its upstream is away for an hour.
pub const MAX_CONNECTION_ENDINGS: usize = 10_000;
/// The most endings of one workflow and one connection, so that no workflow uses up the room of others.
pub const MAX_WORKFLOW_ENDINGS: usize = MAX_CONNECTION_ENDINGS / 4;
/// The most Sends of one opening at a time.
pub const MAX_SENDS: usize = 64;
/// The most Sends of one workflow at a time, so that no workflow takes the places of others.
pub const MAX_WORKFLOW_SENDS: usize = MAX_ALL_SENDS / 4;
/// The most Sends at a time.
pub const MAX_ALL_SENDS: usize = 1024;
/// A resource that runs have used so recently is deleted only by force.
pub const RECENTLY_USED: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most allowed targets that an executor names for a step.
pub const MAX_ALLOWED_TARGETS: usize = 100;
/// The longest time between two heartbeats of a step.
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(3600);
/// The life of certificates of operators, executors and the daemon.
pub const CLIENT_CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How many certificates an operator or executor has at once; the oldest goes first.
pub const MAX_CLIENT_CERTIFICATES: usize = 8;
/// If at start the wall clock is this far behind the journal, all openings and leases are closed.
pub const MAX_CLOCK_STEP_BACK: Duration = Duration::from_secs(5 * 60);
/// How long one request waits for the journal before it is refused.
pub const JOURNAL_DEADLINE: Duration = Duration::from_secs(2);
/// How often the journal is signed, if anything was written.
pub const SIGNATURE_INTERVAL: Duration = Duration::from_secs(60);
/// With less room on the disk than this, in bytes, only changes that remove something are taken. The store grows by half a
/// MiB at a time, and must never find the disk full.
pub const MIN_FREE_BYTES: u64 = 4 * 1024 * 1024;
/// How long a batch of the store or a sync of the journal may take. A batch that takes longer has failed: sled can wait
/// for ever after a write that the disk refused. While a sync takes longer, no line is added.
pub const DISK_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take for its TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// Unfinished handshakes over TCP at a time: of one address (of IPv6 a /64), and of all.
pub const MAX_TCP_HANDSHAKES_OF_NETWORK: usize = 8;
/// See [`MAX_TCP_HANDSHAKES_OF_NETWORK`].
pub const MAX_TCP_HANDSHAKES: usize = 64;
/// Connections over TCP of one operator at a time.
pub const MAX_TCP_CONNECTIONS: usize = 16;
/// How long a drain waits for open requests. They take milliseconds; a client that goes silent in a request must not delay
/// a restart.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// How long a daemon that stops waits for upstreams that may give another refresh token, and for the disk that keeps it.
pub const REFRESH_DEADLINE: Duration = Duration::from_secs(8);

/// Declares the limits, each with its default and a description: once for the code, the configuration file and the printed
/// reference.
macro_rules! limits {
    ($($(#[doc = $text:literal])+ $name:ident: $default:expr,)+) => {
        /// The limits that a deployment may change.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[doc = $text])+ pub $name: u32,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// Every limit, in the order of the file.
            pub fn all(&self) -> Vec<Limit> {
                vec![$(Limit {
                    name: stringify!($name),
                    value: self.$name,
                    bounds: concat!($($text),+),
                }),+]
            }
        }
    };
}

/// One limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its key in the configuration file.
    pub name: &'static str,
    /// Its value.
    pub value: u32,
    /// Its description, in a sentence or two.
    pub bounds: &'static str,
}

limits! {
    /// Requests a second of one opening.
    step_requests_per_second: 100,
    /// Requests of one opening at once, after a pause.
    step_request_burst: 400,
    /// Refusals a second of one opening that are lines of the journal. Further requests are refused without a line.
    step_refusals_per_second: 2,
    /// Such refusals of one opening at once, after a pause.
    step_refusal_burst: 100,
    /// Refusals a second of all openings of one executor together that are lines of the journal, with the lines that
    /// count the others. Refusals beyond that are journaled as a count once a second.
    executor_refusals_per_second: 20,
    /// Such lines of one executor's openings at once, after a pause.
    executor_refusal_burst: 1000,
    /// Decisions a second that grant something, of all openings of one executor together, beyond the own decisions of
    /// each; one workflow has at most a quarter. Each is a line of the journal. Beyond that, a step is refused before the
    /// decision, and a Watch waits.
    executor_decisions_per_second: 500,
    /// Such decisions at once, after a pause; one workflow has at most a quarter.
    executor_decision_burst: 40_000,
    /// Such decisions a minute that each opening has for itself, all at once after a pause.
    own_decisions_per_minute: 8,
    /// Steps that one executor may open a second. Closing and renewing have no rate.
    executor_opens_per_second: 100,
    /// Steps that one executor may open at once, after a pause.
    executor_open_burst: 2000,
    /// Requests a second of one operator or executor. Requests that end or renew something are not limited.
    admin_requests_per_second: 200,
    /// Such requests of one operator or executor at once, after a pause.
    admin_request_burst: 4000,
    /// KiB a second that are read of one operator or executor, and as many at once after a pause: the size of the largest
    /// Apply. A refusal counts as a 256th of that, here and at a step's socket.
    admin_read_kib_per_second: 64 * 1024,
    /// Connections of one opening at a time.
    step_connections: 16,
    /// New connections a second to one opening's socket; further ones wait.
    step_new_connections_per_second: 20,
    /// New connections to one opening's socket at once, after a pause.
    step_new_connection_burst: 100,
    /// KiB a second that are read from one opening's socket, and as many at once after a pause; further bytes wait.
    step_read_kib_per_second: 1024,
    /// Unfinished handshakes on one opening's socket.
    step_pending_handshakes: 4,
    /// Live leases of one opening.
    step_live_leases: 256,
    /// Open steps at a time.
    open_steps: 20_000,
    /// Connections to the admin socket at a time.
    admin_connections: 256,
    /// Unfinished handshakes on the admin socket.
    admin_pending_handshakes: 64,
    /// New connections a second to the admin socket of each user other than root and the daemon's; further ones are
    /// refused.
    admin_guest_connections_per_second: 50,
    /// New connections of such a user at once, after a pause.
    admin_guest_connection_burst: 200,
    /// New connections a second over TCP of each address, of IPv6 each /64; further ones are refused. When there are more
    /// than a thousand, those from which no operator has logged in lately share such a rate.
    tcp_connections_per_second: 50,
    /// New connections over TCP of such an address at once, after a pause.
    tcp_connection_burst: 200,
    /// Connections that each opening, operator and executor has for itself. Connections beyond that are shared: at most
    /// a quarter for one of them, a quarter for a workflow, a half for an executor.
    own_connections: 2,
    /// Requests in flight that each opening, operator and executor has for itself. Requests beyond that are shared in
    /// the same way.
    own_requests_in_flight: 8,
    /// Requests of one opening in flight at a time, until the client has received their replies. Watches are counted
    /// separately. A further request is refused with RESOURCE_EXHAUSTED at once.
    step_requests_in_flight: 128,
    /// Requests of all openings together in flight at a time, beyond the own requests of each.
    all_steps_requests_in_flight: 4096,
    /// Lines of the journal a second of one operator or executor that record no change: refusals, tests of connections,
    /// backups, changes without effect. Refusals beyond that are journaled as a count once a second; other requests are
    /// refused.
    admin_refusals_per_second: 2,
    /// Such lines of one operator or executor at once, after a pause.
    admin_refusal_burst: 100,
    /// Streams of journal lines to operators at a time.
    journal_readers: 32,
    /// Streams of journal lines to one operator at a time.
    journal_readers_of_one: 4,
    /// Bytes of the journal that one TailJournal searches for earlier lines. Then it reports where it has stopped.
    tail_bytes: 256 * 1024 * 1024,
    /// Requests on the admin socket in flight at a time, beyond the own requests of each operator and executor.
    admin_requests_in_flight: 512,
    /// KiB that messages and unsent replies of all openings take together: at most an eighth for one opening, a quarter
    /// for a workflow, a half for an executor. Messages below 4 KiB are not counted.
    all_steps_message_kib: 64 * 1024,
    /// KiB that messages and unsent replies of operators and executors take together: at most an eighth for each. A
    /// larger Apply waits for its turn.
    admin_message_kib: 64 * 1024,
    /// How long the message of a request may take to arrive, in seconds. The request is in flight once it has arrived.
    arrival_seconds: 5,
    /// How long one request of a step may take with its message, in seconds.
    step_request_seconds: 10,
    /// How long one request of an operator or executor may take, in seconds. Only an Apply of very many documents takes
    /// long.
    admin_request_seconds: 60,
    /// How long a client may take to send the HTTP/2 preface after its handshake, in seconds.
    preface_seconds: 5,
    /// How long a connection without an open request lasts, in seconds. A Watch is an open request.
    idle_seconds: 300,
    /// How long a client may receive nothing of what is sent to it, in seconds.
    stall_seconds: 30,
    /// The interval of HTTP/2 keepalive pings to a client, and how long to wait for the answer, in seconds.
    keepalive_seconds: 20,
    /// The TTL of a lease for which the step asks no TTL, in seconds. Shorter leases make AWS SDKs fetch at every use:
    /// botocore refreshes 15 minutes before the end.
    default_lease_seconds: 3600,
    /// The longest lease, in seconds.
    max_lease_seconds: 24 * 3600,
    /// The life of a step for which the executor gives no TTL, in seconds.
    default_step_seconds: 6 * 3600,
    /// The longest life of a step, in seconds.
    max_step_seconds: 7 * 24 * 3600,
    /// The size of a file of the journal, in bytes, after which the next file begins. No file is deleted.
    journal_file_bytes: 64 * 1024 * 1024,
}

impl Limits {
    /// How many refusals of one opening are lines of the journal.
    pub fn step_lines(&self) -> RateLimit {
        RateLimit { per_second: self.step_refusals_per_second, burst: self.step_refusal_burst }
    }

    /// How many refusals of all openings of one executor are lines of the journal.
    pub fn executor_lines(&self) -> RateLimit {
        RateLimit {
            per_second: self.executor_refusals_per_second,
            burst: self.executor_refusal_burst,
        }
    }

    /// How many decisions that grant something the openings of one executor may have together.
    pub fn executor_decisions(&self) -> RateLimit {
        RateLimit {
            per_second: self.executor_decisions_per_second,
            burst: self.executor_decision_burst,
        }
    }

    /// How many such decisions the openings of one workflow may have together.
    pub fn workflow_decisions(&self) -> RateLimit {
        let RateLimit { per_second, burst } = self.executor_decisions();
        RateLimit { per_second: (per_second / 4).max(1), burst: (burst / 4).max(1) }
    }

    /// How many steps one executor may open.
    pub fn executor_opens(&self) -> RateLimit {
        RateLimit { per_second: self.executor_opens_per_second, burst: self.executor_open_burst }
    }

    /// How many requests an operator or executor may make.
    pub fn admin_requests(&self) -> RateLimit {
        RateLimit { per_second: self.admin_requests_per_second, burst: self.admin_request_burst }
    }

    /// How many connections of other users the admin socket takes.
    pub fn admin_guest_connections(&self) -> RateLimit {
        RateLimit {
            per_second: self.admin_guest_connections_per_second,
            burst: self.admin_guest_connection_burst,
        }
    }

    /// How many connections of one network the TCP listener takes.
    pub fn tcp_connections(&self) -> RateLimit {
        RateLimit { per_second: self.tcp_connections_per_second, burst: self.tcp_connection_burst }
    }

    /// How many connections a step's socket takes.
    pub fn step_new_connections(&self) -> RateLimit {
        RateLimit {
            per_second: self.step_new_connections_per_second,
            burst: self.step_new_connection_burst,
        }
    }

    /// How many requests a step may make.
    pub fn step_requests(&self) -> RateLimit {
        RateLimit { per_second: self.step_requests_per_second, burst: self.step_request_burst }
    }

    /// How many lines that record no change an operator or executor may have.
    pub fn admin_lines(&self) -> RateLimit {
        RateLimit { per_second: self.admin_refusals_per_second, burst: self.admin_refusal_burst }
    }

    /// The names of the limits that are zero, which would forbid everything.
    pub fn zeros(&self) -> Vec<&'static str> {
        let zeros = self.all().into_iter().filter(|limit| limit.value == 0);
        zeros.map(|limit| limit.name).collect()
    }
}

/// When a decision on the step door is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalMode {
    /// The line is on disk: a power cut loses no line of a credential that was handed out.
    Synced,
    /// The line is with the operating system: a kill of the daemon loses no line, but a power cut may lose the last.
    #[default]
    Written,
}

impl fmt::Display for JournalMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Synced => "synced",
            Self::Written => "written",
        })
    }
}
