//! The catalogue of integrations: one small data file each, and the check of a credential against it.

mod check;
mod schema;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use check::{Checked, CheckedField, Problem, check, find_field, infer_kind};
pub use schema::{CredentialKind, FieldRule, Integration};

use crate::model::IntegrationName;

const FILES: [&str; 5] = [
    include_str!("data/aws.toml"),
    include_str!("data/generic.toml"),
    include_str!("data/github.toml"),
    include_str!("data/http.toml"),
    include_str!("data/slack.toml"),
];

/// Every built-in integration, by name.
pub fn built_in() -> &'static BTreeMap<IntegrationName, Integration> {
    static CATALOGUE: LazyLock<BTreeMap<IntegrationName, Integration>> = LazyLock::new(|| {
        let parsed = FILES.iter().filter_map(|text| toml::from_str::<Integration>(text).ok());
        parsed.map(|integration| (integration.name.clone(), integration)).collect()
    });
    &CATALOGUE
}

/// The integration of this name.
pub fn find(name: &IntegrationName) -> Option<&'static Integration> {
    built_in().get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_file_is_well_formed_and_every_field_explained() {
        for text in FILES {
            toml::from_str::<Integration>(text).unwrap();
        }
        assert_eq!(built_in().len(), FILES.len());
        for integration in built_in().values() {
            for kind in &integration.kinds {
                for field in &kind.fields {
                    assert!(!field.description.is_empty(), "{}: {}", integration.name, field.name);
                    assert!(field.pattern().is_ok(), "{}: {}", integration.name, field.name);
                }
            }
        }
    }
}
