//! One connection to the agent.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::signing::SigningConnection;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::ssh::{AgentRequest, Identity, MAX_MESSAGE_BYTES, failure, identities, signed, success};

/// How long a client may take between two requests. ssh asks for keys and signatures within one login.
const IDLE: Duration = Duration::from_secs(120);
/// How long a request may take to arrive, and an answer to leave.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers the requests of a client until it hangs up, is idle, or sends what is no request.
pub async fn answer(mut stream: UnixStream, signing: &SigningConnection) {
    let mut is_forwarded = false;
    while let Ok(Some(message)) = read(&mut stream).await {
        let request = AgentRequest::parse(&message);
        let answer = match request {
            Ok(AgentRequest::Bind { is_forwarded: forwards }) => {
                is_forwarded |= forwards;
                success()
            }
            // Another host asks, to which the step has logged in by ssh -A.
            Ok(_) if is_forwarded => failure(),
            Ok(AgentRequest::Identities) => list(signing).await,
            Ok(AgentRequest::Sign { data }) => sign(signing, data).await,
            Ok(AgentRequest::Other) | Err(_) => failure(),
        };
        let written = timeout(MESSAGE_TIMEOUT, stream.write_all(&answer)).await;
        if request.is_err() || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next message, without its length; `None` if the client has hung up.
async fn read(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let length = match timeout(IDLE, stream.read_u32()).await? {
        Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    timeout(MESSAGE_TIMEOUT, stream.read_exact(&mut message)).await??;
    Ok(Some(message))
}

async fn list(signing: &SigningConnection) -> Vec<u8> {
    match signing.key().await {
        Ok(key) => {
            let comment = key.name.strip_prefix("connections/").unwrap_or(&key.name).to_owned();
            identities(&[Identity { public_key: key.public_key, comment }])
        }
        Err(error) => refused(&error),
    }
}

async fn sign(signing: &SigningConnection, data: &[u8]) -> Vec<u8> {
    match signing.sign(data).await {
        Ok(signature) => signed(&signature),
        Err(error) => refused(&error),
    }
}

/// ssh learns only that the agent refuses. stderr says why.
fn refused(error: &Failure) -> Vec<u8> {
    say(&format!("ssh: {}: {}", error.reason, error.message));
    failure()
}
