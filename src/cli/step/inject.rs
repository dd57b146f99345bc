//! `keyhatch inject`: fills a template that holds references with their values.
//!
//! ```text
//! password = {{ postgres/main:password }}
//! token    = {{ secret:token }}
//! literal  = {{ "{{" }} name }}
//! ```
//!
//! Values are written as they are, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Stat, fstat, stat};
use rustix::stdio::stdin;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::exec::{MAX_FILE_BYTES, ValueReference};
use super::get::within;
use crate::cli::Common;
use crate::cli::identity::session::{FieldSelection, Session};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output;
use crate::cli::io::output::Output;
use crate::cli::io::private_file::write_private;
use crate::cli::io::time::parse_duration;
use crate::integration::template::{TextPart, parts};
use crate::sys::input;

/// The most values of a template, and the longest result, in bytes.
const MOST_VALUES: usize = 1000;
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The text between `{{` and `}}` for a literal `{{`.
const BRACES: &str = "\"{{\"";
/// Names stdin or stdout.
const STREAM: &str = "-";

/// Arguments of `inject`.
#[derive(clap::Args)]
pub struct Inject {
    /// The template, or - for stdin: {{ REF:FIELD }} and {{ secret:NAME }} become values, {{ "{{" }} becomes {{. A
    /// template holds no values, so it can be committed.
    #[arg(short = 'i', long = "in", value_name = "TEMPLATE")]
    template: PathBuf,
    /// The result, or - for stdout. The file is replaced as a whole once all values are there. It keeps its owner,
    /// group and mode if others may not read it, and gets mode 0600 otherwise. It cannot be the template.
    #[arg(short = 'o', long = "out", alias = "output", value_name = "FILE", default_value = STREAM)]
    out: PathBuf,
    /// How long the broker may take. The command retries while the broker restarts.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Replaces the global option, because -o names a file here.
    #[arg(long = "form", value_enum, default_value_t, hide = true)]
    output: Output,
}

/// A parsed template.
struct InjectTemplate<'a> {
    pieces: Vec<TemplatePiece<'a>>,
    values: Vec<ValueReference>,
}

enum TemplatePiece<'a> {
    Text(&'a str),
    /// The index of a value.
    Value(usize),
}

impl Inject {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        // The field only keeps -o from having two meanings.
        let _ = self.output;
        let text = read(&self.template)?;
        if self.is_in_place() {
            let text = format!(
                "{} is the template itself, whose references would be lost: name another file",
                self.out.display()
            );
            return Err(Failure::usage(text));
        }
        let template = InjectTemplate::parse(&text).map_err(|(line, wrong)| {
            let name = self.template.to_string_lossy();
            let name = if name == STREAM { "stdin".into() } else { name };
            Failure::usage(format!("{name}:{line}: {wrong}"))
        })?;
        let credentials = within(self.timeout, template.resolve(common, self.timeout)).await?;
        let filled = template.fill(&credentials)?;
        match self.out == Path::new(STREAM) {
            true => output::write(&filled),
            false => write_private(&self.out, &filled),
        }
    }

    /// Whether the result would replace the template, also under another name.
    fn is_in_place(&self) -> bool {
        let template = match input::is_stdin(&self.template) {
            true => fstat(stdin()),
            false => stat(&self.template),
        };
        let of = |file: Stat| (file.st_dev, file.st_ino);
        let out = stat(&self.out).map(of).ok();
        self.out != Path::new(STREAM) && out.is_some() && out == template.map(of).ok()
    }
}

impl<'a> InjectTemplate<'a> {
    /// Fails with a line and what is wrong there. The text of the line may be a value, and is not in the error.
    fn parse(text: &'a str) -> Result<Self, (usize, String)> {
        let (mut pieces, mut values, mut numbers) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut line = 1;
        for part in parts(text) {
            let text = match part {
                TextPart::Text(text) => {
                    pieces.push(TemplatePiece::Text(text));
                    text
                }
                TextPart::Reference(text) if text.trim() == BRACES => {
                    pieces.push(TemplatePiece::Text("{{"));
                    text
                }
                TextPart::Reference(text) => {
                    let next = values.len();
                    let number = *numbers.entry(text.trim()).or_insert(next);
                    if number == next {
                        values.push(ValueReference::parse(text.trim()).map_err(|_| {
                            (line, "between {{ and }} stands REF:FIELD or secret:NAME, such as {{ aws/prod:region }}; \
                                    {{ \"{{\" }} stands for {{".to_owned())
                        })?);
                    }
                    pieces.push(TemplatePiece::Value(number));
                    text
                }
                TextPart::Unclosed => return Err((line, "a {{ has no }}".to_owned())),
            };
            if values.len() > MOST_VALUES {
                return Err((line, format!("more than {MOST_VALUES} different values")));
            }
            line += text.matches('\n').count();
        }
        Ok(Self { pieces, values })
    }

    /// Resolves all values, each connection in one version.
    async fn resolve(
        &self,
        common: &Common,
        timeout: Duration,
    ) -> Result<Vec<Arc<Credential>>, Failure> {
        let session = Session::open(common, timeout).await?;
        let selections: Vec<FieldSelection<'_>> =
            self.values.iter().map(ValueReference::selection).collect();
        session.resolve_all(&selections).await
    }

    fn fill(&self, credentials: &[Arc<Credential>]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let values =
            self.values.iter().zip(credentials).map(|(value, credential)| value.of(credential));
        let values: Vec<_> = values.collect();
        let bytes = |piece: &TemplatePiece<'a>| match piece {
            TemplatePiece::Text(text) => text.as_bytes(),
            TemplatePiece::Value(number) => values.get(*number).copied().unwrap_or_default(),
        };
        let length: usize = self.pieces.iter().map(|piece| bytes(piece).len()).sum();
        if length > MOST_BYTES {
            let text = format!(
                "filled, the template has {length} bytes; at most {MOST_BYTES} are written"
            );
            return Err(Failure::new("TOO_LARGE", text, exit::FAILED));
        }
        let mut filled = Zeroizing::new(Vec::with_capacity(length));
        self.pieces.iter().for_each(|piece| filled.extend_from_slice(bytes(piece)));
        Ok(filled)
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = input::named(path, MAX_FILE_BYTES).and_then(input::text);
    text.map_err(|error| Failure::usage(format!("--in {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_and_errors_name_their_line() {
        let template = InjectTemplate::parse(
            "a={{ aws/prod:region }}\n{{secret:t}}{{ aws/prod:region }} {{ \"{{\" }} x }}",
        );
        let template = template.ok().unwrap();
        assert_eq!(template.values.len(), 2);
        let filled = template.pieces.iter().map(|piece| match piece {
            TemplatePiece::Text(text) => (*text).to_owned(),
            TemplatePiece::Value(number) => format!("<{number}>"),
        });
        assert_eq!(filled.collect::<String>(), "a=<0>\n<1><0> {{ x }}");
        for (bad, line) in [
            ("a\n{{ hunter2 }}", 2),
            ("{{\n}}\n{{ aws/prod:region", 1),
            ("{{ secret:t\n}}\n{{", 3),
            ("{{ aws/prod }}", 1),
            ("{{ .Values.x }}", 1),
        ] {
            let (found, wrong) = InjectTemplate::parse(bad).err().unwrap();
            assert!(found == line && !wrong.contains("hunter2"), "{bad}: {found}: {wrong}");
        }
        let many = |count: usize| (0..count).map(|n| format!("{{{{ secret:s{n} }}}}")).collect();
        let text: String = many(MOST_VALUES + 1);
        assert!(InjectTemplate::parse(&text).is_err());
        let text: String = many(MOST_VALUES);
        assert!(InjectTemplate::parse(&text).is_ok());
    }
}
