//! What can be wrong with the issuer.

/// Why no token is signed.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The stored keys are damaged.
    #[error("the issuer's keys are damaged; restore the state directory from a backup")]
    Damaged,
    /// No random numbers, or the key cannot sign.
    #[error("the issuer's keys cannot be made or used")]
    Unusable,
    /// The claims are no JSON.
    #[error("the claims cannot be written as JSON")]
    Claims,
}
