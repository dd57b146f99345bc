//! Masks the values of a credential in what a command prints.

use super::credential::Credential;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::mask::{LEAST_BYTES, Masks, Unmasked};

/// Masks the sensitive values of a credential from now on. Reports values that cannot be masked, each once. Fails if
/// there are more values than can be masked.
pub fn mask_values(masks: Option<&Masks>, credential: &Credential) -> Result<(), Failure> {
    let Some(masks) = masks else { return Ok(()) };
    for (field, value) in &credential.fields {
        if !credential.is_sensitive(field) {
            continue;
        }
        let unmasked = masks.add(value.expose())?;
        let what = format!("{field} of {}", credential.reference);
        let remark = match unmasked {
            Some(Unmasked::Short) => format!("{what} has fewer than {LEAST_BYTES} bytes and"),
            Some(Unmasked::Common) => format!("{what} is a word, a short number or a ruler, and"),
            Some(Unmasked::Parts) => {
                format!("{what} has parts that are short or common; such a part by itself")
            }
            None => continue,
        };
        if !value.is_empty() && masks.is_newly_unmasked(what) {
            say(&format!("{remark} is not masked in what the command prints"));
        }
    }
    Ok(())
}
