//! Docker's credential helpers: docker/docker-credential-helpers, "Development".

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use super::{Helping, read_stdin};
use crate::cli::failure::{Failure, exit};
use crate::cli::format::{Login, server_key};
use crate::cli::get::within;
use crate::cli::output;
use crate::cli::session::Session;

/// What Docker asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// The login of one registry.
    Get,
    /// Every registry with its user name.
    List,
    /// Keep a login.
    Store,
    /// Forget a login.
    Erase,
    /// This program's version.
    Version,
}

/// The words by which Docker knows that it may go on without a login. They belong on stdout.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Answers one question.
pub async fn run(helping: &Helping<'_>, operation: Operation) -> Result<u8, Failure> {
    match operation {
        Operation::Get => get(helping).await,
        Operation::List => list(helping).await,
        Operation::Erase => read_stdin().map(|_| 0),
        Operation::Store => {
            read_stdin()?;
            let text =
                "keyhatch keeps no logins of its own; an operator writes them into a connection";
            Err(Failure::new("READ_ONLY", text, exit::FAILED))
        }
        Operation::Version => {
            output::line(concat!("keyhatch ", env!("CARGO_PKG_VERSION"))).map(|()| 0)
        }
    }
}

async fn get(helping: &Helping<'_>) -> Result<u8, Failure> {
    let question = read_stdin()?;
    let asked = question.trim();
    let matches = |whom: &str| !whom.is_empty() && server_key(whom) == server_key(asked);
    let Some(reference) = helping.answer_for(matches) else {
        output::line(NOT_FOUND)?;
        return Ok(exit::FAILED);
    };
    let credential = helping.resolve(reference).await?;
    let login = Login::for_helper(&credential, "helper docker")?;
    let answer =
        json!({ "ServerURL": asked, "Username": login.username, "Secret": login.password });
    output::line(&answer.to_string()).map(|()| 0)
}

/// Docker lists logins to name them; one that cannot be had is none.
async fn list(helping: &Helping<'_>) -> Result<u8, Failure> {
    let session = Session::open(helping.common);
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
