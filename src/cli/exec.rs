//! `keyhatch exec`: a command with credentials in its environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::child::{self, not_run};
use super::credential::Credential;
use super::endpoint::{Caller, connect};
use super::failure::{Failure, exit};
use super::output::say;
use super::{Common, block_on};
use crate::model::Reference;

/// Arguments of `exec`.
#[derive(clap::Args)]
pub struct Exec {
    /// What to put into the environment; may be given more than once. REF: every field under its
    /// customary name, such as AWS_ACCESS_KEY_ID. PREFIX=REF: every field as PREFIX_FIELD.
    /// NAME=REF:FIELD: one field. NAME=secret:SECRET: a secret.
    #[arg(long, value_name = "WHAT", required = true)]
    env: Vec<String>,
    /// The command to run.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// One `--env`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// A prefix, or the whole name where there is only one value.
    name: Option<String>,
    reference: Reference,
    field: Option<String>,
}

impl Exec {
    /// Nothing has to outlive the start of the command, so this process becomes it.
    pub(super) fn run(self, common: &Common) -> Result<u8, Failure> {
        let mut command = block_on(self.prepare(common))
            .map_err(|failure| failure.with_exit_code(exit::BEFORE_COMMAND))?;
        let error = command.exec();
        Err(not_run(&error, command.get_program()))
    }

    async fn prepare(&self, common: &Common) -> Result<Command, Failure> {
        let wanted = self.env.iter().map(|text| Wanted::parse(text));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let mut command = child::command(&self.command)?;
        let channel = connect(Caller::Step, common.state.as_deref()).await?;
        for wanted in wanted {
            let fields = wanted.field.iter().cloned().collect();
            let reference = wanted.reference.clone();
            let credential = Credential::resolve(channel.clone(), reference, fields, None).await?;
            for (name, value) in wanted.variables(&credential)? {
                let is_set = command.get_envs().any(|(set, _)| set == OsStr::new(&name));
                if is_set {
                    say(&format!("warning: {name} is given twice; {} wins", wanted.reference));
                }
                command.env(name, OsStr::from_bytes(value));
            }
        }
        Ok(command)
    }
}

impl Wanted {
    /// The variable or prefix, the reference and the field.
    pub(super) fn into_parts(self) -> (Option<String>, Reference, Option<String>) {
        (self.name, self.reference, self.field)
    }

    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        // A group's own = stands behind its colons.
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) if !name.contains(':') => (Some(name.to_owned()), rest),
            _ => (None, text),
        };
        if name.as_deref().is_some_and(|name| !is_variable_name(name)) {
            let text = format!("--env {text}: what stands before = must be a variable's name");
            return Err(Failure::usage(text));
        }
        // A secret and a default have one colon of their own and a group two; a field comes after those.
        let own = [("secret:", 1), ("default:", 1), ("group:", 2)];
        let own =
            own.iter().find(|(prefix, _)| rest.starts_with(prefix)).map_or(0, |(_, own)| *own);
        let (reference, field) = match rest.rsplit_once(':') {
            Some((reference, field)) if rest.matches(':').count() > own => (reference, Some(field)),
            _ => (rest, None),
        };
        let wanted =
            Self { name, reference: reference.parse()?, field: field.map(ToOwned::to_owned) };
        if wanted.field.is_some() && wanted.name.is_none() {
            let text = format!("--env {text}: one field needs a name; write NAME={text}");
            return Err(Failure::usage(text));
        }
        Ok(wanted)
    }

    fn variables<'a>(
        &self,
        credential: &'a Credential,
    ) -> Result<Vec<(String, &'a [u8])>, Failure> {
        let is_one = self.field.is_some() || matches!(self.reference, Reference::Secret(_));
        let named = match &self.name {
            None => credential.to_env()?,
            Some(name) if is_one => {
                let values = credential.to_env()?.into_iter();
                values.map(|(_, value)| (name.clone(), value)).collect()
            }
            Some(prefix) => credential.to_env_with_prefix(prefix)?,
        };
        Ok(named.into_iter().map(|(name, value)| (name, value.expose())).collect())
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_env_is_understood() {
        let parse = |text: &str| {
            let wanted = Wanted::parse(text).unwrap();
            (wanted.name, wanted.reference.to_string(), wanted.field)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parse("aws/prod"), (None, "aws/prod".into(), None));
        assert_eq!(parse("AWS=aws/prod"), (some("AWS"), "aws/prod".into(), None));
        assert_eq!(
            parse("PW=postgres/main:password"),
            (some("PW"), "postgres/main".into(), some("password"))
        );
        assert_eq!(parse("TOKEN=secret:token"), (some("TOKEN"), "secret:token".into(), None));
        assert_eq!(parse("default:slack"), (None, "default:slack".into(), None));
        assert_eq!(
            parse("X=default:slack:api_token"),
            (some("X"), "default:slack".into(), some("api_token"))
        );
        let group = "group:accounts:env=prod,region=eu";
        assert_eq!(parse(group), (None, group.into(), None));
        assert_eq!(parse(&format!("P={group}")), (some("P"), group.into(), None));
        assert_eq!(
            parse(&format!("K={group}:access_key_id")),
            (some("K"), group.into(), some("access_key_id"))
        );
        for bad in ["", "1A=aws/prod", "aws", "aws/prod:password", "A B=aws/prod"] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }
}
