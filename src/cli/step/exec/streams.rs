//! Which of a command's streams are masked.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;

use rustix::fs::{FileType, fstat};

/// `--mask`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MaskMode {
    /// Logs: pipes, sockets, stderr's file and, in CI, terminals.
    Auto,
    /// Everything.
    Always,
    /// Nothing.
    Never,
}

/// One of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandStream {
    /// The answer.
    Stdout,
    /// The talk.
    Stderr,
}

/// What is masked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MaskedStreams {
    /// These are.
    pub masked: Vec<CommandStream>,
    /// Stdout is a file of data, which masks would spoil.
    pub spares_a_file: bool,
}

/// Set by systems whose jobs have a terminal that is kept as a log.
const CI: [&str; 3] = ["BUILDKITE", "CI", "JENKINS_URL"];

/// Where a stream goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Terminal,
    /// A pipe or a socket: somebody reads along.
    Reader,
    /// A file, by device and number.
    File(u64, u64),
    /// Such as /dev/null.
    Other,
}

impl MaskedStreams {
    /// Those of this process, which its command will have.
    pub fn of_this_process(mask: MaskMode) -> Self {
        let is_on = |name| {
            std::env::var(name).is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
        };
        let (stdout, stderr) = (Target::of(std::io::stdout()), Target::of(std::io::stderr()));
        Self::chosen(mask, stdout, stderr, CI.into_iter().any(is_on))
    }

    fn chosen(mask: MaskMode, stdout: Target, stderr: Target, is_ci: bool) -> Self {
        let is_log = |target: Target| match target {
            Target::Reader => true,
            Target::Terminal => is_ci,
            // Both streams in one file are a log.
            Target::File(..) => target == stderr,
            Target::Other => false,
        };
        let is_masked = |target: Target| match mask {
            MaskMode::Auto => is_log(target),
            MaskMode::Always => true,
            MaskMode::Never => false,
        };
        let both = [(CommandStream::Stdout, stdout), (CommandStream::Stderr, stderr)];
        let masked = both.into_iter().filter(|(_, target)| is_masked(*target));
        Self {
            masked: masked.map(|(stream, _)| stream).collect(),
            spares_a_file: mask == MaskMode::Auto
                && matches!(stdout, Target::File(..))
                && !is_log(stdout),
        }
    }
}

impl Target {
    fn of(stream: impl AsFd) -> Self {
        let Ok(file) = stream.as_fd().try_clone_to_owned().map(File::from) else {
            return Self::Other;
        };
        let Ok(found) = fstat(&file) else { return Self::Other };
        match FileType::from_raw_mode(found.st_mode) {
            _ if file.is_terminal() => Self::Terminal,
            FileType::Fifo | FileType::Socket => Self::Reader,
            FileType::RegularFile => Self::File(found.st_dev, found.st_ino),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_masked_and_data_is_not() {
        use CommandStream::{Stderr, Stdout};
        use Target::{File, Other, Reader, Terminal};
        for (stdout, stderr, is_ci, masked, spares_a_file) in [
            (Reader, Reader, false, &[Stdout, Stderr][..], false),
            (Terminal, Terminal, false, &[], false),
            (Terminal, Terminal, true, &[Stdout, Stderr], false),
            (Reader, Terminal, false, &[Stdout], false),
            (File(1, 2), Terminal, false, &[], true),
            (File(1, 2), Reader, true, &[Stderr], true),
            (File(1, 2), File(1, 3), false, &[Stderr], true),
            (File(1, 2), File(1, 2), false, &[Stdout, Stderr], false),
            (Other, Other, true, &[], false),
        ] {
            let chosen = |mask| MaskedStreams::chosen(mask, stdout, stderr, is_ci);
            let masked = masked.to_vec();
            assert_eq!(chosen(MaskMode::Auto), MaskedStreams { masked, spares_a_file });
            assert_eq!(chosen(MaskMode::Always).masked, [Stdout, Stderr]);
            assert_eq!(chosen(MaskMode::Never), MaskedStreams::default());
        }
    }
}
