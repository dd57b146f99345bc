//! Lists come in pages; people and scripts want all of it.

use super::failure::Failure;

/// Asks for page after page. `page` is given the token of the page to ask for.
///
/// # Errors
/// As `page`.
pub async fn all<T, P>(mut page: impl FnMut(String) -> P) -> Result<Vec<T>, Failure>
where
    P: Future<Output = Result<(Vec<T>, String), tonic::Status>>,
{
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let (items, next) = page(token).await?;
        found.extend(items);
        if next.is_empty() {
            return Ok(found);
        }
        token = next;
    }
}
