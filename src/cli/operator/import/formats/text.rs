//! The bytes of a file as text. Marks and line ends of other systems are read as the format's own readers read them, or
//! reported with their line.

use crate::cli::operator::import::extracted::at_line;

/// The text, without a byte order mark.
///
/// # Errors
/// If the bytes are not UTF-8.
pub fn decoded(bytes: &[u8]) -> Result<&str, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("this is UTF-16, not UTF-8; write it as UTF-8".to_owned());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.trim_start_matches('\u{feff}')),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            Err(at_line(line, "this is not UTF-8"))
        }
    }
}

/// The text of a format with lines, which may end with CR LF.
///
/// # Errors
/// If the text is not UTF-8, or has a character that readers take differently: a lone CR or a zero byte.
pub fn lines_of(bytes: &[u8]) -> Result<String, String> {
    let text = decoded(bytes)?.replace("\r\n", "\n");
    let odd = [
        ('\r', "a carriage return without a line feed, which readers take differently"),
        ('\0', "a zero byte, which no value may hold"),
    ];
    for (sign, is) in odd {
        if let Some((before, _)) = text.split_once(sign) {
            let line = before.matches('\n').count() as u64 + 1;
            return Err(at_line(line, &format!("there is {is}")));
        }
    }
    Ok(text)
}
