//! The arguments of `exec` that name credentials.

use std::path::{Path, PathBuf};

use crate::cli::identity::session::FieldSelection;
use crate::cli::io::failure::Failure;
use crate::cli::io::variable::{is_variable_name, prefixed};
use crate::cli::step::credential::Credential;
use crate::model::{Reference, Value};
use crate::sys::input;

/// The longest file of references, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// One `--env`.
#[derive(Debug, PartialEq, Eq)]
pub struct EnvArgument {
    /// A prefix of variables, or the name of one variable. None for the customary names.
    pub name: Option<String>,
    /// The reference to resolve.
    pub reference: Reference,
    /// These fields, or all if the list is empty.
    pub fields: Vec<String>,
    /// Whether a file has it. The command line wins over files.
    pub is_of_file: bool,
}

/// A reference to one value.
#[derive(Debug, PartialEq, Eq)]
pub struct ValueReference {
    /// The reference to resolve.
    pub reference: Reference,
    /// The field. None for a secret.
    pub field: Option<String>,
}

/// One `--file`.
#[derive(Debug, PartialEq, Eq)]
pub struct FileArgument {
    pub path: PathBuf,
    pub value: ValueReference,
}

impl ValueReference {
    /// Parses `REF:FIELD` or `secret:NAME`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (reference, field) = reference_and_field(text)?;
        match field.is_some() || matches!(reference, Reference::Secret(_)) {
            true => Ok(Self { reference, field }),
            false => Err(Failure::usage(format!("{text}: name the field, as in {text}:FIELD"))),
        }
    }

    /// The fields to ask for.
    pub fn selection(&self) -> FieldSelection<'_> {
        (&self.reference, self.field.as_slice())
    }

    /// The value in a credential that was resolved for it.
    pub fn of<'a>(&'a self, credential: &'a Credential) -> &'a [u8] {
        let mut values = credential.values_of(self.field.as_deref());
        // The broker refuses an unknown field, so the value is there.
        values.next().map_or(&[], |(_, value)| value.expose())
    }
}

impl FileArgument {
    /// Parses `PATH=REF:FIELD` or `PATH=secret:NAME`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (path, rest) =
            text.split_once('=').filter(|(path, _)| !path.is_empty()).ok_or_else(|| {
                Failure::usage(format!("--file {text}: write PATH=REF:FIELD or PATH=secret:NAME"))
            })?;
        let value = ValueReference::parse(rest)
            .map_err(|failure| Failure::usage(format!("--file {}", failure.message)))?;
        Ok(Self { path: PathBuf::from(path), value })
    }
}

/// Splits a reference from the field that may follow it.
fn reference_and_field(text: &str) -> Result<(Reference, Option<String>), Failure> {
    // A secret and a default have one colon of their own, and a group has two. A field comes after those.
    let own = [("secret:", 1), ("default:", 1), ("group:", 2)];
    let own = own.iter().find(|(prefix, _)| text.starts_with(prefix)).map_or(0, |(_, own)| *own);
    let (reference, field) = match text.rsplit_once(':') {
        Some((reference, field)) if text.matches(':').count() > own => (reference, Some(field)),
        _ => (text, None),
    };
    Ok((reference.parse()?, field.map(ToOwned::to_owned)))
}

impl EnvArgument {
    /// Parses `REF`, `PREFIX=REF`, `PREFIX=REF:FIELD,FIELD`, `NAME=REF:FIELD` or `NAME=secret:SECRET`.
    ///
    /// # Errors
    /// If the text is none of these.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        // A group may have a = after its colons.
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) if !name.contains(':') => (Some(name.to_owned()), rest),
            _ => (None, text),
        };
        if name.as_deref().is_some_and(|name| !is_variable_name(name)) {
            let name = name.unwrap_or_default();
            let text = format!("--env {name}: the text before = must be a variable's name");
            return Err(Failure::usage(text));
        }
        let (reference, field) = reference_and_field(rest).map_err(|failure| match &name {
            // Docker takes a value here. The value must not be in the error, which may be logged.
            Some(name) => Failure::usage(format!(
                "--env {name} is not followed by a reference: write {name}=REF:FIELD or {name}=secret:SECRET; \
                 a value is set without this option"
            )),
            None => failure,
        })?;
        let fields = field.iter().flat_map(|list| list.split(','));
        let fields: Vec<String> = fields.map(ToOwned::to_owned).collect();
        if !fields.is_empty() && name.is_none() {
            let text = format!("--env {text}: one field needs a name; write NAME={text}");
            return Err(Failure::usage(text));
        }
        if fields.iter().any(String::is_empty) {
            let text = format!("--env {text}: a field's name is empty; write REF:FIELD,FIELD");
            return Err(Failure::usage(text));
        }
        Ok(Self { name, reference, fields, is_of_file: false })
    }

    /// Reads a file of references: what `--env` takes, one a line. Skips blank lines and lines with #. Errors do not
    /// repeat a line, because it may hold a value.
    pub(super) fn read(path: &Path) -> Result<Vec<Self>, Failure> {
        let wrong = |text: String| Failure::usage(format!("--env-file {}{text}", path.display()));
        let text = input::named(path, MAX_FILE_BYTES).and_then(input::text);
        let text = text.map_err(|error| wrong(format!(": {error}")))?;
        let lines = text.lines().map(str::trim).zip(1..);
        let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let parsed = lines.map(|(line, number)| {
            let argument = Self::parse(line);
            argument.map(|argument| Self { is_of_file: true, ..argument }).map_err(|_| {
                let name = line.split_once('=').map(|(name, _)| name);
                let name = name.filter(|name| is_variable_name(name)).unwrap_or("the line");
                wrong(format!(
                    ":{number}: {name} is not followed by a reference: write NAME=REF:FIELD, NAME=secret:SECRET or REF; \
                     such a file holds no values"
                ))
            })
        });
        parsed.collect()
    }

    /// Whether every field gets its customary name.
    pub fn has_customary_names(&self) -> bool {
        self.name.is_none()
    }

    /// The variables for a credential that was resolved for it.
    pub(super) fn variables<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> Result<Vec<(String, &'a Value)>, Failure> {
        let is_secret = matches!(self.reference, Reference::Secret(_));
        match (&self.name, self.fields.as_slice()) {
            (None, _) => credential.to_env(),
            (Some(name), []) if is_secret => credential.to_env_as(name, None),
            (Some(prefix), []) => credential.to_env_with_prefix(prefix),
            (Some(name), [field]) => credential.to_env_as(name, Some(field)),
            (Some(prefix), fields) => {
                let named = fields
                    .iter()
                    .map(|field| credential.to_env_as(&prefixed(prefix, field), Some(field)));
                Ok(named.collect::<Result<Vec<_>, _>>()?.concat())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_file_is_understood() {
        let parse = |text: &str| {
            FileArgument::parse(text)
                .map(|file| (file.value.reference.to_string(), file.value.field))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parse("a/b=aws/prod:region").unwrap(), ("aws/prod".into(), some("region")));
        assert_eq!(parse("k=secret:key").unwrap(), ("secret:key".into(), None));
        let group = "g=group:accounts:env=prod:private_key";
        assert_eq!(parse(group).unwrap(), ("group:accounts:env=prod".into(), some("private_key")));
        for bad in ["", "k", "=secret:key", "k=aws/prod", "k=aws"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_form_of_env_is_understood() {
        let parse = |text: &str| {
            let argument = EnvArgument::parse(text).unwrap();
            (argument.name, argument.reference.to_string(), argument.fields.join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        let none = String::new;
        assert_eq!(parse("aws/prod"), (None, "aws/prod".into(), none()));
        assert_eq!(parse("AWS=aws/prod"), (some("AWS"), "aws/prod".into(), none()));
        assert_eq!(parse("DB=aws/prod:a,b.c"), (some("DB"), "aws/prod".into(), "a b.c".into()));
        assert_eq!(
            parse("PW=postgres/main:password"),
            (some("PW"), "postgres/main".into(), "password".into())
        );
        assert_eq!(parse("TOKEN=secret:token"), (some("TOKEN"), "secret:token".into(), none()));
        assert_eq!(parse("default:slack"), (None, "default:slack".into(), none()));
        assert_eq!(
            parse("X=default:slack:api_token"),
            (some("X"), "default:slack".into(), "api_token".into())
        );
        let group = "group:accounts:env=prod,region=eu";
        assert_eq!(parse(group), (None, group.into(), none()));
        assert_eq!(parse(&format!("P={group}")), (some("P"), group.into(), none()));
        assert_eq!(
            parse(&format!("K={group}:access_key_id")),
            (some("K"), group.into(), "access_key_id".into())
        );
        for bad in [
            "",
            "1A=aws/prod",
            "aws",
            "aws/prod:password",
            "A B=aws/prod",
            "A=aws/b:c,",
            "A=aws/b:",
        ] {
            assert!(EnvArgument::parse(bad).is_err(), "{bad}");
        }
    }
}
