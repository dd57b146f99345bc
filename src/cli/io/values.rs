//! Values of fields and secrets, as the command line names them.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;

use super::failure::{Failure, exit};
use super::output::say;
use super::prompt;
use super::prompt::ask_hidden;
use crate::grpc::pb;
use crate::model::limits::MAX_VALUE_BYTES;
use crate::sys::input;

/// Where a value on the command line comes from.
pub enum ArgumentSource {
    /// `VALUE` itself: only for fields that are not sensitive, because other users see the arguments of a process.
    Argument(String),
    /// `env:VARIABLE`
    Environment(String),
    /// `@FILE`, byte for byte.
    File(String),
    /// `-`; one line without its newline.
    Stdin,
}

impl ArgumentSource {
    /// Parses an argument.
    pub fn parse(text: &str) -> Self {
        match (text, text.strip_prefix('@'), text.strip_prefix("env:")) {
            ("-", ..) => Self::Stdin,
            (_, Some(path), _) => Self::File(path.to_owned()),
            (_, _, Some(variable)) => Self::Environment(variable.to_owned()),
            _ => Self::Argument(text.to_owned()),
        }
    }

    /// Reads the value of a field or secret of this name.
    ///
    /// # Errors
    /// As [`from_environment`], [`from_file`] and [`from_stdin`].
    pub fn read(self, name: &str) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Argument(value) => Ok(value.into_bytes()),
            Self::Environment(variable) => from_environment(&variable),
            Self::File(path) => from_file(Path::new(&path)),
            Self::Stdin => from_stdin(name),
        }
    }
}

/// Reads the values of `--field NAME=…`, by field.
///
/// # Errors
/// If an argument is not well formed, or a value cannot be read, or a sensitive value is on the command line. No error
/// shows an argument: it may hold a value by mistake. For the same reason clap does not parse them.
pub fn read(
    arguments: &[String],
    kinds: &[&pb::CredentialKind],
    allow_empty: bool,
) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let arguments = arguments.iter().map(|text| {
        let (name, source) = text.split_once('=').ok_or_else(|| {
            Failure::usage("--field: write NAME=VALUE, NAME=-, NAME=@FILE or NAME=env:VARIABLE")
        })?;
        Ok((name, ArgumentSource::parse(source)))
    });
    let arguments: Vec<_> = arguments.collect::<Result<_, Failure>>()?;
    let names: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
    check_known(kinds, &names)?;
    let kinds = kinds_with(kinds, &names);
    let of_stdin = arguments.iter().filter(|(_, source)| matches!(source, ArgumentSource::Stdin));
    if of_stdin.count() > 1 && !std::io::stdin().is_terminal() {
        let text = "only one --field can be - (stdin); write the others as @FILE or env:VARIABLE";
        return Err(Failure::usage(text));
    }
    let mut fields = BTreeMap::new();
    for (name, source) in arguments {
        if matches!(source, ArgumentSource::Argument(_)) {
            refuse_sensitive(name, &kinds)?;
        }
        let value = source.read(name)?;
        refuse_empty(&value, allow_empty, name)?;
        if fields.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("--field {name} is given twice")));
        }
    }
    Ok(fields)
}

/// The fields on the command line, and the answers to questions.
pub struct GivenFields {
    /// The kind, if the user chose one.
    pub kind: Option<String>,
    /// The fields.
    pub fields: BTreeMap<String, Vec<u8>>,
}

/// The same, and on a terminal asks for the kind and for the values that are missing.
///
/// # Errors
/// As [`read`], or if an answer is not a kind.
pub fn read_and_ask(
    arguments: &[String],
    kinds: &[&pb::CredentialKind],
    allow_empty: bool,
) -> Result<GivenFields, Failure> {
    let mut fields = read(arguments, kinds, allow_empty)?;
    if !std::io::stdin().is_terminal() {
        return Ok(GivenFields { kind: None, fields });
    }
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let fitting = kinds_with(kinds, &names);
    let whole = fitting.iter().filter(|kind| missing(kind, &fields).next().is_none());
    let kind = match (fitting.as_slice(), whole.count()) {
        ([only], _) => only,
        ([], _) | (_, 1) => return Ok(GivenFields { kind: None, fields }),
        (several, _) => ask_kind(several)?,
    };
    let wanted: Vec<_> = missing(kind, &fields).collect();
    for field in wanted {
        fields.insert(field.name.clone(), ask(&field.name, Some(field))?);
    }
    if fields.is_empty() && kind.fields.iter().any(|field| field.name == "*") {
        fields = ask_named()?;
    }
    Ok(GivenFields { kind: Some(kind.name.clone()), fields })
}

/// The required fields of a kind that are missing.
fn missing<'a>(
    kind: &'a pb::CredentialKind,
    fields: &BTreeMap<String, Vec<u8>>,
) -> impl Iterator<Item = &'a pb::FieldSchema> {
    let asked = kind
        .fields
        .iter()
        .filter(|field| field.required && !field.generated && !field.name.ends_with('*'));
    asked.filter(|field| !fields.keys().any(|name| covers(field, name) || *name == field.unless))
}

/// Asks for one of these kinds, by its number or name; an empty answer means the first.
fn ask_kind<'a>(kinds: &[&'a pb::CredentialKind]) -> Result<&'a pb::CredentialKind, Failure> {
    for (number, kind) in (1..).zip(kinds) {
        say(&format!("{number}  {:<20}  {}", kind.name, kind.title));
    }
    let first = kinds.first().map_or("", |kind| kind.name.as_str());
    let answer = prompt::ask(&format!("kind ({first}): "))?;
    let chosen = match answer.as_str() {
        "" => kinds.first(),
        answer => (1..).zip(kinds).find_map(|(number, kind): (usize, _)| {
            (answer == kind.name || answer == number.to_string()).then_some(kind)
        }),
    };
    chosen.copied().ok_or_else(|| {
        Failure::usage(format!("there is no kind {answer} among them; write its number or name"))
    })
}

/// Asks for fields of any name, until an empty answer.
fn ask_named() -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut fields = BTreeMap::new();
    loop {
        match prompt::ask("name of a field (none to end): ")? {
            end if end.is_empty() => return Ok(fields),
            name => drop(fields.insert(name.clone(), ask(&name, None)?)),
        }
    }
}

/// Refuses an empty value without `--allow-empty`: most often the command that should print it has failed.
///
/// # Errors
/// If the value is empty and that is not allowed.
pub fn refuse_empty(value: &[u8], allow_empty: bool, name: &str) -> Result<(), Failure> {
    match value.is_empty() && !allow_empty {
        true => Err(Failure::usage(format!("{name} is empty; to allow that, give --allow-empty"))),
        false => Ok(()),
    }
}

/// Refuses a field that no kind has.
fn check_known(kinds: &[&pb::CredentialKind], names: &[&str]) -> Result<(), Failure> {
    let is_known = |name: &str| kinds.iter().any(|kind| rule_of(kind, name).is_some());
    let Some(unknown) = names.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let known = kinds.iter().map(|kind| {
        let fields: Vec<_> = kind.fields.iter().map(|field| field.name.as_str()).collect();
        format!("{} has: {}", kind.name, fields.join(", "))
    });
    let known = known.collect::<Vec<_>>().join("; ");
    let text = match known.is_empty() {
        true => "there is no such kind; see: keyhatch integration get".to_owned(),
        false => format!("there is no field {unknown}; {known}"),
    };
    Err(Failure::usage(text))
}

/// The kinds that have all of these fields.
fn kinds_with<'a>(kinds: &[&'a pb::CredentialKind], names: &[&str]) -> Vec<&'a pb::CredentialKind> {
    let knows_all =
        |kind: &&&pb::CredentialKind| names.iter().all(|name| rule_of(kind, name).is_some());
    kinds.iter().filter(knows_all).copied().collect()
}

/// The value of an environment variable.
///
/// # Errors
/// If it is not set.
pub fn from_environment(variable: &str) -> Result<Vec<u8>, Failure> {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::var_os(variable)
        .map(std::ffi::OsString::into_vec)
        .ok_or_else(|| Failure::usage(format!("the environment variable {variable} is not set")))
}

/// The content of a file, byte for byte.
///
/// # Errors
/// If it cannot be read, is not a regular file, or has more than 64 KiB.
pub fn from_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = input::file(path, MAX_VALUE_BYTES);
    let mut value = read.map_err(|error| unreadable(&path.display().to_string(), &error))?;
    Ok(std::mem::take(&mut *value))
}

/// Stdin, byte for byte. If it is one line, its newline is left out, with a note on stderr. A terminal is asked without
/// echo.
///
/// # Errors
/// If stdin cannot be read, or has more than 64 KiB.
pub fn from_stdin(name: &str) -> Result<Vec<u8>, Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(ask_hidden(&format!("{name}: "))?);
    }
    // Two more bytes, for a newline that is left out.
    let read = input::stdin(MAX_VALUE_BYTES + 2);
    let mut value = read.map_err(|error| unreadable(name, &error))?;
    let length = line_length(&value).unwrap_or(value.len());
    if length < value.len() {
        say(&format!("note: {name}: the newline at the end of stdin is left out; @FILE keeps it"));
        value.truncate(length);
    }
    Ok(std::mem::take(&mut *value))
}

/// The length of a line without its newline; `None` if the value is not one line of text with a newline.
fn line_length(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    let line = text.strip_suffix('\n')?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    (!line.contains(|c: char| c.is_control() && c != '\t')).then_some(line.len())
}

fn unreadable(shown: &str, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            let text = format!("{shown}: more than {MAX_VALUE_BYTES} bytes");
            Failure::new("TOO_LARGE", text, exit::FAILED)
        }
        _ => Failure::usage(format!("{shown}: {error}")),
    }
}

/// Refuses a field on the command line unless it is insensitive in every kind that it may belong to.
fn refuse_sensitive(name: &str, kinds: &[&pb::CredentialKind]) -> Result<(), Failure> {
    let mut rules = kinds.iter().map(|kind| rule_of(kind, name));
    if !kinds.is_empty() && rules.all(|rule| rule.is_some_and(|rule| !rule.sensitive)) {
        return Ok(());
    }
    let text = format!(
        "{name} may be sensitive, and others can see a command line; write --field {name}=- (stdin), \
         --field {name}=@FILE or --field {name}=env:VARIABLE"
    );
    Err(Failure::usage(text))
}

fn rule_of<'a>(kind: &'a pb::CredentialKind, name: &str) -> Option<&'a pb::FieldSchema> {
    kind.fields.iter().find(|field| covers(field, name))
}

/// True if this is the rule for a field of this name.
pub fn covers(field: &pb::FieldSchema, name: &str) -> bool {
    match field.name.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => field.name == name || field.aliases.iter().any(|alias| alias == name),
    }
}

/// Asks for the value of a field, without echo unless its schema says that it is not sensitive.
fn ask(name: &str, field: Option<&pb::FieldSchema>) -> Result<Vec<u8>, Failure> {
    let question = match field {
        Some(field) => format!("{name} ({}): ", field.description),
        None => format!("{name}: "),
    };
    match field.is_none_or(|field| field.sensitive) {
        true => Ok(ask_hidden(&question)?),
        false => prompt::ask(&question).map(String::into_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_line_is_left_out_and_nothing_else() {
        for (value, length) in [
            ("token\n", Some(5)),
            ("token\r\n", Some(5)),
            ("a\tb \n", Some(4)),
            ("\n", Some(0)),
            ("token", None),
            ("one\ntwo\n", None),
            ("token\n\n", None),
            ("\u{1}\n", None),
        ] {
            assert_eq!(line_length(value.as_bytes()), length, "{value:?}");
        }
        assert_eq!(line_length(b"\xff\n"), None);
    }
}
