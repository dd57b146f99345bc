//! The variables by which tools find an address of `--serve http`.

use crate::cli::io::failure::Failure;
use crate::cli::io::variable::is_variable_name;
use crate::integration::{self, CredentialKind, Integration};
use crate::model::{IntegrationName, Reference};

/// The variable that every such address has: the first one's.
const GENERAL: &str = "KEYHATCH_HTTP_URL";
/// What tools get that do not start without a credential. It is no secret, and never leaves this machine as one.
const PLACEHOLDER: &str = "kept-by-keyhatch";

/// One `--serve http`.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// The variable that the user has chosen. `None` for the integration's.
    pub variable: Option<String>,
    pub reference: Reference,
}

impl HttpAddress {
    /// Parses `REF` or `VARIABLE=REF`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (variable, reference) = match text.split_once('=') {
            Some((name, reference)) if is_variable_name(name) => (Some(name.to_owned()), reference),
            _ => (None, text),
        };
        Ok(Self { variable, reference: reference.parse()? })
    }
}

/// The variables for these addresses, each with its URL. Fails if an address has no variable but the general one, and is
/// not the first.
pub fn http_variables(
    addresses: &[(HttpAddress, String)],
) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for (index, (address, url)) in addresses.iter().enumerate() {
        let found = integration_of(&address.reference);
        let named = match (&address.variable, found) {
            (Some(variable), _) => vec![variable.clone()],
            (None, Some(found)) => customary(found),
            (None, None) => Vec::new(),
        };
        if index == 0 {
            variables.push((GENERAL.to_owned(), url.clone()));
        } else if named.is_empty() {
            let reference = &address.reference;
            return Err(Failure::usage(format!(
                "--serve http={reference}: {GENERAL} is the first address; name a variable for this one, as in \
                 --serve http=API_URL={reference}"
            )));
        }
        let placeholder = found.and_then(insisted_on);
        variables.extend(named.into_iter().map(|name| (name, url.clone())));
        variables.extend(placeholder.map(|name| (name, PLACEHOLDER.to_owned())));
    }
    Ok(variables)
}

/// The integration of a reference. `None` for a group, which does not tell, and for operators' own integrations.
pub fn integration_of(reference: &Reference) -> Option<&'static Integration> {
    let name: &IntegrationName = match reference {
        Reference::Connection(connection) => &connection.integration,
        Reference::Default(integration) => integration,
        Reference::Group(_) | Reference::Secret(_) => return None,
    };
    integration::find(name)
}

/// The variables from which programs read the address of an integration's API.
fn customary(integration: &Integration) -> Vec<String> {
    let mut variables = Vec::new();
    for kind in &integration.kinds {
        for rule in kind.sends.iter().filter(|rule| rule.service.is_empty()) {
            if !rule.variable.is_empty() && !variables.contains(&rule.variable) {
                variables.push(rule.variable.clone());
            }
        }
    }
    variables
}

/// The variable with the credential, if programs that read the address need one and there is only one.
fn insisted_on(integration: &Integration) -> Option<String> {
    let has_variable = |kind: &&CredentialKind| {
        kind.sends.iter().any(|rule| rule.service.is_empty() && !rule.variable.is_empty())
    };
    let kinds = integration.kinds.iter().filter(has_variable);
    let fields = kinds.flat_map(|kind| kind.fields.iter().chain(&kind.minted));
    let secret = fields.filter(|field| field.sensitive && !field.root && !field.env.is_empty());
    let mut variables: Vec<&String> = secret.map(|field| &field.env).collect();
    variables.dedup();
    match variables.as_slice() {
        [only] => Some((*only).clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(references: &[&str]) -> Result<Vec<String>, Failure> {
        let addresses: Vec<_> = references
            .iter()
            .map(|text| (HttpAddress::parse(text).unwrap(), "http://127.0.0.1:1/t".to_owned()))
            .collect();
        let variables = http_variables(&addresses)?;
        Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn an_address_has_the_variables_of_its_integration() {
        let url = "http://127.0.0.1:1/t";
        let general = format!("KEYHATCH_HTTP_URL={url}");
        for (reference, others) in [
            ("http/api", &[][..]),
            ("default:openai", &["OPENAI_BASE_URL", "OPENAI_API_KEY"]),
            ("github/main", &["GITHUB_API_URL", "GITHUB_TOKEN"]),
            // Its two kinds have a variable each, and the kind is not known.
            ("cloudflare/main", &["CLOUDFLARE_BASE_URL"]),
            ("API_URL=http/api", &["API_URL"]),
            ("group:apis:env=prod", &[]),
            ("API_URL=group:apis:env=prod", &["API_URL"]),
        ] {
            let others = others.iter().map(|name| match name.ends_with("_URL") {
                true => format!("{name}={url}"),
                false => format!("{name}={PLACEHOLDER}"),
            });
            let expected: Vec<_> = std::iter::once(general.clone()).chain(others).collect();
            assert_eq!(variables(&[reference]).unwrap(), expected, "{reference}");
        }
    }

    #[test]
    fn a_second_address_needs_a_variable_of_its_own() {
        assert!(variables(&["http/a", "http/b"]).is_err());
        assert!(
            variables(&["http/a", "B_URL=http/b"]).unwrap().iter().any(|v| v.starts_with("B_URL="))
        );
    }
}
