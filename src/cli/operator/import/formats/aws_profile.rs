//! `--from aws-profile`: the access keys in AWS' shared credentials and config files.
//!
//! The format: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.

use std::collections::{BTreeMap, BTreeSet};

use super::ini::{Section, Setting, sections};
use super::text::lines_of;
use crate::cli::operator::import::extracted::{Entry, Extracted, at_line, connection};
use crate::cli::operator::import::input_file::ImportFile;
use crate::cli::operator::import::options::ImportOptions;

/// The two halves of an access key: the setting and the field of each.
const HALVES: [(&str, &str); 2] =
    [("aws_access_key_id", "access_key_id"), ("aws_secret_access_key", "secret_access_key")];
/// The setting of its session token, and the old name of that setting.
const TOKENS: [&str; 2] = ["aws_session_token", "aws_security_token"];

/// Settings for other sources of credentials, and their names in messages.
const OTHER_WAYS: [(&str, &str); 6] = [
    ("credential_process", "a program's answer"),
    ("role_arn", "a role to assume"),
    ("sso_session", "single sign-on"),
    ("sso_start_url", "single sign-on"),
    ("web_identity_token_file", "a web identity"),
    ("login_session", "a login"),
];

/// The section of a profile in one file.
struct ProfileSection<'a> {
    /// The index of the file.
    file: usize,
    shown: &'a str,
    section: Section,
}

/// Reads the files together: one may complete the profiles of another.
pub fn read(sources: &[ImportFile], wanted: &ImportOptions) -> Extracted {
    let mut found = Extracted::default();
    let mut profiles: BTreeMap<String, Vec<ProfileSection<'_>>> = BTreeMap::new();
    for (file, source) in sources.iter().enumerate() {
        let shown = source.shown.as_str();
        let read = lines_of(&source.bytes).and_then(|text| sections(&text));
        let sections = read.unwrap_or_else(|problem| {
            found.problems.push(format!("{shown}: {problem}"));
            Vec::new()
        });
        let is_config = sections.iter().any(|section| section.name.starts_with("profile "));
        for section in sections {
            let Some(name) = profile_of(&section.name, is_config).map(str::to_owned) else {
                found.skip(format!("{shown}: [{}]", section.name), "it is no profile");
                continue;
            };
            let parts = profiles.entry(name.clone()).or_default();
            match parts.iter().find(|part| part.file == file) {
                Some(first) => {
                    let text = format!("profile {name} is on line {} already", first.section.line);
                    found.problems.push(format!("{shown}: {}", at_line(section.line, &text)));
                }
                None => parts.push(ProfileSection { file, shown, section }),
            }
        }
    }
    let asked: BTreeSet<&str> = wanted.only.iter().map(String::as_str).collect();
    for absent in asked.iter().filter(|name| !profiles.contains_key(**name)) {
        found.problems.push(format!("there is no profile {absent}"));
    }
    profiles.retain(|name, _| wanted.takes(&[name]));
    for (name, parts) in profiles {
        match profile(&mut found, &name, &parts, wanted) {
            Ok(Some(entry)) => found.entries.push(entry),
            Ok(None) => {}
            Err(problem) => found.problems.push(problem),
        }
    }
    found
}

/// The profile of a section: `[x]` in credentials and `[profile x]` in config, which may say `[default]` for the default
/// profile. Names with spaces are in quotes. `None` if it is the section of something else.
fn profile_of(section: &str, is_config: bool) -> Option<&str> {
    let name = match section.split_once(char::is_whitespace) {
        Some(("profile", name)) => Some(name.trim()),
        Some(("sso-session" | "services", _)) => None,
        _ => Some(section).filter(|name| !["plugins", "preview"].contains(name)),
    }?;
    if is_config && name == section && name != "default" {
        return None;
    }
    Some(within_quotes(name).unwrap_or(name))
}

fn within_quotes(text: &str) -> Option<&str> {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\''))
}

/// The connection of a profile; `None` if it has no access key, which is listed as left out.
///
/// # Errors
/// If AWS' tools would not all read the same key.
fn profile(
    found: &mut Extracted,
    name: &str,
    parts: &[ProfileSection<'_>],
    wanted: &ImportOptions,
) -> Result<Option<Entry>, String> {
    let files: Vec<_> = parts.iter().map(|part| part.shown).collect();
    let what = format!("{}: profile {name}", files.join(", "));
    let way = OTHER_WAYS.iter().find(|(setting, _)| parts.iter().any(|part| part.has(setting)));
    // Both halves must come from one file: those of two keys do not belong together.
    let mut whole = parts.iter().filter(|part| HALVES.iter().all(|(half, _)| part.has(half)));
    let Some(key) = whole.next() else {
        let half = parts.iter().any(|part| HALVES.iter().any(|(half, _)| part.has(half)));
        let why = match way {
            Some((setting, way)) => format!("its credentials come from {way} ({setting})"),
            None if half => "one half of its access key is missing".to_owned(),
            None => "it has no access key".to_owned(),
        };
        found.skip(what, why);
        return Ok(None);
    };
    if let Some(other) =
        whole.find(|other| HALVES.iter().any(|(half, _)| other.text(half) != key.text(half)))
    {
        return Err(format!(
            "{what}: {} and {} hold two keys, and AWS' tools take that of the credentials file; import only \
             that file",
            key.shown, other.shown
        ));
    }
    let halves = HALVES.into_iter().filter_map(|(half, field)| Some((field, key, key.get(half)?)));
    let token = key.token()?.map(|token| ("session_token", key, token));
    let region = parts.iter().find_map(|part| Some(("region", part, part.get("region")?)));
    let fields = halves.chain(token).chain(region).map(|(field, part, setting)| {
        clear(setting).map_err(|problem| format!("{}: {problem}", part.shown))?;
        Ok((field.to_owned(), setting.value.as_bytes().to_vec()))
    });
    let fields: Vec<_> = fields.collect::<Result<_, String>>()?;
    if let Some((setting, _)) = way {
        found.skip(format!("{what}: {setting}"), "only its access key is taken");
    }
    let document = connection(("aws", name), "access_key", fields, wanted.access());
    Ok(Some(Entry { from: what, called: vec![name.to_owned()], document }))
}

/// Refuses a value that AWS' tools read differently.
fn clear(setting: &Setting) -> Result<(), String> {
    let value = &setting.value;
    let has_comment = value
        .match_indices(['#', ';'])
        .any(|(at, _)| value.get(..at).is_some_and(|before| before.ends_with([' ', '\t'])));
    let wrong = if value.contains('\n') {
        // A wrong indentation makes the next setting a part of the value.
        "the value goes over several lines: begin each setting alike"
    } else if within_quotes(value).is_some() {
        "the value is in quotes, which most of AWS' tools take for a part of it; remove them"
    } else if has_comment {
        "some of AWS' tools take the text behind # or ; for a comment and some for part of the value; put it on a \
         line of its own"
    } else {
        return Ok(());
    };
    Err(at_line(setting.line, wrong))
}

impl ProfileSection<'_> {
    /// A setting that is not empty.
    fn get(&self, name: &str) -> Option<&Setting> {
        self.section.settings.iter().find(|one| one.name == name && !one.value.is_empty())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|setting| setting.value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The session token.
    ///
    /// # Errors
    /// If there are two different ones.
    fn token(&self) -> Result<Option<&Setting>, String> {
        let tokens: Vec<_> = TOKENS.iter().filter_map(|name| self.get(name)).collect();
        match tokens.as_slice() {
            [one, other] if one.value != other.value => {
                let text = format!("another session token is on line {}", other.line);
                Err(format!("{}: {}", self.shown, at_line(one.line, &text)))
            }
            tokens => Ok(tokens.first().copied()),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::grpc::pb::apply_request::Document;

    fn source(shown: &str, text: &str) -> ImportFile {
        let bytes = text.as_bytes().to_vec().into();
        ImportFile { shown: shown.to_owned(), bytes }
    }

    fn fields(found: &Extracted) -> Vec<(String, Vec<String>)> {
        let of = |entry: &Entry| match &entry.document {
            Document::Connection(one) => {
                let fields = one.fields.iter().map(|(name, value)| {
                    format!("{name}={}", String::from_utf8(value.clone()).unwrap())
                });
                (one.name.clone(), fields.collect())
            }
            _ => panic!("a connection"),
        };
        found.entries.iter().map(of).collect()
    }

    #[test]
    fn both_files_make_one_profile_whose_key_stays_together() {
        let credentials = "[default]\naws_access_key_id = AKIA\nAWS_Secret_Access_Key: a#b;c=d:e;f\n\
                           [half]\naws_access_key_id = OLD\n";
        let config = "[default]\nregion = eu-west-1\ns3 =\n  region = elsewhere\n\
                      [profile half]\naws_access_key_id = NEW\naws_secret_access_key = new\n";
        let sources = [source("credentials", credentials), source("config", config)];
        let found = read(&sources, &ImportOptions::default());
        assert_eq!(found.problems, Vec::<String>::new());
        let expected = [
            (
                "default",
                vec!["access_key_id=AKIA", "region=eu-west-1", "secret_access_key=a#b;c=d:e;f"],
            ),
            ("half", vec!["access_key_id=NEW", "secret_access_key=new"]),
        ];
        let expected = expected.map(|(name, fields)| {
            (name.to_owned(), fields.into_iter().map(str::to_owned).collect::<Vec<_>>())
        });
        assert_eq!(fields(&found), expected);
    }

    #[test]
    fn profiles_without_a_key_are_named_with_the_reason() {
        let text = "[a]\nrole_arn = x\n[b]\nsso_session = x\n[c]\ncredential_process = x\n[d]\nregion = x\n\
                    [e]\naws_access_key_id = x\n[sso-session f]\nsso_region = x\n";
        let found = read(&[source("f", text)], &ImportOptions::default());
        assert!(found.entries.is_empty() && found.problems.is_empty());
        let skipped: Vec<_> =
            found.skipped.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        for (at, word) in
            ["f]", "role_arn", "sso_session", "credential_process", "no access key", "one half"]
                .iter()
                .enumerate()
        {
            assert!(skipped[at].contains(word), "{at}: {skipped:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_located_and_no_value_is_shown() {
        let wanted = ImportOptions { only: vec!["absent".to_owned()], ..ImportOptions::default() };
        let key = "[a]\naws_access_key_id = x\n";
        for (text, word) in [
            ("aws_access_key_id = canary\n", "line 1: there are settings before the first"),
            ("[a\ncanary = 1\n", "line 1"),
            ("[a]\n[b]\n[a]\n", "line 3: [a] is on line 1"),
            ("[default]\n[profile 'default']\n", "line 2: profile default is on line 1"),
            ("[a]\nX = 1\nx = canary\n", "line 3: this setting is on line 2"),
            ("[a]\nx = 1\rcanary = 2\n", "line 2: there is a carriage return"),
            ("[a]\nx = 1\ncanary\n", "line 3"),
            ("[a]\n = canary\n", "line 2"),
            (
                "[a]\naws_access_key_id = x\naws_secret_access_key = y\n  region = canary\n",
                "line 3: the value goes over several lines",
            ),
        ] {
            let found = read(&[source("f", text)], &ImportOptions::default());
            assert!(found.problems[0].contains(word), "{text}: {:?}", found.problems);
            assert!(!found.problems.join("").contains("canary"), "{:?}", found.problems);
        }
        for (value, word) in [
            ("canary # mine", "line 3: some of AWS' tools"),
            ("canary\t; mine", "line 3: some of AWS' tools"),
            ("'canary'", "line 3: the value is in quotes"),
            (
                "canary\naws_session_token = 1\naws_security_token = 2",
                "line 4: another session token",
            ),
        ] {
            let text = format!("{key}aws_secret_access_key = {value}\n");
            let found = read(&[source("f", &text)], &ImportOptions::default());
            assert!(found.problems[0].contains(word), "{text}: {:?}", found.problems);
            assert!(!found.problems.join("").contains("canary"), "{:?}", found.problems);
        }
        let key = |secret: &str| format!("{key}aws_secret_access_key = {secret}\n");
        let (one, other) = (source("one", &key("x")), source("other", &key("y")));
        assert!(read(&[one, other], &ImportOptions::default()).problems[0].contains("two keys"));
        let found = read(&[source("f", "[a]\n")], &wanted);
        assert_eq!(found.problems, ["there is no profile absent"]);
        // AWS' tools read no key there either.
        let text = format!("{}[profile b]\nregion = x\n", key("y"));
        let found = read(&[source("f", &text)], &ImportOptions::default());
        assert!(found.entries.is_empty() && found.skipped[0].what == "f: [a]");
    }
}
