//! Why an exchange failed.

/// Why an exchange failed. Texts contain no value and nothing that the upstream sent.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The rules deny it.
    #[error("{0}")]
    Denied(String),
    /// The request is not well formed: the URL, a header.
    #[error("{0}")]
    Malformed(String),
    /// The upstream's reply breaks HTTP, or is too large.
    #[error("{0}")]
    Invalid(String),
    /// The upstream cannot be reached, or does not answer in time.
    #[error("{0}")]
    Unavailable(String),
}
