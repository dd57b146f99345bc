//! Certificates of operators and executors are renewed by whoever uses them, once two thirds of their life
//! are over: for the same key, and with the certificate's file replaced in place. Root renews those of others as their
//! owners.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstat, openat, renameat, unlinkat,
};
use tonic::transport::Channel;

use super::endpoint::Endpoint;
use super::identity_file;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::identity::{Svid, request_for};
use crate::model::{Clock, SpiffeId, Timestamp};
use crate::sys::{as_owner, as_owner_of};

/// The longest that a command waits for a renewal that nobody asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Renews the certificate if it is an operator's or executor's and due. That it cannot be is only said: it
/// is good for another while.
pub(crate) async fn renew_if_due(endpoint: &Endpoint, channel: &Channel) {
    let Ok(svid) = certificate_of(endpoint) else { return };
    let is_ours = matches!(svid.id, SpiffeId::Operator(_) | SpiffeId::Executor(_));
    if !is_ours || !is_due(&svid, Clock::system().now()) {
        return;
    }
    let renewed = tokio::time::timeout(PATIENCE, renew(endpoint, channel, &svid)).await;
    let why = match renewed {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => failure.message,
        Err(_) => "the broker takes too long".to_owned(),
    };
    say(&format!("this certificate ends at {} and could not be renewed: {why}", svid.not_after));
}

/// Whether two thirds of its life are over.
pub(crate) fn is_due(svid: &Svid, now: Timestamp) -> bool {
    now >= svid.renewal()
}

/// Renews the certificate, and says whose it is and how long it lasts now.
///
/// # Errors
/// If the broker refuses, or the file cannot be replaced.
pub(crate) async fn renew_now(endpoint: &Endpoint, channel: &Channel) -> Result<Svid, Failure> {
    renew(endpoint, channel, &certificate_of(endpoint)?).await?;
    certificate_of(endpoint)
}

async fn renew(endpoint: &Endpoint, channel: &Channel, old: &Svid) -> Result<(), Failure> {
    let parent = endpoint.certificate.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let place = as_owner_of(directory, || Place::open(&endpoint.certificate, directory))??;
    // Of many commands at once, one renews; the others go on with what there is, or find it done.
    if !place.lock()? || place.read()?.sha256 != old.sha256 {
        return Ok(());
    }
    // Made first: a certificate that nobody can keep is not to be issued.
    let file = as_owner(&place.directory, || place.begin())??;
    let invalid = |text: String| Failure::new("IDENTITY_INVALID", text, exit::FAILED);
    let csr = request_for(&endpoint.read_key()?).map_err(|error| invalid(error.to_string()))?;
    let request = pb::RenewCertificateRequest { csr: csr.into_bytes() };
    let mut client = SystemServiceClient::new(channel.clone());
    let chain = client.renew_certificate(request).await?.into_inner().certificate_chain;
    if !Svid::parse_own(&chain).is_ok_and(|renewed| renewed.is_renewal_of(old)) {
        return Err(invalid("the broker has sent another's certificate".to_owned()));
    }
    as_owner(&place.directory, || place.finish(file, &chain))?
}

/// The first certificate of an endpoint's.
///
/// # Errors
/// If it cannot be read, or is none.
pub(crate) fn certificate_of(endpoint: &Endpoint) -> Result<Svid, Failure> {
    parse(&endpoint.read_certificate()?, &endpoint.certificate)
}

fn parse(pem: &str, path: &Path) -> Result<Svid, Failure> {
    Svid::parse_own(pem).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        Failure::new("IDENTITY_INVALID", text, exit::FAILED)
    })
}

/// Where a certificate is kept: a directory that is held open, so that whoever can move it cannot have us
/// write elsewhere.
struct Place {
    directory: OwnedFd,
    path: PathBuf,
    name: OsString,
}

impl Place {
    /// As its owner; root becomes that before.
    fn open(certificate: &Path, directory: &Path) -> Result<Self, Failure> {
        let path = directory.to_owned();
        let name = certificate.file_name().unwrap_or_default().to_owned();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = openat(CWD, &path, flags, Mode::empty());
        let directory = directory.map_err(|error| unwritable(&path, &error.into()))?;
        let owner = fstat(&directory).map_err(|error| unwritable(&path, &error.into()))?.st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            let text = format!("{} is another user's; renew it as uid {owner}", path.display());
            return Err(Failure::new("IDENTITY_READ_ONLY", text, exit::FAILED));
        }
        Ok(Self { directory, path, name })
    }

    /// Whether nobody else is renewing it.
    fn lock(&self) -> Result<bool, Failure> {
        match flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(unwritable(&self.path, &error.into())),
        }
    }

    fn read(&self) -> Result<Svid, Failure> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&self.directory, &self.name, flags, Mode::empty());
        let read =
            opened.map_err(Into::into).and_then(|file| identity_file::read_open(File::from(file)));
        let pem = read.map_err(|error| unwritable(&self.path, &error))?;
        parse(&pem, &self.path.join(&self.name))
    }

    fn unfinished(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".new");
        name
    }

    /// Makes the file that will take the certificate's place. One that is there was left by somebody who was
    /// killed: the directory is locked.
    fn begin(&self) -> Result<File, Failure> {
        let name = self.unfinished();
        let _ = unlinkat(&self.directory, &name, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = openat(&self.directory, &name, flags, Mode::from_raw_mode(0o444));
        made.map(File::from).map_err(|error| unwritable(&self.path, &error.into()))
    }

    fn finish(&self, mut file: File, chain: &str) -> Result<(), Failure> {
        let name = self.unfinished();
        let written = file
            .write_all(chain.as_bytes())
            // The umask may have taken from it.
            .and_then(|()| Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.directory, &name, &self.directory, &self.name)?));
        written.map_err(|error| unwritable(&self.path, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let text = format!("{} cannot be written ({error})", path.display());
    Failure::new("IDENTITY_READ_ONLY", text, exit::FAILED)
}
