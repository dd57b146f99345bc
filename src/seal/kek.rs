//! The KEK: the key that wraps the keyring, from a file outside the store.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::keyring::KeyId;
use super::{NoRandomness, random};

/// The key-encryption key. Wiped on drop.
pub struct Kek(Zeroizing<[u8; 32]>);

/// Why there is no KEK.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// It does not hold one key.
    #[error("the KEK file {} does not hold 64 hexadecimal digits; restore it from your copy", .0.display())]
    Malformed(PathBuf),
    /// Others than its owner can read it.
    #[error(
        "the KEK file {} has mode {mode:04o}, so that others can read it; run: chmod 0400 {}",
        .path.display(), .path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be read or written.
    #[error("the KEK file {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Kek {
    /// Makes a new key and writes it to a file of its own, with mode 0400.
    ///
    /// # Errors
    /// If the file exists, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, KekError> {
        let file_error = |source| KekError::File { path: path.to_owned(), source };
        let key = Zeroizing::new(random::<32>()?);
        // As long as the file, so that it never grows and leaves a copy behind.
        let mut digits = Zeroizing::new([b'\n'; 65]);
        if let Some(text) = digits.get_mut(..64) {
            hex::encode_to_slice(*key, text).map_err(|_| KekError::Malformed(path.to_owned()))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(path)
            .map_err(file_error)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        file.write_all(&*digits)
            .and_then(|()| file.sync_all())
            // Without this a power cut could leave everything but the key.
            .and_then(|()| File::open(directory.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(file_error)?;
        Ok(Self(key))
    }

    /// Reads the key.
    ///
    /// # Errors
    /// If the file cannot be read, can be read by others, or holds no key.
    pub fn load(path: &Path) -> Result<Self, KekError> {
        let file_error = |source| KekError::File { path: path.to_owned(), source };
        let mut file: File = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::CLOEXEC.bits().cast_signed())
            .open(path)
            .map_err(file_error)?;
        let metadata = file.metadata().map_err(file_error)?;
        let mode = metadata.mode() & 0o7777;
        let is_private = mode & 0o077 == 0 || (mode & 0o037 == 0 && is_lent(&metadata));
        if !is_private {
            return Err(KekError::OpenToOthers { path: path.to_owned(), mode });
        }
        // One byte more than the digits and a newline, to notice a file that is longer.
        let mut text = Zeroizing::new([0_u8; 66]);
        let mut length = 0;
        while let Some(free) = text.get_mut(length..).filter(|free| !free.is_empty()) {
            match file.read(free).map_err(file_error)? {
                0 => break,
                read => length += read,
            }
        }
        let mut key = Zeroizing::new([0; 32]);
        let digits = text.get(..length).unwrap_or_default().trim_ascii_end();
        match hex::decode_to_slice(digits, &mut *key) {
            Ok(()) => Ok(Self(key)),
            Err(_) => Err(KekError::Malformed(path.to_owned())),
        }
    }

    /// Names the key without giving anything of it away.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(self.derive(b"keyhatch/v1/kek id").get(..8).unwrap_or(&[0; 8]));
        KeyId(id)
    }

    /// Proves that the key is the one, before anything is unwrapped with it.
    pub(super) fn check_value(&self) -> [u8; 32] {
        self.derive(b"keyhatch/v1/kek check")
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        super::keyring::prf(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0), &[label])
    }
}

/// Whether root lets our group read a file that we could not read otherwise. So Kubernetes mounts a secret
/// for a pod that is not root (`fsGroup`): it cannot make it the user's own.
fn is_lent(file: &Metadata) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    let ours = others.into_iter().chain([rustix::process::getegid()]);
    file.uid() == 0
        && !rustix::process::geteuid().is_root()
        && ours.map(rustix::process::Gid::as_raw).any(|gid| gid == file.gid())
}
