//! Objects of Kubernetes as they are in a file.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::text::decoded;
use crate::cli::operator::import::extracted::at_line;
use crate::cli::operator::import::fit::NamedValue;
use crate::cli::operator::seed;

/// The parts of an object that a Secret has.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KubernetesObject {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<ObjectMetadata>,
    #[serde(rename = "type")]
    of: Option<String>,
    /// Base64.
    data: Option<BTreeMap<String, Option<Spanned<String>>>>,
    /// Not encoded; takes precedence over `data`.
    string_data: Option<BTreeMap<String, Option<Spanned<String>>>>,
    /// The objects of a list.
    items: Option<Vec<KubernetesObject>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectMetadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// The objects of a file, and each object of a list. The content of an alias (`*NAME`) counts against the limits of the
/// parser, so that a few lines of aliases cannot become larger than a file may be.
///
/// # Errors
/// The position of the error in the file.
pub fn objects(bytes: &[u8]) -> Result<Vec<KubernetesObject>, String> {
    let text = decoded(bytes)?;
    let options = serde_saphyr::options! { with_snippet: false };
    let read: Vec<KubernetesObject> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| explain(&error))?;
    let mut objects = Vec::new();
    for mut object in read {
        match (object.items.take(), object.kind.as_deref()) {
            (Some(items), Some(list @ ("List" | "SecretList"))) => {
                objects.extend(items.into_iter().map(|item| item.of_list(list)));
            }
            _ => objects.push(object),
        }
    }
    match objects.is_empty() {
        true => Err("there is no object in it".to_owned()),
        false => Ok(objects),
    }
}

/// The position of an error in the file, with a plain sentence for the limits of the parser.
fn explain(error: &serde_saphyr::Error) -> String {
    let place = error.location();
    let place = place.map(|at| format!("line {}, column {}: ", at.line(), at.column()));
    let text = seed::explain(error);
    let text = match text.contains("budget breached") {
        true => "this is more than one file may hold, its aliases included",
        false => &text,
    };
    format!("{}{text}", place.unwrap_or_default())
}

impl KubernetesObject {
    /// An object of a SecretList need not say that it is a Secret.
    fn of_list(mut self, list: &str) -> Self {
        if list == "SecretList" && self.kind.is_none() {
            self.kind = Some("Secret".to_owned());
            self.api_version = Some("v1".to_owned());
        }
        self
    }

    /// True if it is a Secret of Kubernetes itself, and not a resource of the same name in another API group.
    pub fn is_secret(&self) -> bool {
        (self.api_version.as_deref(), self.kind.as_deref()) == (Some("v1"), Some("Secret"))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.as_ref().and_then(|one| one.name.as_deref()).unwrap_or_default()
    }

    /// Its names: `NAMESPACE/NAME` if it has a namespace, and `NAME`.
    pub fn called(&self) -> Vec<String> {
        let namespace = self.metadata.as_ref().and_then(|one| one.namespace.as_deref());
        let whole = namespace.map(|namespace| format!("{namespace}/{}", self.name()));
        whole.into_iter().chain([self.name().to_owned()]).collect()
    }

    /// Its type.
    pub fn of(&self) -> &str {
        self.of.as_deref().unwrap_or("Opaque")
    }

    /// Its name in messages.
    pub fn shown(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("object");
        let namespace = self.metadata.as_ref().and_then(|one| one.namespace.as_deref());
        match (namespace, self.name()) {
            (_, "") => format!("{kind} without a name"),
            (None, name) => format!("{kind} {name}"),
            (Some(namespace), name) => format!("{kind} {namespace}/{name}"),
        }
    }

    /// Its values.
    ///
    /// # Errors
    /// Every value of `data` that is not Base64.
    pub fn values(self) -> Result<Vec<NamedValue>, Vec<String>> {
        let mut values: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut problems = Vec::new();
        for (key, value) in self.data.unwrap_or_default() {
            let Some(value) = value else {
                values.insert(key, Vec::new());
                continue;
            };
            // kubectl writes one line, but people who write YAML fold it.
            let text: String = value.value.split_ascii_whitespace().collect();
            match STANDARD.decode(text) {
                Ok(decoded) => drop(values.insert(key, decoded)),
                Err(_) => {
                    let text = format!("{key} is not Base64; stringData takes values as they are");
                    problems.push(at_line(value.referenced.line(), &text));
                }
            }
        }
        for (key, value) in self.string_data.unwrap_or_default() {
            values.insert(key, value.map(|text| text.value.into_bytes()).unwrap_or_default());
        }
        let named = values.into_iter().map(|(name, value)| NamedValue { name, value, line: None });
        if problems.is_empty() { Ok(named.collect()) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, Vec<u8>)> {
        let mut objects = objects(text.as_bytes()).unwrap();
        let values = objects.remove(0).values().unwrap();
        values.into_iter().map(|one| (one.name, one.value)).collect()
    }

    #[test]
    fn yaml_and_json_lists_and_documents_are_read() {
        let one = "{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"data\": {\"a\": \"AA==\"}}";
        for (text, count) in [
            (one.to_owned(), 1),
            (
                format!(
                    "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{one}, {one}]}}"
                ),
                2,
            ),
            (format!("{one}\n---\n{one}\n---\n"), 2),
            ("kind: SecretList\nitems:\n- data: {a: AA==}\n".to_owned(), 1),
        ] {
            let objects = objects(text.as_bytes()).unwrap();
            assert_eq!(objects.iter().filter(|one| one.is_secret()).count(), count, "{text}");
        }
    }

    #[test]
    fn values_come_as_they_are() {
        let text = "data:\n  a: /wA=\n  b: |\n    /w\n    A=\n  c:\nstringData:\n  a: no\n  d: 007\n  \
                    e: \"\\ud83d\\ude00\"\n";
        let expected: [(&str, &[u8]); 5] =
            [("a", b"no"), ("b", &[0xff, 0]), ("c", b""), ("d", b"007"), ("e", "😀".as_bytes())];
        assert_eq!(values(text), expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
    }

    #[test]
    fn what_is_wrong_is_located_and_no_value_is_shown() {
        let object = &mut objects(b"data:\n  a: AA==\n  b: canary!\n  c: also\xc3\xa9\n").unwrap();
        let problems = object.remove(0).values().err().unwrap();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("line 3: b is not Base64"), "{problems:?}");
        for text in [
            "data: canary\n",
            "data: {a: [canary]}\n",
            "a: {\ncanary\n",
            "data:\n  a: canary\n  a: b\n",
        ] {
            let problem = objects(text.as_bytes()).err().unwrap();
            assert!(problem.starts_with("line ") && !problem.contains("canary"), "{problem}");
        }
    }

    #[test]
    fn aliases_expand_to_no_more_than_a_file_may_hold() {
        let text = "metadata: {name: &a app}\nstringData: {x: &b hush, y: *b, z: *a}\n";
        let expected = [("x", "hush"), ("y", "hush"), ("z", "app")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(values(text), expected);
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = vec![format!("*l{}", level - 1); 10].join(", ");
            bomb += &format!("l{level}: &l{level} [{below}]\n");
        }
        let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), vec!["*a"; 90].join(", "));
        for bomb in [bomb, wide] {
            let problem = objects(bomb.as_bytes()).err().unwrap();
            assert!(problem.starts_with("line ") && problem.len() < 200, "{problem}");
        }
    }
}
