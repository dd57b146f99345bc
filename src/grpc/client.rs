//! A channel to a door, for the CLI and the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::identity::{ClientIdentity, ConnectError, TlsClientStream, connect_heard};

/// Connects to the door behind a Unix socket, and connects again whenever the connection is lost.
///
/// # Errors
/// If the first connection fails.
pub async fn channel(socket: &Path, identity: ClientIdentity) -> Result<Channel, ConnectError> {
    let identity = Arc::new(identity);
    // The first connection is made here, so that its error is returned as it is.
    let first = connect_heard(socket, &identity).await?;
    let path: PathBuf = socket.to_owned();
    let mut first = Some(first);
    let connector = service_fn(move |_: Uri| {
        let (made, path, identity) = (first.take(), path.clone(), Arc::clone(&identity));
        async move {
            let stream: TlsClientStream = match made {
                Some(stream) => stream,
                None => connect_heard(&path, &identity).await?,
            };
            Ok::<_, ConnectError>(TokioIo::new(stream))
        }
    });
    // The address stands for the socket: its host is the name in the certificate and :authority. HTTP/2 starts at once,
    // because the broker waits only briefly for the preface.
    let endpoint = Endpoint::from_static("https://localhost");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| ConnectError::Io(std::io::Error::other(error)))
}
