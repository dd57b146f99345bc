//! Callers with good certificates that use all a door offers, over many connections at once, again and again.
//!
//! Each connection has one task, which keeps as many requests open as it may and replaces each answered one.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::time::Duration;

use keyhatch::grpc::pb;
use prost::Message;

use super::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, headers_of,
};
use super::wire::{Wire, wait_for_any};
use super::{Kind, Next, PATIENCE, Pace, Tally, Target};

/// Connections of each target.
const CONNECTIONS: usize = 4;
/// The most open requests of a connection.
const STREAMS: usize = 32;
/// Targets of one batch: 2.8 MiB from a connection of 256 KiB.
const BATCH: usize = 11;
/// The connection that a batch asks for.
pub const LARGE: (&str, &str) = ("generic", "large");
/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2).
const INITIAL_WINDOW: [u8; 2] = [0, 4];
/// The largest window.
const WIDE: u32 = (1 << 31) - 1;
/// The initial window of a connection.
const NARROW: u32 = 65_535;

/// The task of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    /// Sends heads of requests, and no messages.
    Heads,
    /// Sends calls that are refused.
    Deletes,
    /// Reads the journal, all of it.
    Tail,
    /// Requests batches and reads no replies.
    Batches,
    /// Lists pages of connections.
    Lists,
}

impl Task {
    fn of(kind: Kind, is_step: bool, connection: usize) -> Self {
        match (kind, is_step) {
            (Kind::Refusals, _) => Self::Deletes,
            (Kind::Lists, _) => Self::Lists,
            (Kind::Unread, true) => Self::Batches,
            (Kind::Viewer, false) => match connection % CONNECTIONS {
                0 => Self::Tail,
                1 => Self::Heads,
                _ => Self::Deletes,
            },
            _ => Self::Heads,
        }
    }

    fn path(self, is_step: bool) -> &'static str {
        match self {
            Self::Heads if is_step => "/keyhatch.v1.StepService/WhoAmI",
            Self::Heads => "/keyhatch.v1.SystemService/GetStatus",
            Self::Deletes => "/keyhatch.v1.ConnectionService/DeleteConnection",
            Self::Tail => "/keyhatch.v1.SystemService/TailJournal",
            Self::Batches => "/keyhatch.v1.StepService/BatchResolve",
            Self::Lists => "/keyhatch.v1.ConnectionService/ListConnections",
        }
    }

    /// The message of its request in a gRPC frame. `None` if it sends no message.
    fn message(self) -> Option<Vec<u8>> {
        let message = match self {
            Self::Heads => return None,
            Self::Deletes => {
                let name = format!("connections/aws/{}", "x".repeat(128));
                pb::DeleteConnectionRequest { name, ..Default::default() }.encode_to_vec()
            }
            Self::Tail => {
                pb::TailJournalRequest { last: 1000, ..Default::default() }.encode_to_vec()
            }
            Self::Lists => {
                // The filter makes the daemon look up the last use of each connection.
                let unused_since = Some(prost_types::Timestamp { seconds: 1 << 32, nanos: 0 });
                let page_size = 1000;
                pb::ListConnectionsRequest { page_size, unused_since, ..Default::default() }
                    .encode_to_vec()
            }
            Self::Batches => {
                let (integration, name) = (LARGE.0.to_owned(), LARGE.1.to_owned());
                let target = pb::ConnectionTarget { integration, name };
                let target = Some(pb::resolve_request::Target::Connection(target));
                let request = pb::ResolveRequest { target, ..Default::default() };
                pb::BatchResolveRequest { requests: vec![request; BATCH] }.encode_to_vec()
            }
        };
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        Some([&[0][..], &length, &message].concat())
    }

    fn streams(self) -> usize {
        if self == Self::Tail { 1 } else { STREAMS }
    }

    /// The first bytes of a connection: wide windows, or closed windows if it reads no replies.
    fn preface(self) -> Vec<u8> {
        let window = if self == Self::Batches { 0 } else { WIDE };
        let setting = [&INITIAL_WINDOW[..], &window.to_be_bytes()].concat();
        let more = (WIDE - NARROW).to_be_bytes();
        [PREFACE, &frame(SETTINGS, 0, 0, &setting), &frame(WINDOW_UPDATE, 0, 0, &more)].concat()
    }
}

/// One connection.
struct Caller {
    wire: Wire,
    task: Task,
    headers: Vec<u8>,
    message: Option<Vec<u8>>,
    has_begun: bool,
    /// Received bytes that are not a whole frame yet.
    heard: Vec<u8>,
    open: HashSet<u32>,
    next: u32,
}

impl Caller {
    fn connect(target: &Target, task: Task) -> io::Result<Option<Self>> {
        let Some(wire) = Wire::connect(target)? else { return Ok(None) };
        Ok(Some(Self {
            wire,
            task,
            headers: headers_of(task.path(target.is_step)),
            message: task.message(),
            has_begun: false,
            heard: Vec::new(),
            open: HashSet::new(),
            next: 1,
        }))
    }

    /// Continues without waiting. Returns the number of requests that it has sent.
    fn go_on(&mut self) -> io::Result<usize> {
        let Self { wire, heard, .. } = self;
        wire.hear(&mut |said| heard.extend(said))?;
        if self.wire.tls.is_handshaking() {
            return Ok(0);
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.wire.tls.writer().write_all(&self.task.preface())?;
        }
        self.take_frames()?;
        let before = self.next;
        // Requests do not pile up here if the server stops reading.
        while self.open.len() < self.task.streams() && !self.wire.is_full() {
            self.send_request()?;
        }
        self.wire.exchange()?;
        Ok((self.next - before) as usize / 2)
    }

    fn send_request(&mut self) -> io::Result<()> {
        let mut frames = frame(HEADERS, END_HEADERS, self.next, &self.headers);
        if let Some(message) = &self.message {
            frames.extend(frame(DATA, END_STREAM, self.next, message));
        }
        self.open.insert(self.next);
        self.next += 2;
        self.wire.tls.writer().write_all(&frames)
    }

    fn take_frames(&mut self) -> io::Result<()> {
        let mut taken = 0;
        while let Some((head, rest)) = self.heard[taken..].split_first_chunk::<9>() {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(payload) = rest.get(..length) else { break };
            match kind {
                RST_STREAM => drop(self.open.remove(&u32::from_be_bytes(stream))),
                HEADERS | DATA if flags & END_STREAM != 0 => {
                    self.open.remove(&u32::from_be_bytes(stream));
                }
                PING if flags & ACK == 0 => {
                    self.wire.tls.writer().write_all(&frame(PING, ACK, 0, payload))?;
                }
                SETTINGS if flags & ACK == 0 => {
                    self.wire.tls.writer().write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                }
                _ => {}
            }
            taken += head.len() + length;
        }
        self.heard.drain(..taken);
        Ok(())
    }
}

/// Holds some connections to each target. A refused or ended caller connects again.
pub fn run(kind: Kind, targets: &[Target], pace: Pace<'_>) -> Tally {
    let mut tally = Tally::default();
    let mut callers: Vec<_> = (0..targets.len() * CONNECTIONS).map(|_| None).collect();
    loop {
        for (number, place) in callers.iter_mut().enumerate() {
            if pace(&tally) == Next::End {
                return tally;
            }
            let target = &targets[number / CONNECTIONS];
            look_after(place, target, Task::of(kind, target.is_step, number), &mut tally);
        }
        tally.held = callers.iter().flatten().count();
        let at_most = match tally.held == callers.len() {
            true => PATIENCE,
            false => Duration::from_millis(1),
        };
        let wires = callers.iter().flatten().map(|caller: &Caller| &caller.wire);
        // If the poll fails, the next round finds out why.
        let _ = wait_for_any(wires, at_most);
    }
}

fn look_after(place: &mut Option<Caller>, target: &Target, task: Task, tally: &mut Tally) {
    if place.is_none() {
        match Caller::connect(target, task) {
            Ok(Some(caller)) => {
                tally.connected += 1;
                *place = Some(caller);
            }
            _ => tally.turned_away += 1,
        }
    }
    let Some(caller) = place else { return };
    match caller.go_on() {
        Ok(sent) => tally.sent += sent,
        Err(_) => {
            tally.ended += 1;
            *place = None;
        }
    }
}
