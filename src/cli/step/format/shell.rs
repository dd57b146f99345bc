//! Lines of variables, for shells and for dotenv libraries.

use super::picker::Picker;
use crate::cli::io::failure::Failure;

/// The longest line that Docker reads, with its end, in bytes (Go's bufio.MaxScanTokenSize).
const LONGEST_DOCKER_LINE: usize = 64 * 1024;

/// `export NAME='value'`. Fails if a value is not UTF-8, or has a zero byte.
pub fn exports(picker: &Picker<'_>) -> Result<String, Failure> {
    let lines = variables(picker)?.into_iter().map(|(name, text)| {
        // Within single quotes, a shell interprets only the quote itself.
        format!("export {name}='{}'\n", text.replace('\'', r"'\''"))
    });
    Ok(lines.collect())
}

/// `NAME='value'`. Fails if Node's dotenv, Python's and a shell would read different values.
pub fn dotenv(picker: &Picker<'_>) -> Result<String, Failure> {
    let mut lines = String::new();
    for (name, text) in variables(picker)? {
        let quoted = quoted(text).ok_or_else(|| {
            picker.unfit(
                &name,
                "holds quotes, $ or carriage returns that dotenv libraries read differently",
            )
        })?;
        lines.push_str(&format!("{name}={quoted}\n"));
    }
    Ok(lines)
}

/// The value in quotes that every reader reads alike. `None` if no quotes do.
fn quoted(text: &str) -> Option<String> {
    // Python's dotenv expands ${NAME} everywhere. Node's reads \r as \n.
    if text.contains("${") || text.contains('\r') {
        return None;
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Some(text.to_owned());
    }
    // Within single quotes, \\ and \' are escapes for Python's and not for Node's.
    if !text.contains('\'') && !text.contains(r"\\") && !text.ends_with('\\') {
        return Some(format!("'{text}'"));
    }
    let is_read_differently = |c: char| "\"\\$`\n".contains(c);
    (!text.contains(is_read_differently)).then(|| format!("\"{text}\""))
}

/// `NAME=value`, where Docker reads the value as it is. Fails also for a line break, or a line too long for Docker.
pub fn docker_env(picker: &Picker<'_>) -> Result<String, Failure> {
    let mut lines = String::new();
    for (name, text) in variables(picker)? {
        let line = format!("{name}={text}\n");
        if text.contains(['\n', '\r']) || line.len() > LONGEST_DOCKER_LINE {
            return Err(picker.unfit(&name, "holds a line break, or is too long for a line"));
        }
        lines.push_str(&line);
    }
    Ok(lines)
}

fn variables<'a>(picker: &Picker<'a>) -> Result<Vec<(String, &'a str)>, Failure> {
    let variables = picker.credential.to_env()?.into_iter();
    let texts = variables.map(|(name, value)| {
        let text = std::str::from_utf8(value.expose());
        text.map(|text| (name.clone(), text)).map_err(|_| picker.unfit(&name, "is not UTF-8"))
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn dotenv_quotes_only_as_all_of_its_readers_understand() {
        for (text, written) in [
            ("plain-1.2/3", Some("plain-1.2/3")),
            ("", Some("''")),
            ("a b", Some("'a b'")),
            ("$HOME \"x\" `y`", Some("'$HOME \"x\" `y`'")),
            ("a\nb", Some("'a\nb'")),
            (r"a\nb", Some(r"'a\nb'")),
            ("it's", Some("\"it's\"")),
            ("it's $5", None),
            (r"a\\b", None),
            (r"a\", None),
            ("${HOME}", None),
            ("a\r\nb", None),
        ] {
            assert_eq!(quoted(text).as_deref(), written, "{text:?}");
        }
    }
}
