//! The streams of a command that are masked.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;

use rustix::fs::{FileType, fstat};

/// `--mask`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MaskMode {
    /// Logs: pipes, sockets, the file of stderr and, in CI, terminals.
    Auto,
    /// Both streams.
    Always,
    /// No stream.
    Never,
}

/// One of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandStream {
    Stdout,
    Stderr,
}

/// The choice of streams.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MaskedStreams {
    pub masked: Vec<CommandStream>,
    /// Whether stdout is a file of data, which masks would damage.
    pub spares_a_file: bool,
}

/// Variables of CI systems, which keep the terminal of a job as a log.
const CI: [&str; 3] = ["BUILDKITE", "CI", "JENKINS_URL"];

/// The target of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Terminal,
    /// A pipe or a socket, which somebody reads.
    Reader,
    /// A file, by device and inode.
    File(u64, u64),
    /// Such as /dev/null.
    Other,
}

impl MaskedStreams {
    /// The choice for the streams of this process, which its command inherits.
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
