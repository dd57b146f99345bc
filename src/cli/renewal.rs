//! Certificates of operators and executors are renewed by whoever uses them, once two thirds of their life
//! are over: for the same key, and with the certificate's file replaced in place.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tonic::transport::Channel;

use super::endpoint::Endpoint;
use super::failure::{Failure, exit};
use super::output::say;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::identity::{Svid, request_for};
use crate::model::{Clock, SpiffeId};

/// Renews the certificate if it is an operator's or executor's and due. That it cannot be is only said: it
/// is good for another while.
pub(super) async fn renew_if_due(endpoint: &Endpoint, channel: &Channel) {
    let Ok(svid) = certificate_of(endpoint) else { return };
    let is_ours = matches!(svid.id, SpiffeId::Operator(_) | SpiffeId::Executor(_));
    if !is_ours || Clock::system().now() < svid.renewal() {
        return;
    }
    if let Err(failure) = renew(endpoint, channel, &svid).await {
        say(&format!(
            "this certificate ends at {} and could not be renewed: {}",
            svid.not_after, failure.message
        ));
    }
}

/// Renews the certificate, and says whose it is and how long it lasts now.
///
/// # Errors
/// If the broker refuses, or the file cannot be replaced.
pub(super) async fn renew_now(endpoint: &Endpoint, channel: &Channel) -> Result<Svid, Failure> {
    renew(endpoint, channel, &certificate_of(endpoint)?).await?;
    certificate_of(endpoint)
}

async fn renew(endpoint: &Endpoint, channel: &Channel, old: &Svid) -> Result<(), Failure> {
    let directory = endpoint.certificate.parent().unwrap_or(Path::new("."));
    let unwritable = |error: std::io::Error| {
        let text = format!("{} cannot be written ({error})", directory.display());
        Failure::new("IDENTITY_READ_ONLY", text, exit::FAILED)
    };
    // Made first: a certificate that nobody can keep is not to be issued.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(unwritable)?;
    // Of many commands at once, one renews, and the others find it done.
    let locked = File::open(directory).map_err(unwritable)?;
    flock(&locked, FlockOperation::LockExclusive).map_err(|error| unwritable(error.into()))?;
    if certificate_of(endpoint)?.sha256 != old.sha256 {
        return Ok(());
    }
    let key = endpoint.read_key()?;
    let csr = request_for(&key)
        .map_err(|error| Failure::new("IDENTITY_INVALID", error.to_string(), exit::FAILED))?;
    let request = pb::RenewCertificateRequest { csr: csr.into_bytes() };
    let mut client = SystemServiceClient::new(channel.clone());
    let renewed = client.renew_certificate(request).await?.into_inner();
    let written = || {
        file.write_all(renewed.certificate_chain.as_bytes())?;
        file.as_file().set_permissions(Permissions::from_mode(0o444))?;
        file.as_file().sync_all()?;
        file.persist(&endpoint.certificate).map_err(|error| error.error)
    };
    written().map(drop).map_err(unwritable)
}

pub(super) fn certificate_of(endpoint: &Endpoint) -> Result<Svid, Failure> {
    Svid::parse_own(&endpoint.read_certificate()?).map_err(|error| {
        let text = format!("{}: {error}", endpoint.certificate.display());
        Failure::new("IDENTITY_INVALID", text, exit::FAILED)
    })
}
