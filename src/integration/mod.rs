//! The catalogue of integrations, a small data file each, and the check of credentials against it.

mod check;
mod checked;
mod claims;
mod expiry;
mod findings;
mod misplaced;
mod own;
mod pem;
mod placeholder;
mod released;
mod schema;
mod send;
mod source;
pub mod template;
mod whole;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use check::{check, infer_kind, value_problem};
pub use checked::{Checked, CheckedField, PresentField, PresentFields, Problem};
pub use claims::read_claims;
pub use expiry::token_end;
pub use findings::{Finding, Severity, doubts, findings, text_findings};
pub use own::check_own;
pub use pem::{needs_newline, with_last_newline};
pub use released::{
    FETCHED_TOKEN, can_mint, default_release, find_released_field, handed_out, kept, released,
    released_names, source_of,
};
pub use schema::{CredentialKind, FieldRule, Integration, ValueForm, find_field};
pub use send::render::{Rendered, render};
pub use send::{Login, SendRule};
pub use source::Source;

use crate::model::IntegrationName;

const FILES: [&str; 45] = [
    include_str!("data/4me.toml"),
    include_str!("data/anthropic.toml"),
    include_str!("data/asana.toml"),
    include_str!("data/aws.toml"),
    include_str!("data/azure.toml"),
    include_str!("data/circleci.toml"),
    include_str!("data/clickup.toml"),
    include_str!("data/cloudflare.toml"),
    include_str!("data/configcat.toml"),
    include_str!("data/datadog.toml"),
    include_str!("data/docker-registry.toml"),
    include_str!("data/fastly.toml"),
    include_str!("data/freshservice.toml"),
    include_str!("data/gcp.toml"),
    include_str!("data/gemini.toml"),
    include_str!("data/generic.toml"),
    include_str!("data/github.toml"),
    include_str!("data/gitlab.toml"),
    include_str!("data/grafana.toml"),
    include_str!("data/greynoise.toml"),
    include_str!("data/http.toml"),
    include_str!("data/jira.toml"),
    include_str!("data/kubernetes.toml"),
    include_str!("data/launchdarkly.toml"),
    include_str!("data/microsoft-teams.toml"),
    include_str!("data/mysql.toml"),
    include_str!("data/notion.toml"),
    include_str!("data/oauth2.toml"),
    include_str!("data/oci.toml"),
    include_str!("data/oidc.toml"),
    include_str!("data/okta.toml"),
    include_str!("data/openai.toml"),
    include_str!("data/opsgenie.toml"),
    include_str!("data/pagerduty.toml"),
    include_str!("data/postgres.toml"),
    include_str!("data/puppet.toml"),
    include_str!("data/sendgrid.toml"),
    include_str!("data/servicenow.toml"),
    include_str!("data/slack.toml"),
    include_str!("data/split.toml"),
    include_str!("data/ssh.toml"),
    include_str!("data/statsig.toml"),
    include_str!("data/statuspage.toml"),
    include_str!("data/sysdig.toml"),
    include_str!("data/virustotal.toml"),
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
                for field in kind.fields.iter().chain(&kind.minted) {
                    assert!(!field.description.is_empty(), "{}: {}", integration.name, field.name);
                    assert!(field.pattern().is_ok(), "{}: {}", integration.name, field.name);
                    // A part that can be read would reveal whether a sensitive whole has changed.
                    let whole = field.part_of.as_deref().map(|whole| find_field(kind, whole));
                    let is_part = whole.is_none_or(|whole| {
                        whole.is_some_and(|rule| !rule.sensitive || field.sensitive)
                    });
                    assert!(is_part && !(whole.is_some() && field.required), "{}", field.name);
                    let needed = field.with.iter().chain(&field.unless).chain(&kind.roots);
                    let stand_in = kind.web_identity.iter().map(|one| &one.field);
                    let needed = needed.chain(stand_in);
                    for needed in needed {
                        assert!(find_field(kind, needed).is_some(), "{}: {needed}", kind.name);
                    }
                }
            }
        }
    }
}
