//! Placeholders: values in the place of a credential.

/// The beginnings of references that another tool replaces by the value.
const REFERENCES: [&str; 16] = [
    "<path:",
    "@Microsoft.KeyVault(",
    "akv://",
    "arn:aws:secretsmanager:",
    "arn:aws:ssm:",
    "awssm://",
    "azurekeyvault://",
    "bws://",
    "doppler://",
    "gcpsm://",
    "keyvault://",
    "op://",
    "ref+",
    "secret://",
    "vault://",
    "{{resolve:",
];

/// The beginnings of texts that another tool has encrypted.
const ENCRYPTED: [&str; 8] = [
    "!vault",
    "$ANSIBLE_VAULT;",
    "-----BEGIN AGE ENCRYPTED FILE-----",
    "-----BEGIN PGP MESSAGE-----",
    "ENC(",
    "ENC[",
    "age-encryption.org/",
    "vault:v1:",
];

/// The signs around the name of a variable.
const AROUND: [(&str, &str); 10] = [
    ("${", "}"),
    ("$(", ")"),
    ("{{", "}}"),
    ("<%", "%>"),
    ("((", "))"),
    ("#{", "}"),
    ("%(", ")s"),
    ("@@", "@@"),
    ("__", "__"),
    ("#{", "}#"),
];

/// Words that people write until there is a secret, or to hide a secret: letters and digits only, in lower case.
const LATER: [&str; 28] = [
    "changeit",
    "changeme",
    "changemenow",
    "changethis",
    "concealed",
    "dummy",
    "example",
    "fillme",
    "fillmein",
    "fixme",
    "hidden",
    "masked",
    "nil",
    "none",
    "null",
    "objectobject",
    "placeholder",
    "redacted",
    "replaceit",
    "replaceme",
    "replacethis",
    "tbd",
    "todo",
    "undefined",
    "secretgoeshere",
    "sensitive",
    "sensitivevalue",
    "xxx",
];

/// The longest such text, in bytes.
const LONGEST: usize = 100;
/// The longest beginning of a secret whose rest is left out, in bytes.
const LONGEST_BEGINNING: usize = 12;

/// Why a value stands for a credential that was to be put in its place; `None` if it does not.
pub fn reference_fault(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let begins = |all: &[&str]| all.iter().any(|start| text.starts_with(start));
    let is_around = |(start, end): &(&str, &str)| {
        let inner = text.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        inner.is_some_and(|inner| !inner.trim().is_empty())
    };
    if begins(&ENCRYPTED) {
        return Some(
            "the value looks like the output of an encrypting tool; write what it decrypts to",
        );
    }
    let is_of_vault = text.starts_with("vault:") && text.contains('#');
    if begins(&REFERENCES) || is_of_vault || is_of_google(text) {
        return Some(
            "the value looks like a reference that another tool looks up; write the value itself",
        );
    }
    if AROUND.iter().any(is_around) || is_variable(text) {
        return Some(
            "the value looks like a variable that was not replaced; write the value itself",
        );
    }
    None
}

/// Why a value looks like a text that was written until there is a secret; `None` if it does not.
pub fn placeholder_fault(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.len() > LONGEST {
        return None;
    }
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let letters = letters.to_lowercase();
    let is_bracketed = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let is_bracketed = is_bracketed.is_some_and(|inner| {
        inner.starts_with(|c: char| c.is_ascii_alphabetic()) && !inner.contains(['<', '>'])
    });
    let is_yours = ["your", "insert", "enter", "put"].iter().any(|word| letters.starts_with(word))
        && ["here", "key", "password", "secret", "token"]
            .iter()
            .any(|word| letters.ends_with(word));
    let is_crossed = letters.len() >= 3 && letters.chars().all(|c| c == 'x');
    let is_later = is_bracketed
        || is_yours
        || is_crossed
        || is_left_out(text)
        || LATER.contains(&letters.as_str());
    is_later.then_some("the value looks like a placeholder for a real one; write the real value")
}

/// `sk-...`, `sk-xxxx`: the beginning of a secret, without the rest.
fn is_left_out(text: &str) -> bool {
    let begun = text.trim_end_matches(['.', '\u{2026}']);
    let is_open = text.ends_with("...") || text.ends_with('\u{2026}');
    let beginning = begun.trim_end_matches(['x', 'X', '-']);
    let crosses = begun.get(beginning.len()..).unwrap_or_default();
    let is_crossed = crosses.replace('-', "").len() >= 4
        && (crosses.starts_with('-') || beginning.ends_with('_'));
    (is_open && begun.len() <= LONGEST_BEGINNING)
        || (is_crossed && beginning.len() <= LONGEST_BEGINNING)
}

/// `projects/P/secrets/S/versions/V`
fn is_of_google(text: &str) -> bool {
    text.starts_with("projects/") && text.contains("/secrets/") && text.contains("/versions/")
}

/// `$NAME`, `%NAME%`
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix('$').or_else(|| text.strip_prefix('%')?.strip_suffix('%'));
    name.is_some_and(|name| {
        let is_part = |c: char| c == '_' || c.is_ascii_uppercase() || c.is_ascii_digit();
        name.len() >= 3
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_recognised() {
        for text in [
            "ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]",
            "<path:secret/data/x#password>",
            "op://vault/item/field",
            "${SLACK_TOKEN}",
            "{{ .Values.token }}",
            "$TOKEN",
            "%TOKEN%",
            "((db_password))",
            "vault:secret/data/x#y",
            "ref+awssecrets://x",
            "$(cat token)",
            "__TOKEN__",
            "#{Token}#",
            "!vault |",
            "projects/p/secrets/s/versions/latest",
        ] {
            assert!(reference_fault(text).is_some(), "{text}");
        }
        for text in [
            "changeme",
            "CHANGE_ME",
            "REPLACE-ME",
            "<your-token>",
            "your_api_key_here",
            "xxxx-xxxx",
            "sk-...",
            "sk-xxxxxxxx",
            "ghp_xxxxxxxxxxxx...",
            "sk-xxxx\u{2026}",
            "SENSITIVE_VALUE",
            "masked",
            "TODO",
            "null",
        ] {
            assert!(placeholder_fault(text).is_some(), "{text}");
        }
    }

    #[test]
    fn other_values_are_left_alone() {
        for real in [
            "",
            "$a",
            "hunter2",
            "p{{x",
            "correct horse",
            "${}",
            "a<b>",
            "vault:pw",
            "$2b$10$abc",
            "yours",
            "Xx1",
            "maxx",
            "a-xx",
            "wait for it, then go on...",
        ] {
            let found = reference_fault(real).or_else(|| placeholder_fault(real));
            assert!(found.is_none(), "{real}: {found:?}");
        }
    }
}
