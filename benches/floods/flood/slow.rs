//! Very many clients that each send as little as they can, as late as they can.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use super::frames::{PREFACE, request_headers};
use super::wire::Wire;
use super::{Next, Pace, Tally, Target};

/// The stage at which a client becomes slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// It sends its ClientHello byte by byte.
    Hello,
    /// It has made the handshake, and sends the preface of HTTP/2 byte by byte.
    Tls,
    /// It has sent the preface, and sends a frame byte by byte.
    Frame,
}

pub const EVERY_STAGE: [Stage; 3] = [Stage::Hello, Stage::Tls, Stage::Frame];

struct Slow {
    wire: Wire,
    stage: Stage,
    /// The bytes to send one by one.
    script: Vec<u8>,
    sent: usize,
    has_begun: bool,
}

impl Slow {
    fn connect(target: &Target, stage: Stage) -> io::Result<Option<Self>> {
        let Some(mut wire) = Wire::connect(target)? else { return Ok(None) };
        let script = match stage {
            Stage::Hello => wire.take_hello(),
            Stage::Tls => PREFACE.to_vec(),
            Stage::Frame => request_headers(),
        };
        Ok(Some(Self { wire, stage, script, sent: 0, has_begun: false }))
    }

    /// Continues without waiting. True if it sent a byte of its script.
    fn go_on(&mut self, is_due: bool) -> io::Result<bool> {
        if self.stage == Stage::Hello {
            return self.say_below_tls(is_due);
        }
        self.wire.exchange()?;
        if self.wire.tls.is_handshaking() {
            return Ok(false);
        }
        if !self.has_begun && self.stage == Stage::Frame {
            let header = [0, 0, u8::try_from(self.script.len()).unwrap(), 1, 5, 0, 0, 0, 1];
            self.wire.tls.writer().write_all(PREFACE)?;
            self.wire.tls.writer().write_all(&header)?;
        }
        let says = is_due || !self.has_begun;
        self.has_begun = true;
        if says && let Some(byte) = self.script.get(self.sent) {
            self.wire.tls.writer().write_all(&[*byte])?;
            self.sent += 1;
            self.wire.exchange()?;
            return Ok(true);
        }
        Ok(false)
    }

    fn say_below_tls(&mut self, is_due: bool) -> io::Result<bool> {
        match self.wire.socket.read(&mut [0; 64]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let says = is_due || !self.has_begun;
        self.has_begun = true;
        if says && let Some(byte) = self.script.get(self.sent) {
            self.wire.socket.write_all(&[*byte])?;
            self.sent += 1;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Holds `count` clients, spread over the targets. A refused or ended client connects again.
pub fn run(targets: &[Target], count: usize, stages: &[Stage], pace: Pace<'_>) -> Tally {
    let mut tally = Tally::default();
    let mut clients: Vec<Option<Slow>> = (0..count).map(|_| None).collect();
    loop {
        let next = pace(&tally);
        if next == Next::End {
            return tally;
        }
        tally.held = 0;
        for (number, place) in clients.iter_mut().enumerate() {
            // Thousands of handshakes take long, so the flood may end before all are made.
            if number % 64 == 0 && pace(&tally) == Next::End {
                return tally;
            }
            let target = &targets[number % targets.len()];
            let stage = stages[number / targets.len() % stages.len()];
            look_after(place, target, stage, next == Next::Beat, &mut tally);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn look_after(
    place: &mut Option<Slow>,
    target: &Target,
    stage: Stage,
    is_due: bool,
    tally: &mut Tally,
) {
    if place.is_none() {
        match Slow::connect(target, stage) {
            Ok(Some(client)) => {
                tally.connected += 1;
                *place = Some(client);
            }
            _ => tally.turned_away += 1,
        }
    }
    let Some(client) = place else { return };
    match client.go_on(is_due) {
        Ok(has_sent) => {
            tally.sent += usize::from(has_sent);
            tally.held += 1;
        }
        Err(_) => {
            tally.ended += 1;
            *place = None;
        }
    }
}
