//! The words for what a step gets of a connection.

use crate::grpc::pb;

/// The word for what a step gets.
pub fn release_name(release: pb::Release) -> &'static str {
    match release {
        pb::Release::Minted => "minted",
        pb::Release::Stored => "stored",
        pb::Release::Unspecified => "",
    }
}

/// What a step gets, by its word.
///
/// # Errors
/// If there is no such word.
pub fn parse_release(word: &str) -> Result<pb::Release, String> {
    [pb::Release::Minted, pb::Release::Stored]
        .into_iter()
        .find(|one| release_name(*one) == word)
        .ok_or_else(|| "write minted or stored".to_owned())
}
