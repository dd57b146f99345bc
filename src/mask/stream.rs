//! One stream, with the forms of values masked.

use super::parts::LEAST_BYTES;
use super::patterns::Patterns;

/// The text in place of a value.
const MASK: &[u8] = b"***";

/// One stream of output.
#[derive(Default)]
pub struct StreamMask {
    /// Output that may be the beginning of a form.
    held: Vec<u8>,
    /// The bytes of it that are written already, as they are or masked.
    written: usize,
    /// The bytes of it that a written mask covers.
    covered: usize,
}

impl StreamMask {
    /// Takes a piece, and returns the output that can be written.
    pub fn feed(&mut self, patterns: &Patterns, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        match patterns.open_end(&self.held) {
            0 => Vec::new(),
            open_end => self.write(patterns, open_end),
        }
    }

    /// Returns the rest of the output.
    pub fn finish(&mut self, patterns: &Patterns) -> Vec<u8> {
        self.write(patterns, self.held.len())
    }

    /// Whether output is held back.
    pub fn is_holding(&self) -> bool {
        self.written < self.held.len()
    }

    /// Returns the output to write if no more comes in time. A beginning that reveals little is written as it is, a
    /// longer one as a mask. The rest of the value is masked when it comes.
    pub fn release(&mut self, patterns: &Patterns) -> Vec<u8> {
        let plain =
            patterns.plain(&self.held).map_or_else(|| self.held.clone(), |plain| plain.text);
        let form = patterns.begun_by(&plain).map(Vec::len).min();
        let gives_away =
            plain.len() >= LEAST_BYTES || form.is_some_and(|form| plain.len() > form / 2);
        let held = self.held.get(self.written..).unwrap_or_default();
        let written = match (gives_away, self.covered < self.written || self.covered == 0) {
            (false, _) => held.to_vec(),
            (true, true) => [MASK.to_vec(), patterns.escapes(held)].concat(),
            (true, false) => patterns.escapes(held),
        };
        self.written = self.held.len();
        if gives_away {
            self.covered = self.written;
        }
        written
    }

    /// Writes the held output up to `end`. More output decides about a value that begins after it.
    fn write(&mut self, patterns: &Patterns, end: usize) -> Vec<u8> {
        let mut written = Vec::with_capacity(end);
        let (mut position, mut covered) = (self.written, self.covered);
        for (start, stop) in patterns.covered(&self.held) {
            if start >= end {
                break;
            }
            written.extend_from_slice(self.held.get(position..start).unwrap_or_default());
            let is_part_of_a_mask = start < self.covered;
            if !is_part_of_a_mask && stop > position {
                written.extend_from_slice(MASK);
            }
            // Escape sequences within a value are kept, so that a terminal gets both the change of a colour and its
            // end.
            let within = self.held.get(position.max(start)..stop).unwrap_or_default();
            written.extend(patterns.escapes(within));
            (position, covered) = (position.max(stop), covered.max(stop));
        }
        written.extend_from_slice(self.held.get(position..end).unwrap_or_default());
        self.written = position.saturating_sub(end);
        self.covered = covered.saturating_sub(end);
        self.held.drain(..end);
        written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(values: &[&str]) -> Patterns {
        let forms = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        Patterns::new(&forms, false).unwrap()
    }

    #[test]
    fn a_large_repetitive_value_is_held_back() {
        let value = format!("{}b", "a".repeat(60_000));
        let patterns = patterns(&[&value]);
        let output = format!("{}c", "a".repeat(59_999));
        assert_eq!(patterns.open_end(output.as_bytes()), output.len());
        let mut stream = StreamMask::default();
        let mut written = Vec::new();
        for byte in value.as_bytes().chunks(1).take(4_000) {
            written.extend(stream.feed(&patterns, byte));
        }
        assert!(written.is_empty() && stream.is_holding());
    }

    #[test]
    fn a_released_beginning_has_its_rest_masked() {
        let (patterns, mut stream) = (patterns(&["hunter22-and-more"]), StreamMask::default());
        assert_eq!(stream.feed(&patterns, b"an h"), b"an ");
        assert!(stream.is_holding());
        assert_eq!(stream.release(&patterns), b"h");
        assert!(!stream.is_holding());
        assert_eq!(stream.feed(&patterns, b"unt"), b"");
        assert_eq!(stream.release(&patterns), b"unt");
        assert_eq!(stream.feed(&patterns, b"er22"), b"");
        assert_eq!(stream.release(&patterns), b"***");
        assert_eq!(stream.feed(&patterns, b"-and-more; bye"), b"; bye");
        // Output that is no value after all keeps its masks.
        assert_eq!(stream.feed(&patterns, b"hunter22"), b"");
        assert_eq!(stream.release(&patterns), b"***");
        assert_eq!(stream.feed(&patterns, b" hunter22-and-more"), b" ***");
        assert_eq!(stream.finish(&patterns), b"");
    }

    #[test]
    fn output_that_cannot_be_a_value_is_not_held_back() {
        let (patterns, mut stream) = (patterns(&["hunter22"]), StreamMask::default());
        assert_eq!(stream.feed(&patterns, b"Name? "), b"Name? ");
        assert_eq!(stream.feed(&patterns, b"the hunt"), b"the ");
        assert_eq!(stream.feed(&patterns, b"er is on"), b"hunter is on");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pieces_of_output_do_not_matter(
            text in "(hunter22|hunter23x|hunter22-and-more|h|u|\n|huntaHVudGVyMjI=){0,12}",
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let patterns = patterns(&["hunter22", "hunter22-and-more", "hunter23x"]);
            let masked = |pieces: &[&[u8]]| {
                let mut stream = StreamMask::default();
                let mut written: Vec<u8> =
                    pieces.iter().flat_map(|piece| stream.feed(&patterns, piece)).collect();
                written.extend(stream.finish(&patterns));
                written
            };
            let whole = masked(&[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(masked(&pieces), whole);
        }
    }
}
