//! Every limit of the broker, in one table.
//!
//! What depends on the deployment is a field of [`Limits`], set in the configuration file's `[limits]`;
//! what the protocol and the storage formats rest on is a constant.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest path of a Unix socket, in bytes: `sockaddr_un.sun_path` holds 108 with the final zero
/// (unix(7)).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// The longest path of a file, in bytes (PATH_MAX of limits.h, with its final zero).
pub const MAX_PATH_BYTES: usize = 4095;
/// The most fields of one connection.
pub const MAX_FIELDS: usize = 128;
/// A page of a list ends at this many bytes, so that any client can take it (gRPC's usual limit is 4 MiB).
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// A run whose steps have received more than an answer of so many bytes holds is not told in one: likewise.
pub const MAX_RUN_BYTES: usize = 3 * 1024 * 1024;
/// A line of the journal counts as one more for so many bytes that its caller has chosen.
pub const LINE_BYTES: usize = 1024;
/// A step counts as one more to open for so many bytes that its executor has chosen.
pub const OPENED_LINE_BYTES: usize = 4096;
/// The longest value of one field, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// All values of one connection, in bytes.
pub const MAX_CONNECTION_BYTES: usize = 256 * 1024;
/// The largest request message on the step door: names and a few numbers.
pub const MAX_STEP_REQUEST_BYTES: usize = 64 * 1024;
/// The largest request message on the admin door: a whole connection and its access.
pub const MAX_ADMIN_REQUEST_BYTES: usize = 512 * 1024;
/// The largest message of an Apply or Plan: a group with all of its members.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// The most requests in one BatchResolve.
pub const MAX_BATCH: usize = 32;
/// A BatchResolve stops opening more when its reply is this long; one more credential still leaves it
/// below gRPC's usual limit of 4 MiB.
pub const MAX_BATCH_REPLY_BYTES: usize = 3 * 1024 * 1024 - MAX_CONNECTION_BYTES - 64 * 1024;
/// The most documents in one Apply.
pub const MAX_APPLY_DOCUMENTS: usize = 10_000;
/// The largest Apply, all documents together, in bytes.
pub const MAX_APPLY_BYTES: usize = 64 * 1024 * 1024;
/// How often a minute an operator may have stored values compared with documents: it can be used to guess.
pub const PLANS_PER_MINUTE: u32 = 10;
/// The most fields that one Resolve may name.
pub const MAX_REQUESTED_FIELDS: usize = 64;
/// The most principals in one access binding.
pub const MAX_PRINCIPALS: usize = 100;
/// The shortest TTL that may be asked for.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest TTL that may be asked for.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// A certificate of a step lasts at most this long; it is renewed before.
pub const MAX_STEP_CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The most Watches of one opening at a time.
pub const MAX_WATCHES: usize = 64;
/// What runs have used so recently is deleted only by force.
pub const RECENTLY_USED: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most targets that a step is allowed to ask for, if any are named.
pub const MAX_ALLOWED_TARGETS: usize = 100;
/// The longest time between two heartbeats of a step.
pub const MAX_HEARTBEAT: Duration = Duration::from_secs(3600);
/// How long certificates of operators, executors and the daemon last.
pub const CLIENT_CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How many certificates an operator or executor has at once, the newest first to stay.
pub const MAX_CLIENT_CERTIFICATES: usize = 8;
/// If at start the wall clock is this far behind the journal, all openings and leases are closed.
pub const MAX_CLOCK_STEP_BACK: Duration = Duration::from_secs(5 * 60);
/// How long one request waits for the journal before it is refused.
pub const JOURNAL_DEADLINE: Duration = Duration::from_secs(2);
/// How often the journal is signed, if anything was written.
pub const SIGNATURE_INTERVAL: Duration = Duration::from_secs(60);
/// With less room than this on the disk, in bytes, only changes that take something away are taken: the store
/// grows by half a MiB at a time, and must never find the disk full.
pub const MIN_FREE_BYTES: u64 = 4 * 1024 * 1024;
/// How long a batch of the store or a sync of the journal may take. A batch that takes longer has failed: sled
/// can wait for ever after a write that the disk refused. While a sync takes longer nothing is added.
pub const DISK_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take for its TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// How long open requests are given when the daemon drains: they take milliseconds, and a client that is
/// silent in the middle of one must not hold up a restart.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Declares the limits: each with its default and what it bounds, written once for the code, the configuration
/// file and the reference that is printed.
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

/// One of the limits.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its key in the configuration file.
    pub name: &'static str,
    /// What it is.
    pub value: u32,
    /// What it bounds, in a sentence or two.
    pub bounds: &'static str,
}

limits! {
    /// Requests a second of one opening.
    step_requests_per_second: 100,
    /// Requests of one opening at once, after a pause.
    step_request_burst: 400,
    /// Refusals a second of one opening: each is a line of the journal, and whoever uses them up is
    /// refused without one.
    step_refusals_per_second: 2,
    /// Refusals of one opening at once, after a pause.
    step_refusal_burst: 100,
    /// Refusals a second of all openings of one executor together that are lines of the journal, and lines that count
    /// the rest. It is the executor's, however often it opens; beyond it they are told as a count once a second.
    executor_refusals_per_second: 20,
    /// Such lines of one executor's openings at once, after a pause.
    executor_refusal_burst: 1000,
    /// Decisions that give something, a second, of all openings of one executor together, beside each opening's own;
    /// a quarter for a workflow's at most. Each is a line of the journal. It is the executor's, however often it opens;
    /// beyond it a step is refused before the decision, and a Watch waits.
    executor_decisions_per_second: 500,
    /// Such decisions at once, after a pause; a quarter for a workflow's openings.
    executor_decision_burst: 40_000,
    /// Such decisions a minute, all at once after a pause, that each opening has for itself, whatever others use up.
    own_decisions_per_minute: 8,
    /// Steps that one executor may open a second. Closing and renewing have no rate.
    executor_opens_per_second: 100,
    /// Steps that one executor may open at once, after a pause.
    executor_open_burst: 2000,
    /// Requests a second of one operator or executor. What ends or renews something has no rate.
    admin_requests_per_second: 200,
    /// Such requests of one operator or executor at once, after a pause.
    admin_request_burst: 4000,
    /// How much is read of one operator or executor, in KiB a second, and at once after a pause: as much as the
    /// largest Apply. A refusal counts as a 256th of it, here and at a step's socket.
    admin_read_kib_per_second: 64 * 1024,
    /// Connections of one opening at a time.
    step_connections: 16,
    /// New connections a second to one opening's socket; beyond it the listener waits.
    step_new_connections_per_second: 20,
    /// New connections to one opening's socket at once, after a pause.
    step_new_connection_burst: 100,
    /// How much is read from one opening's socket, in KiB a second, and at once after a pause; beyond it its
    /// clients wait.
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
    /// New connections a second to the admin socket of each user who is neither root nor the daemon's own;
    /// beyond it they are turned away.
    admin_guest_connections_per_second: 50,
    /// New connections of such a user at once, after a pause.
    admin_guest_connection_burst: 200,
    /// Connections that each opening, operator and executor has for itself, whatever others hold. What is above
    /// that is shared: a quarter for one at most, a quarter for a workflow's openings, a half for an executor's.
    own_connections: 2,
    /// Requests in flight that each opening, operator and executor has for itself, likewise.
    own_requests_in_flight: 8,
    /// Requests of one opening in flight at a time, until their replies are taken. Watches are counted
    /// apart. Beyond it a request is answered RESOURCE_EXHAUSTED at once.
    step_requests_in_flight: 128,
    /// Requests of all openings together in flight at a time, beside each opening's own.
    all_steps_requests_in_flight: 4096,
    /// Lines of the journal a second of one operator or executor that say of no change: refusals, tests of
    /// connections, backups, changes that change nothing. Refusals beyond it are told as a count once a second; the
    /// rest is refused.
    admin_refusals_per_second: 2,
    /// Such lines of one operator or executor at once, after a pause.
    admin_refusal_burst: 100,
    /// Streams of journal lines to operators at a time.
    journal_readers: 32,
    /// Streams of journal lines to one operator at a time.
    journal_readers_of_one: 4,
    /// How many bytes of the journal one TailJournal looks through for what was written before it says where it has
    /// stopped.
    tail_bytes: 256 * 1024 * 1024,
    /// Requests on the admin socket in flight at a time, beside each operator's and executor's own.
    admin_requests_in_flight: 512,
    /// What messages and unsent replies of all openings together take, in KiB: an eighth for one at most, a
    /// quarter for a workflow's, a half for an executor's. What is below 4 KiB is not counted.
    all_steps_message_kib: 64 * 1024,
    /// The same of operators and executors: an eighth for each. An Apply that is larger waits for its turn.
    admin_message_kib: 64 * 1024,
    /// How long the message of a request may take to come, in seconds. It takes no place before it is whole.
    arrival_seconds: 5,
    /// How long one request of a step may take, its message included, in seconds.
    step_request_seconds: 10,
    /// How long one request of an operator or executor may take, in seconds; only an Apply of very many
    /// documents needs more than a moment.
    admin_request_seconds: 60,
    /// How long a client may take, after its handshake, to say the HTTP/2 preface, in seconds.
    preface_seconds: 5,
    /// How long a connection lasts on which no request is open, in seconds. A Watch is an open request.
    idle_seconds: 300,
    /// How long a client may take nothing of what it is sent, in seconds.
    stall_seconds: 30,
    /// How often the server asks whether a client is still there, and how long it waits for the answer, in
    /// seconds.
    keepalive_seconds: 20,
    /// The lease a step gets that asks for no TTL, in seconds. Shorter ones make AWS SDKs fetch at every
    /// use (botocore refreshes 15 minutes before the end).
    default_lease_seconds: 3600,
    /// The longest lease, in seconds.
    max_lease_seconds: 24 * 3600,
    /// How long a step lives whose executor says nothing, in seconds.
    default_step_seconds: 6 * 3600,
    /// The longest life of a step, in seconds.
    max_step_seconds: 7 * 24 * 3600,
    /// A file of the journal of so many bytes is followed by the next. Nothing is deleted.
    journal_file_bytes: 64 * 1024 * 1024,
}

/// So many a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// A second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl Limits {
    /// How many refusals of one opening are lines of the journal.
    pub fn step_lines(&self) -> Allowance {
        Allowance { per_second: self.step_refusals_per_second, burst: self.step_refusal_burst }
    }

    /// How many refusals of all openings of one executor are lines of the journal.
    pub fn executor_lines(&self) -> Allowance {
        Allowance {
            per_second: self.executor_refusals_per_second,
            burst: self.executor_refusal_burst,
        }
    }

    /// How many decisions that give something the openings of one executor may have together.
    pub fn executor_decisions(&self) -> Allowance {
        Allowance {
            per_second: self.executor_decisions_per_second,
            burst: self.executor_decision_burst,
        }
    }

    /// How many of them the openings of one workflow may have.
    pub fn workflow_decisions(&self) -> Allowance {
        let Allowance { per_second, burst } = self.executor_decisions();
        Allowance { per_second: (per_second / 4).max(1), burst: (burst / 4).max(1) }
    }

    /// How many steps one executor may open.
    pub fn executor_opens(&self) -> Allowance {
        Allowance { per_second: self.executor_opens_per_second, burst: self.executor_open_burst }
    }

    /// How many requests an operator or executor may make.
    pub fn admin_requests(&self) -> Allowance {
        Allowance { per_second: self.admin_requests_per_second, burst: self.admin_request_burst }
    }

    /// How many lines that say of no change an operator or executor may have.
    pub fn admin_lines(&self) -> Allowance {
        Allowance { per_second: self.admin_refusals_per_second, burst: self.admin_refusal_burst }
    }

    /// The names of the limits that are zero: nothing could be done under such a limit.
    pub fn zeros(&self) -> Vec<&'static str> {
        let zeros = self.all().into_iter().filter(|limit| limit.value == 0);
        zeros.map(|limit| limit.name).collect()
    }
}

/// When a decision on the step door is as good as written: the answer waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalMode {
    /// When the disk has it: a power cut loses no line of what was handed out.
    Synced,
    /// When the operating system has it: the daemon may be killed, but a power cut may lose the last lines.
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

/// A rate with a burst (GCRA, the generic cell rate algorithm of ITU-T I.371), as a pure function of
/// the time passed in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When the next request would be exactly on time, in microseconds of the caller's clock.
    due: i64,
}

impl Rate {
    /// Whether at this time nothing is left to wait for: it is as if nothing had ever been taken.
    pub fn is_rested(&self, now_millis: i64) -> bool {
        self.due <= now_millis.saturating_mul(1000)
    }

    /// Takes one from an allowance of `per_second`, with up to `burst` at once.
    ///
    /// # Errors
    /// How long to wait, if the allowance is used up.
    pub fn take(&mut self, now_millis: i64, per_second: u32, burst: u32) -> Result<(), Duration> {
        let mut next = *self;
        next.advance(now_millis, per_second, burst)?;
        *self = next;
        Ok(())
    }

    /// Takes so many of an allowance of `per_second` whether they are there or not: what was taken too much is waited
    /// for.
    pub fn owe(&mut self, now_millis: i64, per_second: u32, count: u32) {
        let next = self.due.max(now_millis.saturating_mul(1000));
        let interval = Self::interval(per_second).saturating_mul(i64::from(count));
        self.due = next.saturating_add(interval);
    }

    /// Takes so many of an allowance of `per_second`, one at least, if there is one: what was taken too much is waited
    /// for.
    ///
    /// # Errors
    /// How long to wait, if there is none left.
    pub fn take_some(
        &mut self,
        now_millis: i64,
        Allowance { per_second, burst }: Allowance,
        count: u32,
    ) -> Result<(), Duration> {
        self.take(now_millis, per_second, burst)?;
        self.owe(now_millis, per_second, count.saturating_sub(1));
        Ok(())
    }

    /// Takes so many of an allowance of `per_minute`, one at least, all of which come at once after a pause.
    ///
    /// # Errors
    /// How long to wait, if there is none left.
    pub fn take_of_minute(
        &mut self,
        now_millis: i64,
        per_minute: u32,
        count: u32,
    ) -> Result<(), Duration> {
        let allowance = Allowance { per_second: per_minute, burst: per_minute };
        // On a clock that goes 60 times slower.
        self.take_some(now_millis / 60, allowance, count).map_err(|wait| wait * 60)
    }

    /// Whether one could be taken, without taking it.
    ///
    /// # Errors
    /// How long to wait, if not.
    pub fn check(&self, now_millis: i64, per_second: u32, burst: u32) -> Result<(), Duration> {
        let mut copy = *self;
        copy.advance(now_millis, per_second, burst)
    }

    /// In microseconds.
    fn interval(per_second: u32) -> i64 {
        1_000_000 / i64::from(per_second.max(1))
    }

    fn advance(&mut self, now_millis: i64, per_second: u32, burst: u32) -> Result<(), Duration> {
        let now = now_millis.saturating_mul(1000);
        let interval = Self::interval(per_second);
        let ahead = interval.saturating_mul(i64::from(burst.max(1)) - 1);
        let due = self.due.max(now.saturating_sub(1_000_000 * 3600));
        let early = due.saturating_sub(ahead).saturating_sub(now);
        if early > 0 {
            return Err(Duration::from_micros(early.unsigned_abs()));
        }
        self.due = due.max(now).saturating_add(interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_its_burst_at_once_and_then_its_pace() {
        let mut rate = Rate::default();
        assert_eq!((0..1000).filter(|_| rate.take(5_000, 100, 400).is_ok()).count(), 400);
        let wait = rate.take(5_000, 100, 400).unwrap_err();
        assert_eq!(wait, Duration::from_millis(10));
        assert_eq!((0..1000).filter(|_| rate.take(6_000, 100, 400).is_ok()).count(), 100);
    }

    #[test]
    fn what_is_taken_too_much_is_waited_for() {
        let mut rate = Rate::default();
        rate.owe(5_000, 100, 500);
        assert_eq!(rate.check(5_000, 100, 400), Err(Duration::from_millis(1_010)));
        assert!(rate.check(6_010, 100, 400).is_ok());
    }
}
