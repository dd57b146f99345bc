//! A channel to a door, for the CLI and the tests.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::identity::{
    BrokerAddress, ClientIdentity, ConnectError, TlsClientStream, connect_heard,
};

/// Connects to a door, and connects again whenever the connection is lost.
///
/// # Errors
/// If the first connection fails.
pub async fn channel(
    address: impl Into<BrokerAddress>,
    identity: ClientIdentity,
) -> Result<Channel, ConnectError> {
    let (address, identity) = (address.into(), Arc::new(identity));
    let failed = |error| ConnectError::Io(std::io::Error::other(error));
    // The host is the name in the certificate and :authority. HTTP/2 starts at once, because the broker waits only
    // briefly for the preface.
    let endpoint = match &address {
        BrokerAddress::Socket(_) => Endpoint::from_static("https://localhost"),
        BrokerAddress::Remote(broker) => {
            Endpoint::from_shared(format!("https://{}", broker.address)).map_err(failed)?
        }
    };
    // The first connection is made here, so that its error is returned as it is.
    let mut first = Some(connect_heard(address.clone(), &identity).await?);
    let connector = service_fn(move |_: Uri| {
        let (made, address, identity) = (first.take(), address.clone(), Arc::clone(&identity));
        async move {
            let stream: TlsClientStream = match made {
                Some(stream) => stream,
                None => connect_heard(address, &identity).await?,
            };
            Ok::<_, ConnectError>(TokioIo::new(stream))
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(failed)
}
