//! `--from relay`: the connections and secrets of Puppet Relay's tools. A seed file may have that form, too.

use super::found::{Entry, Found};
use super::source::Source;
use super::wanted::Wanted;
use crate::cli::connection_view::bindings;
use crate::cli::seed::{self, Parsed, Seed, SeedContext, name_of};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// What the file becomes.
pub fn read(source: &Source, wanted: &Wanted) -> Found {
    let Ok(text) = std::str::from_utf8(&source.bytes) else {
        return Found::problem(format!("{}: this is not UTF-8", source.shown));
    };
    let context = SeedContext { workflow: wanted.workflow.as_deref(), default_resolver: None };
    let mut parsed = Parsed::default();
    seed::parse(text, &source.base, &source.shown, &context, &mut parsed);
    let (seeds, problems) = parsed.into_parts();
    let mut found = Found { problems, ..Found::default() };
    for Seed { mut document, .. } in seeds {
        match &mut document {
            Document::Connection(one) if one.access.is_empty() => {
                one.access = bindings([(pb::Relation::Resolver, wanted.resolvers.clone())]);
            }
            Document::Connection(_) | Document::Secret(_) => {}
            Document::Group(_) | Document::Integration(_) => {
                let text = format!("{}: this is a seed file: keyhatch apply -f FILE", source.shown);
                return Found::problem(text);
            }
        }
        let from = format!("{}: {}", source.shown, in_relay(&document));
        found.entries.push(Entry { from, document });
    }
    found
}

/// What Relay calls it.
fn in_relay(document: &Document) -> String {
    match document {
        Document::Connection(one) => format!("{}/{}", one.integration, one.name),
        Document::Secret(one) => one.name.clone(),
        other => name_of(other),
    }
}
