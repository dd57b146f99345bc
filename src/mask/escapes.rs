//! Output without escape sequences: ECMA-48, section 5.4, and other sequences of terminals.

/// The beginning of every sequence.
const ESCAPE: u8 = 0x1b;

/// A text without escape sequences and carriage returns.
pub struct PlainText {
    /// The remaining bytes.
    pub text: Vec<u8>,
    /// The position of each byte in the original.
    pub positions: Vec<usize>,
}

impl PlainText {
    /// None if the text has no escape sequences.
    pub fn of(text: &[u8]) -> Option<Self> {
        if !text.iter().any(|byte| [ESCAPE, b'\r'].contains(byte)) {
            return None;
        }
        let mut plain = Self { text: Vec::new(), positions: Vec::new() };
        let mut position = 0;
        while let Some(rest) = text.get(position..).filter(|rest| !rest.is_empty()) {
            let length = sequence(rest);
            if let (0, Some(byte)) = (length, rest.first()) {
                plain.text.push(*byte);
                plain.positions.push(position);
            }
            position += length.max(1);
        }
        Some(plain)
    }
}

/// The escape sequences of a text, one after the other.
pub fn escapes(text: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.iter().position(|byte| *byte == ESCAPE) {
        rest = rest.get(start..).unwrap_or_default();
        let (own, behind) = rest.split_at_checked(sequence(rest).max(1)).unwrap_or((rest, &[]));
        found.extend_from_slice(own);
        rest = behind;
    }
    found
}

/// The length of the sequence at the beginning of a text, which may be incomplete. 0 if there is none.
fn sequence(text: &[u8]) -> usize {
    let count = |from: usize, range: std::ops::RangeInclusive<u8>| {
        text.get(from..).unwrap_or_default().iter().take_while(|byte| range.contains(byte)).count()
    };
    match text {
        [b'\r', ..] => 1,
        [ESCAPE, b'[', ..] => {
            let parameters = 2 + count(2, 0x30..=0x3f);
            let middle = parameters + count(parameters, 0x20..=0x2f);
            (middle + 1).min(text.len())
        }
        [ESCAPE, ..] => {
            let middle = 1 + count(1, 0x20..=0x2f);
            (middle + 1).min(text.len())
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_removed_and_found() {
        let coloured = b"hun\x1b[01;31m\x1b[Kter\x1b(B\x1b[m22\r\n";
        let plain = PlainText::of(coloured).unwrap();
        assert_eq!(plain.text, b"hunter22\n");
        assert_eq!(
            plain.positions.first().zip(plain.positions.last()),
            Some((&0, &(coloured.len() - 1)))
        );
        assert_eq!(escapes(coloured), b"\x1b[01;31m\x1b[K\x1b(B\x1b[m");
        assert!(PlainText::of(b"hunter22\n").is_none());
        assert_eq!(PlainText::of(b"hun\x1b[0").unwrap().text, b"hun");
    }
}
