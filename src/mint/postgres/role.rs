//! A role that ends.

/// A role on its server.
pub(super) struct Role {
    /// Its name, as an identifier.
    pub(super) name: String,
    /// Its number, which no other role ever has.
    pub(super) oid: u32,
    /// True if a membership of it has options, by its server's version.
    pub(super) has_options: bool,
}
