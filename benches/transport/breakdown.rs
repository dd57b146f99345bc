//! The instructions of a warm Resolve by part.

use tonic::transport::Channel;

use crate::bare::Bare;
use crate::common::results::Figure;
use crate::common::{Daemon, in_flight};
use crate::instructions::Counter;
use crate::rows::{self, Sides};

const CALLS: usize = 2_000;

/// Counts at both servers. Valgrind's processor has no SHA-256 instructions, so the journal weighs more here than it does
/// on hardware.
pub async fn breakdown() -> Vec<Figure> {
    let (Some(at_daemon), Some(at_bare)) = (Counter::new(), Counter::new()) else {
        println!("no valgrind: no instructions are counted");
        return Vec::new();
    };
    let daemon = Daemon::start_under(&at_daemon.instrument());
    let sides = Sides::of(daemon, Bare::start_under(&at_bare.instrument())).await;
    let ask = |channels: &[Channel]| {
        let channels = channels.to_vec();
        in_flight(CALLS, 64, move |n| rows::resolve_one(channels[n % channels.len()].clone()))
    };
    ask(&sides.ours).await;
    ask(&sides.bar).await;
    let ours = at_daemon.count(&sides.daemon.process, ask(&sides.ours)).await;
    let bar = at_bare.count(&sides.bare.process, ask(&sides.bar)).await;
    let line = ours.of(&["keyhatch::journal::write::line::write"]);
    let parts = [
        ("all of it", ours.all),
        ("the bar", bar.all),
        (
            "access: find, decide, propose a lease",
            ours.of(&["Broker>::authorize_now", "Broker>::resolution"]),
        ),
        ("journal: the line", line),
        ("journal: lock, write(2), lease", ours.of(&["Journal>::commit_all"]) - line),
        ("open the record: decipher, wipe the stack", ours.of(&["cipher::on_wiped_stack"])),
        (
            "reply: convert, pad, encode",
            ours.of(&["convert::resolved", "padding::padding", "MessageEncoder"]),
        ),
    ];
    let each = |count: f64| count / CALLS as f64 / 1000.0;
    let figure = |(what, count): (&str, f64)| {
        Figure::new(
            &format!("instructions of a warm Resolve: {what}"),
            each(count),
            " thousand",
            None,
        )
    };
    parts.map(figure).into()
}
