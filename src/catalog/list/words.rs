//! The fields that filters know of each resource.

use std::collections::BTreeSet;

use super::filter::{Field, Filtered};
use crate::access::Bindings;
use crate::catalog::{ConnectionMetadata, GroupMetadata, SecretMetadata};
use crate::model::{Id, Labels, Release, TagKey};

impl Filtered for ConnectionMetadata {
    const RULE: &'static str = "write terms such as kind = access_key, tags.env != prod, labels.team = a* or text : part, with \
                                AND between them; fields: name, text, integration, kind, group, principal, stale, \
                                disabled, default, release, mintable, reauthorize, updated_by, tags.KEY, labels.KEY";

    fn field(name: &str) -> Option<Field> {
        match name {
            "default" => Some(Field::Default),
            "disabled" => Some(Field::Disabled),
            "group" => Some(Field::Group),
            "integration" => Some(Field::Integration),
            "kind" => Some(Field::Kind),
            "mintable" => Some(Field::Mintable),
            "principal" => Some(Field::Principal),
            "reauthorize" => Some(Field::Reauthorize),
            "release" => Some(Field::Release),
            "stale" => Some(Field::Stale),
            _ => match name.strip_prefix("tags.") {
                Some(key) => TagKey::parse(key).ok().map(Field::Tag),
                None => of_all(name).or_else(|| label(name)),
            },
        }
    }

    fn any(&self, field: &Field, scratch: &mut String, mut test: impl FnMut(&str) -> bool) -> bool {
        let truth = |is: bool| if is { "true" } else { "false" };
        match field {
            Field::Default => test(truth(self.is_default)),
            Field::Disabled => test(truth(self.disabled)),
            Field::Integration => test(self.integration.as_str()),
            Field::Kind => test(self.kind.as_str()),
            Field::Label(key) => self.labels.value(key).is_some_and(test),
            Field::Mintable => test(truth(self.is_mintable())),
            Field::Name => test(self.name.as_str()),
            Field::Principal => any_principal(&self.access, test),
            Field::Reauthorize => test(truth(self.unusable().is_some())),
            Field::Release => test(match self.release {
                Release::Minted => "minted",
                Release::Stored => "stored",
            }),
            Field::Tag(key) => self.tags.value(key).is_some_and(|value| test(value.as_str())),
            Field::Text => {
                scratch.clear();
                scratch.extend([self.integration.as_str(), "/", self.name.as_str()]);
                for (key, value) in self.tags.pairs() {
                    scratch.extend(["\0", key.as_str(), ":", value.as_str()]);
                }
                push_labels(&self.labels, scratch);
                test(scratch)
            }
            Field::UpdatedBy => test(&self.updated_by),
            _ => false,
        }
    }

    fn access(&self) -> Option<&Bindings> {
        Some(&self.access)
    }

    fn groups(&self) -> Option<&BTreeSet<Id>> {
        Some(&self.groups)
    }
}

impl Filtered for GroupMetadata {
    const RULE: &'static str = "write terms such as integration = aws, labels.team = a* or text : part, with AND between them; fields: name, \
         text, integration, identifier, principal, updated_by, labels.KEY";

    fn field(name: &str) -> Option<Field> {
        match name {
            "identifier" => Some(Field::Identifier),
            "integration" => Some(Field::Integration),
            "principal" => Some(Field::Principal),
            _ => of_all(name).or_else(|| label(name)),
        }
    }

    fn any(&self, field: &Field, scratch: &mut String, mut test: impl FnMut(&str) -> bool) -> bool {
        match field {
            Field::Identifier => self.identifiers.iter().any(|key| test(key.as_str())),
            Field::Integration => test(self.integration.as_str()),
            Field::Label(key) => self.labels.value(key).is_some_and(test),
            Field::Name => test(self.name.as_str()),
            Field::Principal => any_principal(&self.access, test),
            Field::Text => {
                scratch.clear();
                scratch.push_str(self.name.as_str());
                for key in self.identifiers.iter() {
                    scratch.extend(["\0", key.as_str()]);
                }
                push_labels(&self.labels, scratch);
                test(scratch)
            }
            Field::UpdatedBy => test(&self.updated_by),
            _ => false,
        }
    }

    fn access(&self) -> Option<&Bindings> {
        Some(&self.access)
    }
}

impl Filtered for SecretMetadata {
    const RULE: &'static str = "write terms such as name = token*, workflow = deploy or text : part, with AND between them; fields: name, text, \
         workflow, updated_by";

    fn field(name: &str) -> Option<Field> {
        match name {
            "workflow" => Some(Field::Workflow),
            _ => of_all(name),
        }
    }

    fn any(&self, field: &Field, scratch: &mut String, mut test: impl FnMut(&str) -> bool) -> bool {
        match field {
            Field::Name => test(self.name.name.as_str()),
            Field::Text => {
                scratch.clear();
                scratch.extend([self.name.workflow.as_str(), "\0", self.name.name.as_str()]);
                test(scratch)
            }
            Field::UpdatedBy => test(&self.updated_by),
            Field::Workflow => test(self.name.workflow.as_str()),
            _ => false,
        }
    }
}

/// The fields that every resource has.
fn of_all(name: &str) -> Option<Field> {
    match name {
        "name" => Some(Field::Name),
        "text" => Some(Field::Text),
        "updated_by" => Some(Field::UpdatedBy),
        _ => None,
    }
}

fn label(name: &str) -> Option<Field> {
    name.strip_prefix("labels.").map(|key| Field::Label(key.to_owned()))
}

fn any_principal(access: &Bindings, mut test: impl FnMut(&str) -> bool) -> bool {
    access.iter().any(|(_, mut bound)| bound.any(|pattern| test(&pattern.to_text())))
}

/// No value contains the separator.
fn push_labels(labels: &Labels, text: &mut String) {
    for (key, value) in labels.as_map() {
        text.extend(["\0", key.as_str(), "=", value.as_str()]);
    }
}
