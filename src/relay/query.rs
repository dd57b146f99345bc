//! A client's query of a spec, in one of Relay's four languages. Only paths are supported: steps use nothing else.

use std::str::FromStr;

use super::expression;
use super::path::{Segment, plain};
use super::spec::{TemplatePart, parts};

/// A query language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `aws["connection"].region`
    Path,
    /// `in ${aws.region}`
    PathTemplate,
    /// `$.aws.region`
    JsonPath,
    /// `in {.aws.region}`
    JsonPathTemplate,
}

impl FromStr for Language {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "" | "path" => Ok(Self::Path),
            "path-template" => Ok(Self::PathTemplate),
            "jsonpath" => Ok(Self::JsonPath),
            "jsonpath-template" => Ok(Self::JsonPathTemplate),
            _ => Err("the query languages are path, path-template, jsonpath and jsonpath-template"
                .to_owned()),
        }
    }
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The value at a path.
    Path(Vec<Segment>),
    /// A text of several pieces.
    Text(Vec<QueryPiece>),
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryPiece {
    /// Plain text.
    Text(String),
    /// The value at a path.
    Path(Vec<Segment>),
}

const ONLY_PATHS: &str = "only paths of names and numbers can be asked for, such as aws.connection";

impl Query {
    /// Everything.
    pub fn everything() -> Self {
        Self::Path(Vec::new())
    }

    /// The value of one key.
    pub fn key(name: &str) -> Self {
        Self::Path(vec![Segment::Key(name.to_owned())])
    }

    /// Parses a query; an empty query asks for everything.
    ///
    /// # Errors
    /// If it is malformed, or more than a path.
    pub fn parse(text: &str, language: Language) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Path(Vec::new()));
        }
        let pieces = match language {
            Language::Path => {
                let path = plain(&expression::parse(text)?);
                return path.map(Self::Path).ok_or_else(|| ONLY_PATHS.to_owned());
            }
            Language::JsonPath => return json_path(text).map(Self::Path),
            Language::PathTemplate => {
                let piece = |part| match part {
                    TemplatePart::Text(text) => Ok(QueryPiece::Text(text)),
                    TemplatePart::Expression(expression) => plain(&expression)
                        .map(QueryPiece::Path)
                        .ok_or_else(|| ONLY_PATHS.to_owned()),
                };
                parts(text)?.into_iter().map(piece).collect::<Result<Vec<_>, _>>()?
            }
            Language::JsonPathTemplate => json_path_pieces(text)?,
        };
        match <[QueryPiece; 1]>::try_from(pieces) {
            // A single path keeps the type of its value.
            Ok([QueryPiece::Path(path)]) => Ok(Self::Path(path)),
            Ok(pieces) => Ok(Self::Text(pieces.into())),
            Err(pieces) => Ok(Self::Text(pieces)),
        }
    }
}

/// `$.a.b[0]['c']`; the `$` and the first dot may be missing.
fn json_path(text: &str) -> Result<Vec<Segment>, String> {
    let text = text.trim();
    let rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    if rest.is_empty() || rest == "." {
        return Ok(Vec::new());
    }
    let is_plain = !rest.contains(['*', '?', ':', ',']) && !rest.contains("..");
    // After the root, the syntax is that of the other language.
    let separator = if rest.starts_with(['.', '[']) { "" } else { "." };
    let parsed = is_plain.then(|| expression::parse(&format!("${separator}{rest}")).ok()).flatten();
    parsed.and_then(|expression| plain(&expression)).ok_or_else(|| ONLY_PATHS.to_owned())
}

fn json_path_pieces(text: &str) -> Result<Vec<QueryPiece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            pieces.push(QueryPiece::Text(before.to_owned()));
        }
        let (path, after) = after.split_once('}').ok_or("a { has no }")?;
        pieces.push(QueryPiece::Path(json_path(path)?));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(QueryPiece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<Segment> {
        names.iter().map(|name| Segment::Key((*name).to_owned())).collect()
    }

    #[test]
    fn the_same_path_is_asked_for_in_each_language() {
        let path = Query::Path(keys(&["aws", "connection", "accessKeyID"]));
        let same = [
            (Language::Path, "aws[\"connection\"][\"accessKeyID\"]"),
            (Language::Path, "aws.connection.accessKeyID"),
            (Language::PathTemplate, "${aws.connection.accessKeyID}"),
            (Language::JsonPath, "$.aws.connection.accessKeyID"),
            (Language::JsonPath, "$['aws'].connection.accessKeyID"),
            (Language::JsonPath, ".aws.connection.accessKeyID"),
            (Language::JsonPathTemplate, "{.aws.connection.accessKeyID}"),
            (Language::JsonPathTemplate, "{ $.aws.connection.accessKeyID }"),
        ];
        for (language, text) in same {
            assert_eq!(Query::parse(text, language).unwrap(), path, "{text}");
        }
        for language in ["", "path", "path-template", "jsonpath", "jsonpath-template"] {
            let everything = Query::parse("", language.parse().unwrap()).unwrap();
            assert_eq!(everything, Query::Path(Vec::new()));
        }
        assert_eq!(
            Query::parse("in {.a[0]}!", Language::JsonPathTemplate).unwrap(),
            Query::Text(vec![
                QueryPiece::Text("in ".into()),
                QueryPiece::Path(vec![Segment::Key("a".into()), Segment::Index(0)]),
                QueryPiece::Text("!".into()),
            ])
        );
    }

    #[test]
    fn a_query_that_is_not_a_path_is_refused() {
        for (language, text) in [
            (Language::Path, "a + b"),
            (Language::Path, "a[b]"),
            (Language::Path, "a."),
            (Language::JsonPath, "$..a"),
            (Language::JsonPath, "$.a[*]"),
            (Language::JsonPath, "$.a[?(@.b)]"),
            (Language::JsonPathTemplate, "{.a"),
            (Language::PathTemplate, "${a"),
        ] {
            assert!(Query::parse(text, language).is_err(), "{text}");
        }
        assert!("xpath".parse::<Language>().is_err());
    }
}
