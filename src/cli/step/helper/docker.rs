//! Docker's credential helpers: docker/docker-credential-helpers, "Development".

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use super::address::{Address, HTTPS, is_same_host};
use super::{Helping, read_stdin};
use crate::cli::identity::session::Session;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output;
use crate::cli::step::format::{Login, server_key};
use crate::cli::step::get::within;

/// The operations of Docker's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DockerOperation {
    /// The login of one registry.
    Get,
    /// All registries with their user names.
    List,
    /// Store a login.
    Store,
    /// Delete a login.
    Erase,
    /// This program's version.
    Version,
}

/// The error after which Docker goes on without a login. It belongs on stdout.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The error for a request without a registry.
const NO_SERVER: &str = "no credentials server URL";
/// The paths of a registry itself: the versions of its API. Docker uses other paths for other things, such as the
/// tokens of its own registry.
const PATHS: [&str; 3] = ["", "v1", "v2"];

/// Answers one request of Docker.
pub async fn run(helping: &Helping<'_>, operation: DockerOperation) -> Result<u8, Failure> {
    match operation {
        DockerOperation::Get => get(helping).await,
        DockerOperation::List => list(helping).await,
        DockerOperation::Erase => read_stdin().map(|_| 0),
        DockerOperation::Store => {
            read_stdin()?;
            let text =
                "keyhatch stores no logins of tools; an operator writes them into a connection";
            Err(Failure::new("READ_ONLY", text, exit::FAILED))
        }
        DockerOperation::Version => {
            output::line(concat!("keyhatch ", env!("CARGO_PKG_VERSION"))).map(|()| 0)
        }
    }
}

async fn get(helping: &Helping<'_>) -> Result<u8, Failure> {
    let question = read_stdin()?;
    let asked = question.trim();
    if asked.is_empty() {
        output::line(NO_SERVER)?;
        return Ok(exit::FAILED);
    }
    let Some(reference) = helping.answer_for(|whom| is_for(whom, asked)) else {
        output::line(NOT_FOUND)?;
        return Ok(exit::FAILED);
    };
    let credential = helping.resolve(reference).await?;
    let login = Login::for_helper(&credential, "helper docker")?;
    let answer =
        json!({ "ServerURL": asked, "Username": login.username, "Secret": login.password });
    output::line(&answer.to_string()).map(|()| 0)
}

/// Whether an answer is for the registry that Docker asks for. Docker names no protocol, whichever its configuration
/// has (insecure-registries, and registries on this machine).
fn is_for(whom: &str, asked: &str) -> bool {
    let [answer, question] = [whom, asked].map(Address::parse);
    let protocol = answer.protocol().unwrap_or(HTTPS);
    question.protocol().is_none_or(|asked| answer.is_of(asked))
        && question.user().is_none()
        && PATHS.contains(&question.path())
        && is_same_host(server_key(whom), server_key(asked), protocol)
}

/// Lists the logins by user name. A login that cannot be resolved is left out.
async fn list(helping: &Helping<'_>) -> Result<u8, Failure> {
    let session = Session::open(helping.common, helping.timeout);
    let listed = within(helping.timeout, async {
        let session = session.await?;
        let mut listed = Map::new();
        for answer in &helping.answers {
            let credential = match session.resolve(&answer.reference, Vec::new()).await {
                Ok(credential) => credential,
                Err(failure) if failure.is_of_the_connection() => return Err(failure),
                Err(_) => continue,
            };
            if let Ok(login) = Login::for_helper(&credential, "helper docker") {
                listed.insert(server_key(&answer.whom).to_owned(), json!(login.username));
            }
        }
        Ok(listed)
    });
    output::line(&Json::Object(listed.await?).to_string()).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::is_for;

    #[test]
    fn an_answer_is_for_its_registry_by_its_protocol() {
        assert!(is_for("registry.example", "registry.example"));
        assert!(is_for("registry.example", "https://registry.example/v2/"));
        assert!(is_for("https://registry.example", "registry.example"));
        assert!(is_for("docker.io", "https://index.docker.io/v1/"));
        assert!(is_for("http://127.0.0.1:5000", "127.0.0.1:5000"));
        assert!(is_for("http://127.0.0.1:5000", "http://127.0.0.1:5000"));
        assert!(!is_for("http://127.0.0.1:5000", "https://127.0.0.1:5000"));
        assert!(!is_for("registry.example", "http://registry.example"));
        assert!(!is_for("registry.example", "ftp://registry.example"));
        assert!(!is_for("registry.example", "registry.example:5000"));
        assert!(!is_for("", ""));
        assert!(is_for("registry.example", "Registry.Example:443"));
        assert!(is_for("Docker.io", "index.docker.io"));
        assert!(!is_for("registry.example", "u@registry.example"));
        for path in ["refresh-token", "access-token", "v1/refresh-token", "v3", "v1/../x"] {
            assert!(!is_for("docker.io", &format!("https://index.docker.io/{path}")), "{path}");
        }
    }
}
