//! The renewal of certificates of operators and executors.
//!
//! Any command renews the certificate that it uses once two thirds of the lifetime have passed. The key stays the same,
//! and the file of the certificate is replaced in place. Root renews certificates of other users as their owners.

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

use super::identity_files::{IdentityFiles, parse_svid, read_open};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::identity::{Svid, request_for};
use crate::model::{Clock, SpiffeId, Timestamp};
use crate::sys::{as_owner, as_owner_of};

/// The longest that a command waits for a renewal that nobody asked for.
const AUTOMATIC_RENEWAL_LIMIT: Duration = Duration::from_secs(2);

/// Renews the certificate of an operator or executor if a renewal is due. A failure is only reported, because the
/// certificate is still valid for a while.
pub(super) async fn renew_if_due(files: &IdentityFiles, channel: &Channel) {
    let Ok(svid) = files.svid() else { return };
    let is_renewable = matches!(svid.id, SpiffeId::Operator(_) | SpiffeId::Executor(_));
    if !is_renewable || !is_due(&svid, Clock::system().now()) {
        return;
    }
    let renewed = tokio::time::timeout(AUTOMATIC_RENEWAL_LIMIT, renew(files, channel, &svid)).await;
    let why = match renewed {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => failure.message,
        Err(_) => "the broker takes too long".to_owned(),
    };
    say(&format!("this certificate ends at {} and could not be renewed: {why}", svid.not_after));
}

/// Whether two thirds of its lifetime have passed.
pub(crate) fn is_due(svid: &Svid, now: Timestamp) -> bool {
    now >= svid.renewal()
}

/// Renews the certificate, and returns the one that is there afterwards. Fails if the broker refuses, or the file
/// cannot be replaced.
pub(crate) async fn renew_now(files: &IdentityFiles, channel: &Channel) -> Result<Svid, Failure> {
    renew(files, channel, &files.svid()?).await?;
    files.svid()
}

async fn renew(files: &IdentityFiles, channel: &Channel, old: &Svid) -> Result<(), Failure> {
    let parent = files.certificate.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let file = as_owner_of(directory, || CertificateFile::open(&files.certificate, directory))??;
    // One of several commands renews. The others go on with the current certificate, or find the new one.
    if !file.lock()? || file.read()?.sha256 != old.sha256 {
        return Ok(());
    }
    // The file comes first: a certificate that cannot be kept must not be issued.
    let unfinished = as_owner(&file.directory, || file.begin())??;
    let invalid = |text: String| Failure::new("IDENTITY_INVALID", text, exit::FAILED);
    let csr = request_for(&files.read_key()?).map_err(|error| invalid(error.to_string()))?;
    let request = pb::RenewCertificateRequest { csr: csr.into_bytes() };
    let mut client = SystemServiceClient::new(channel.clone());
    let chain = client.renew_certificate(request).await?.into_inner().certificate_chain;
    if !Svid::parse_own(&chain).is_ok_and(|renewed| renewed.is_renewal_of(old)) {
        return Err(invalid("the broker has sent another's certificate".to_owned()));
    }
    as_owner(&file.directory, || file.finish(unfinished, &chain))?
}

/// The file of a certificate. Its directory is held open: a user who can move the directory cannot redirect the writes.
struct CertificateFile {
    directory: OwnedFd,
    path: PathBuf,
    name: OsString,
}

impl CertificateFile {
    /// Refuses a directory of another user. Root becomes the owner before the call.
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

    /// Returns false if another process is renewing it.
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
        let read = opened.map_err(Into::into).and_then(|file| read_open(File::from(file)));
        let pem = read.map_err(|error| unwritable(&self.path, &error))?;
        parse_svid(&pem, &self.path.join(&self.name))
    }

    fn unfinished(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".new");
        name
    }

    /// Makes the file that will replace the certificate. An existing one is left over from a process that was killed,
    /// because this process holds the lock.
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
            // The umask may have removed bits.
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
