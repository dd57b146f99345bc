//! `--serve git`: git's requests to a host go to this address instead: git-config(1), `url.<base>.insteadOf` and
//! `GIT_CONFIG_COUNT`.

use super::variables::integration_of;
use crate::cli::io::failure::Failure;
use crate::integration::Integration;
use crate::model::Reference;

/// The service of an integration's repositories.
const SERVICE: &str = "git";
/// The variable with the number of entries: git-config(1).
const COUNT: &str = "GIT_CONFIG_COUNT";

/// One `--serve git`.
#[derive(Debug, PartialEq, Eq)]
pub struct GitAddress {
    /// The address that git is given, with a slash at its end.
    pub host: String,
    pub reference: Reference,
}

impl GitAddress {
    /// Parses `REF`, for the host of its integration, or `HOST=REF`. HOST may have `https://` before it and a path.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        // A group may have a = after its colons.
        let (host, reference) = match text.split_once('=') {
            Some((host, reference)) if !host.starts_with("group:") => (Some(host), reference),
            _ => (None, text),
        };
        let reference: Reference = reference.parse()?;
        let host = match host {
            Some(host) if host.contains("://") => host.to_owned(),
            Some(host) => format!("https://{host}"),
            None => integration_of(&reference).and_then(host_of).ok_or_else(|| {
                Failure::usage(format!(
                    "--serve git={reference}: its host is not known; name it, as in --serve git=git.example.com={reference}"
                ))
            })?,
        };
        if !host.starts_with("https://") && !host.starts_with("http://") {
            return Err(Failure::usage(format!("--serve git={host}: a host is https")));
        }
        Ok(Self { host: format!("{}/", host.trim_end_matches('/')), reference })
    }

    /// The service to ask for. The repositories of an integration that knows no such service are below its API.
    pub fn service(&self) -> &'static str {
        let found = integration_of(&self.reference);
        let is_known =
            found.is_none_or(|found| found.kinds.iter().any(|k| k.send(SERVICE).is_some()));
        if is_known { SERVICE } else { "" }
    }
}

/// The host of an integration's repositories, unless a connection says otherwise.
fn host_of(integration: &Integration) -> Option<String> {
    let mut rules = integration.kinds.iter().filter_map(|kind| kind.send(SERVICE));
    let address = rules.next()?.base_url.last()?;
    (!address.contains("{{")).then(|| address.clone())
}

/// The number of entries of git's configuration in the environment of this process.
pub fn inherited_entries() -> Result<usize, Failure> {
    let Some(count) = std::env::var_os(COUNT).filter(|count| !count.is_empty()) else {
        return Ok(0);
    };
    count.to_str().and_then(|count| count.trim().parse().ok()).ok_or_else(|| {
        Failure::usage(format!("{COUNT} is no number, and git would refuse it; unset it"))
    })
}

/// The variables that send git to these addresses. `inherited` is the number of entries that git has already, which stay.
/// git asks nobody for a password: an upstream that wants another credential is an error.
pub fn git_variables(
    addresses: &[(GitAddress, String)],
    inherited: usize,
) -> Vec<(String, String)> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let entries = addresses.iter().flat_map(|(address, url)| {
        [
            (format!("url.{url}/.insteadOf"), address.host.clone()),
            // The user's helpers and proxies are for others.
            (format!("credential.{url}.helper"), String::new()),
            (format!("http.{url}/.proxy"), String::new()),
        ]
    });
    let mut variables = Vec::new();
    let mut count = inherited;
    for (key, value) in entries {
        variables.push((format!("GIT_CONFIG_KEY_{count}"), key));
        variables.push((format!("GIT_CONFIG_VALUE_{count}"), value));
        count += 1;
    }
    variables.push((COUNT.to_owned(), count.to_string()));
    let quiet = [("GIT_TERMINAL_PROMPT", "0"), ("GIT_ASKPASS", "")];
    variables.extend(quiet.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_git_is_understood() {
        let parse = |text: &str| {
            GitAddress::parse(text).map(|address| {
                (address.host.clone(), address.reference.to_string(), address.service())
            })
        };
        let is = |host: &str, reference: &str, service| (host.into(), reference.into(), service);
        let github = is("https://github.com/", "github/main", "git");
        assert_eq!(parse("github/main").unwrap(), github);
        assert_eq!(parse("github.com=github/main").unwrap(), github);
        assert_eq!(
            parse("default:gitlab").unwrap(),
            is("https://gitlab.com/", "default:gitlab", "git")
        );
        let own = is("https://git.example.com/r/", "http/repositories", "");
        assert_eq!(parse("https://git.example.com/r/=http/repositories").unwrap(), own);
        let group = is("https://github.com/", "group:hosts:env=prod", "git");
        assert_eq!(parse("github.com=group:hosts:env=prod").unwrap(), group);
        for bad in ["http/repositories", "group:hosts:env=prod", "ssh://h=github/main", "secret:t"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_that_git_has_already_stay() {
        let address = GitAddress::parse("github/main").unwrap();
        let variables = git_variables(&[(address, "http://127.0.0.1:1/t".to_owned())], 2);
        let has = |name: &str, value: &str| {
            assert!(variables.contains(&(name.to_owned(), value.to_owned())), "{variables:?}");
        };
        has("GIT_CONFIG_COUNT", "5");
        has("GIT_CONFIG_KEY_2", "url.http://127.0.0.1:1/t/.insteadOf");
        has("GIT_CONFIG_VALUE_2", "https://github.com/");
        assert_eq!(git_variables(&[], 2), []);
    }
}
