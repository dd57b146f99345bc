//! Why the broker does not sign, beside access.

use crate::ssh::KeyFault;

/// Why the broker does not sign for a step that may use the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignRefusal {
    /// The stored key does not sign.
    #[error("its private_key {0}")]
    KeyUnusable(#[from] KeyFault),
    /// The login names no host, and the connection requires a host.
    #[error(
        "the login names no host, and its host_binding is required; log in with OpenSSH 8.9 or later, at a server that knows \
         publickey-hostbound-v00@openssh.com"
    )]
    NoHost,
    /// The target has no key of this kind.
    #[error("it is no connection of the kind private_key of ssh, and nothing else signs logins")]
    NoKey,
    /// The login is with another key.
    #[error(
        "the login is with another key than the connection's, which may have changed; list the keys again"
    )]
    OtherKey,
    /// The login is for another user.
    #[error(
        "the login is for another user than the connection's; log in as the user that it names"
    )]
    OtherUser,
    /// The login is at a host that is not known.
    #[error(
        "the host's key is not in its known_hosts, or is revoked there; an operator adds a line for the host"
    )]
    UnknownHost,
}

impl SignRefusal {
    /// The reason of the API, as the journal records it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::KeyUnusable(_) => "SSH_KEY_UNUSABLE",
            Self::NoHost => "SSH_HOST_UNNAMED",
            Self::NoKey => "SSH_KEY_MISSING",
            Self::OtherKey => "SSH_KEY_MISMATCH",
            Self::OtherUser => "SSH_USER_MISMATCH",
            Self::UnknownHost => "SSH_HOST_UNKNOWN",
        }
    }
}
