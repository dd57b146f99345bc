//! `--from aws-profile`: the access keys of AWS' shared credentials and config files.
//!
//! Their form: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use configparser::ini::Ini;

use super::found::{Entry, Found, at_line, connection};
use super::source::Source;
use super::wanted::Wanted;

/// Where each field of an access key stands.
const SETTINGS: [(&str, &str); 3] = [
    ("aws_access_key_id", "access_key_id"),
    ("aws_secret_access_key", "secret_access_key"),
    ("aws_session_token", "session_token"),
];

/// Other ways to a credential, and what they are called.
const OTHER_WAYS: [(&str, &str); 6] = [
    ("credential_process", "a program's answer"),
    ("role_arn", "a role to assume"),
    ("sso_session", "single sign-on"),
    ("sso_start_url", "single sign-on"),
    ("web_identity_token_file", "a web identity"),
    ("login_session", "a login"),
];

/// The settings of a profile in one file, by name.
type Settings = HashMap<String, Option<String>>;

/// A profile as one file has it.
struct Part<'a> {
    shown: &'a str,
    settings: Settings,
}

/// What the files become, together: what one of them does not say of a profile, the next one may.
pub fn read(sources: &[Source], wanted: &Wanted) -> Found {
    let mut found = Found::default();
    let mut profiles: BTreeMap<String, Vec<Part<'_>>> = BTreeMap::new();
    for source in sources {
        let shown = &source.shown;
        let sections = sections(&source.bytes).unwrap_or_else(|problem| {
            found.problems.push(format!("{shown}: {problem}"));
            BTreeMap::new()
        });
        for (section, settings) in sections {
            match profile_of(&section) {
                Some(name) => {
                    profiles.entry(name.to_owned()).or_default().push(Part { shown, settings });
                }
                None => found.skip(format!("{shown}: [{section}]"), "it is no profile"),
            }
        }
    }
    let asked: BTreeSet<&str> = wanted.profiles.iter().map(String::as_str).collect();
    for absent in asked.iter().filter(|name| !profiles.contains_key(**name)) {
        found.problems.push(format!("there is no profile {absent}"));
    }
    profiles.retain(|name, _| asked.is_empty() || asked.contains(name.as_str()));
    for (name, parts) in profiles {
        profile(&mut found, &name, &parts, wanted);
    }
    found
}

fn sections(bytes: &[u8]) -> Result<BTreeMap<String, Settings>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "this is not UTF-8".to_owned())?;
    let mut ini = Ini::new_cs();
    // A secret may hold any character; and what is indented belongs to the setting above it.
    ini.set_inline_comment_symbols(Some(&[]));
    ini.set_multiline(true);
    // Else what stands before the first section would be the profile default's.
    ini.set_default_section("");
    let text = text.trim_start_matches('\u{feff}');
    let mut sections: BTreeMap<_, _> = ini.read(text.to_owned())?.into_iter().collect();
    if sections.remove("").is_some_and(|stray| !stray.is_empty()) {
        return Err("there are settings before the first [PROFILE]".to_owned());
    }
    refuse_lone_words(text, &sections)?;
    Ok(sections)
}

/// Refuses a line without `=`: part of a value that was broken, most likely.
fn refuse_lone_words(text: &str, sections: &BTreeMap<String, Settings>) -> Result<(), String> {
    let lone: BTreeSet<&str> = sections
        .values()
        .flatten()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    match text.lines().zip(1..).find(|(line, _)| lone.contains(line.trim())) {
        Some((_, line)) => Err(at_line(line, "this is neither [PROFILE] nor NAME = VALUE")),
        None => Ok(()),
    }
}

/// The profile that a section is of: `[x]` in credentials, `[profile x]` in config.
fn profile_of(section: &str) -> Option<&str> {
    match section.split_once(char::is_whitespace) {
        Some(("profile", name)) => Some(name.trim()),
        Some(("sso-session" | "services", _)) => None,
        _ => Some(section),
    }
    .filter(|_| !["plugins", "preview"].contains(&section))
}

fn profile(found: &mut Found, name: &str, parts: &[Part<'_>], wanted: &Wanted) {
    let files: Vec<_> = parts.iter().map(|part| part.shown).collect();
    let what = format!("{}: profile {name}", files.join(", "));
    let way = OTHER_WAYS.iter().find(|(setting, _)| parts.iter().any(|part| part.has(setting)));
    // Both halves from one file: those of two keys do not go together.
    let Some(key) = parts.iter().find(|part| SETTINGS.iter().take(2).all(|(s, _)| part.has(s)))
    else {
        let half = parts.iter().any(|part| SETTINGS.iter().take(2).any(|(s, _)| part.has(s)));
        let why = match way {
            Some((setting, way)) => format!("its credentials come from {way} ({setting})"),
            None if half => "one half of its access key is missing".to_owned(),
            None => "it has no access key".to_owned(),
        };
        return found.skip(what, why);
    };
    let fields = SETTINGS.iter().filter_map(|(setting, field)| Some((*field, key.get(setting)?)));
    // Such a value is a mistake in the indentation: the next setting became part of it.
    if fields.clone().any(|(_, value)| value.contains('\n')) {
        let text = format!("{what}: a value goes over several lines: begin each setting alike");
        found.problems.push(text);
        return;
    }
    let region = parts.iter().find_map(|part| part.get("region")).map(|region| ("region", region));
    let fields =
        fields.chain(region).map(|(field, value)| (field.to_owned(), value.as_bytes().to_vec()));
    match connection(("aws", name), "access_key", fields, &wanted.resolvers) {
        Ok(document) => {
            if let Some((setting, _)) = way {
                found.skip(format!("{what}: {setting}"), "its access key alone is taken");
            }
            found.entries.push(Entry { from: what, document });
        }
        Err(invalid) => found.skip(what, invalid.to_string()),
    }
}

impl Part<'_> {
    fn get(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting)?.as_deref().filter(|value| !value.is_empty())
    }

    fn has(&self, setting: &str) -> bool {
        self.get(setting).is_some()
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::grpc::pb::apply_request::Document;

    fn source(shown: &str, text: &str) -> Source {
        let bytes = text.as_bytes().to_vec().into();
        Source { shown: shown.to_owned(), bytes }
    }

    fn fields(found: &Found) -> Vec<(String, Vec<String>)> {
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
    fn both_files_make_one_profile_and_the_halves_of_a_key_stay_together() {
        let credentials = "[default]\naws_access_key_id = AKIA\naws_secret_access_key=a#b;c=d:e ;f\n\
                           [half]\naws_access_key_id = OLD\n";
        let config = "[default]\nregion = eu-west-1\ns3 =\n  region = elsewhere\n\
                      [profile half]\naws_access_key_id = NEW\naws_secret_access_key = new\n";
        let sources = [source("credentials", credentials), source("config", config)];
        let found = read(&sources, &Wanted::default());
        assert_eq!(found.problems, Vec::<String>::new());
        let expected = [
            (
                "default",
                vec!["access_key_id=AKIA", "region=eu-west-1", "secret_access_key=a#b;c=d:e ;f"],
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
                    [e]\naws_access_key_id = x\n[sso-session f]\nsso_region = x\n\
                    [g/h]\naws_access_key_id = x\naws_secret_access_key = y\n";
        let found = read(&[source("f", text)], &Wanted::default());
        assert!(found.entries.is_empty() && found.problems.is_empty());
        let skipped: Vec<_> =
            found.skipped.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        for (at, word) in [
            "f]",
            "role_arn",
            "sso_session",
            "credential_process",
            "no access key",
            "one half",
            "valid connection name",
        ]
        .iter()
        .enumerate()
        {
            assert!(skipped[at].contains(word), "{at}: {skipped:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_located_and_no_value_is_shown() {
        let wanted = Wanted { profiles: vec!["absent".to_owned()], ..Wanted::default() };
        for (text, word) in [
            ("aws_access_key_id = canary\n", "before the first"),
            ("[a\ncanary = 1\n", "line 1"),
            ("[a]\nx = 1\ncanary\n", "line 3"),
            ("[a]\n = canary\n", "line 2"),
            (
                "[a]\naws_access_key_id = x\naws_secret_access_key = y\n  region = canary\n",
                "several lines",
            ),
        ] {
            let found = read(&[source("f", text)], &Wanted::default());
            assert!(found.problems[0].contains(word), "{text}: {:?}", found.problems);
            assert!(!found.problems.join("").contains("canary"), "{:?}", found.problems);
        }
        let found = read(&[source("f", "[a]\n")], &wanted);
        assert_eq!(found.problems, ["there is no profile absent"]);
    }
}
