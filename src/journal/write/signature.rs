//! Signatures, which prove the journal to a reader who has only `ca.crt`.
//!
//! ```text
//! message = "keyhatch/v1/journal" 00 | file 8 BE | hash of its first line 32 | line 8 BE | its hash 32
//! ```
//!
//! The hash of a line covers all lines before it, because each line contains the hash of the one before.

use crate::identity::{Authority, AuthorityError, RootKey};
use crate::journal::event::Signature;

/// The lines that a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedRange {
    pub(crate) file: u64,
    pub(crate) checkpoint: [u8; 32],
    pub(crate) line: u64,
    pub(crate) hash: [u8; 32],
}

impl SignedRange {
    fn message(&self) -> Vec<u8> {
        let mut message = b"keyhatch/v1/journal\0".to_vec();
        message.extend_from_slice(&self.file.to_be_bytes());
        message.extend_from_slice(&self.checkpoint);
        message.extend_from_slice(&self.line.to_be_bytes());
        message.extend_from_slice(&self.hash);
        message
    }

    pub(crate) fn sign(&self, authority: &Authority) -> Result<Signature, AuthorityError> {
        let signature = authority.sign(&self.message())?;
        let Self { file, checkpoint, line, hash } = *self;
        Ok(Signature { file, checkpoint, line, hash, signature })
    }
}

impl Signature {
    pub(crate) fn signed_range(&self) -> SignedRange {
        SignedRange {
            file: self.file,
            checkpoint: self.checkpoint,
            line: self.line,
            hash: self.hash,
        }
    }

    /// Whether the root has made this signature.
    pub(crate) fn is_of(&self, root: &RootKey) -> bool {
        root.has_signed(&self.signed_range().message(), &self.signature)
    }
}
