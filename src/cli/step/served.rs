//! `exec --serve`: what a command is served.

use std::sync::Arc;

use super::agent::SshAgent;
use super::listener::{GitAddress, HttpAddress, HttpServed, Listener, Place, RelayInput};
use crate::cli::identity::session::Session;
use crate::cli::io::failure::Failure;
use crate::mask::Masks;
use crate::model::Reference;

/// One `--serve`.
#[derive(Debug, PartialEq, Eq)]
pub enum ServeArgument {
    /// At the address on this machine.
    Http(HttpServed),
    /// An agent of ssh, for the key of this connection.
    Ssh(Reference),
}

impl ServeArgument {
    /// Parses `NAME=REF`, or `NAME` alone for the default connection; `git=HOST=REF`, `http=VARIABLE=REF`, and `relay`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (name, reference) = match text.split_once('=') {
            Some((name, reference)) => (name, Some(reference)),
            None => (text, None),
        };
        let reference_or = |default: &str| reference.unwrap_or(default).parse::<Reference>();
        match (name, reference) {
            ("git", Some(rest)) => Ok(Self::Http(HttpServed::Git(GitAddress::parse(rest)?))),
            ("http", Some(rest)) => Ok(Self::Http(HttpServed::Api(HttpAddress::parse(rest)?))),
            ("aws", _) => Ok(Self::Http(HttpServed::Aws(reference_or("default:aws")?))),
            ("ssh", _) => Ok(Self::Ssh(reference_or("default:ssh")?)),
            ("relay", None) => Ok(Self::Http(HttpServed::Relay)),
            _ => Err(Failure::usage(format!(
                "--serve {text}: there are aws=REF and ssh=REF (or aws and ssh, for the default connection), git=REF, http=REF, \
                 and relay"
            ))),
        }
    }
}

/// What the command is served, until this is dropped.
pub struct Served {
    listener: Option<Listener>,
    agent: Option<SshAgent>,
}

impl Served {
    /// Serves all of this, for one user or for the user of this process. A refusal shows before the command runs.
    pub async fn start(
        arguments: Vec<ServeArgument>,
        relay: Option<RelayInput>,
        session: &Arc<Session>,
        masks: Option<Arc<Masks>>,
        place: Place,
    ) -> Result<Self, Failure> {
        let (mut http, mut keys) = (Vec::new(), Vec::new());
        for argument in arguments {
            match argument {
                ServeArgument::Http(served) => http.push(served),
                ServeArgument::Ssh(reference) => keys.push(reference),
            }
        }
        if keys.len() > 1 {
            return Err(Failure::usage("--serve ssh is given twice; a command has one key"));
        }
        let uid = place.uid;
        let listener = match http.is_empty() {
            true => None,
            false => {
                let session = Arc::clone(session);
                Some(Listener::start(http, relay, session, masks, place).await?)
            }
        };
        let agent = match keys.pop() {
            None => None,
            Some(key) => Some(SshAgent::start(key, Arc::clone(session), uid).await?),
        };
        Ok(Self { listener, agent })
    }

    /// The variables by which tools find it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let of_listener = self.listener.iter().flat_map(Listener::variables);
        of_listener.chain(self.agent.iter().flat_map(SshAgent::variables)).collect()
    }

    /// The IP address of the listener, if there is one.
    pub fn host(&self) -> Option<String> {
        self.listener.as_ref().map(Listener::host)
    }

    /// Variables that tools would prefer to those of [`Served::variables`].
    pub fn shadowing(&self) -> Vec<String> {
        self.listener.iter().flat_map(Listener::shadowing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_serve_is_understood() {
        let parse = |text: &str| ServeArgument::parse(text).ok();
        let reference = |text: &str| text.parse::<Reference>().unwrap();
        assert_eq!(parse("aws=aws/a=b"), None);
        let aws = HttpServed::Aws(reference("aws/a"));
        assert_eq!(parse("aws=aws/a"), Some(ServeArgument::Http(aws)));
        let ssh = ServeArgument::Ssh(reference("group:keys:env=prod"));
        assert_eq!(parse("ssh=group:keys:env=prod"), Some(ssh));
        assert_eq!(parse("ssh"), Some(ServeArgument::Ssh(reference("default:ssh"))));
        assert_eq!(parse("relay"), Some(ServeArgument::Http(HttpServed::Relay)));
        assert_eq!(parse("relay=x"), None);
        let api = |text: &str| {
            Some(ServeArgument::Http(HttpServed::Api(HttpAddress::parse(text).unwrap())))
        };
        assert_eq!(parse("http=API_URL=http/api"), api("API_URL=http/api"));
        assert_eq!((parse("http"), parse("git"), parse("git=http/api")), (None, None, None));
        let git = HttpServed::Git(GitAddress::parse("github/main").unwrap());
        assert_eq!(parse("git=github/main"), Some(ServeArgument::Http(git)));
        assert!(ServeArgument::parse("vault").unwrap_err().message.contains("there are aws"));
    }
}
