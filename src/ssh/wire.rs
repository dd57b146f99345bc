//! The data types of SSH (RFC 4251, section 5).

/// The bytes are not of the form that they should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are cut off, or of another form")]
pub struct Malformed;

/// Reads values one after the other.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader at the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that are not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If bytes are left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// A byte.
    ///
    /// # Errors
    /// If there is none.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// A boolean, which is 0 or 1 here.
    ///
    /// # Errors
    /// If it is cut off or another number.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// An uint32.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn number(&mut self) -> Result<u32, Malformed> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    /// A string of bytes.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(string)
    }

    /// A string of UTF-8.
    ///
    /// # Errors
    /// If it is cut off, or other bytes.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.string()?).map_err(|_| Malformed)
    }

    /// A positive mpint, without the zero that may be before its bytes.
    ///
    /// # Errors
    /// If it is cut off, zero, negative, or longer than it must be.
    pub fn positive(&mut self) -> Result<&'a [u8], Malformed> {
        match self.string()? {
            [0, rest @ ..] if matches!(rest, [0x80..=0xff, ..]) => Ok(rest),
            [] | [0 | 0x80..=0xff, ..] => Err(Malformed),
            bytes => Ok(bytes),
        }
    }
}

/// Adds a string of bytes.
pub fn put_string(to: &mut Vec<u8>, string: &[u8]) {
    // Nothing here is that long.
    to.extend(u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(string);
}

/// Adds a positive mpint, of its bytes in network order.
pub fn put_positive(to: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = bytes.get(zeros..).unwrap_or_default();
    match bytes.first() {
        Some(0x80..) => put_string(to, &[&[0], bytes].concat()),
        _ => put_string(to, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form_only() {
        for (bytes, read) in [
            (&[0, 0, 0, 1, 5][..], Some(&[5][..])),
            (&[0, 0, 0, 2, 0, 0x80], Some(&[0x80])),
            (&[0, 0, 0, 0], None),
            (&[0, 0, 0, 1, 0], None),
            (&[0, 0, 0, 1, 0x80], None),
            (&[0, 0, 0, 2, 0, 5], None),
            (&[0, 0, 0, 2, 5], None),
        ] {
            assert_eq!(Reader::new(bytes).positive().ok(), read, "{bytes:?}");
            if let Some(read) = read {
                let mut written = Vec::new();
                put_positive(&mut written, &[&[0, 0], read].concat());
                assert_eq!(written, bytes);
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_left_over_is_refused() {
        let mut written = Vec::new();
        put_string(&mut written, b"abc");
        assert_eq!(Reader::new(&written).text(), Ok("abc"));
        for end in 0..written.len() {
            assert_eq!(Reader::new(&written[..end]).string(), Err(Malformed), "{end}");
        }
        assert_eq!(Reader::new(&written).end(), Err(Malformed));
        assert_eq!(Reader::new(&[2]).boolean(), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0xff]).text(), Err(Malformed));
    }
}
