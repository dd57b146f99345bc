//! HMAC-SHA-256 (RFC 2104) as a pseudo-random function: keys, tags and ids are derived with it.

use aws_lc_rs::hmac;

/// The MAC of the parts, one after the other. Where a part ends is not included.
pub(super) fn prf(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.copy_from_slice(context.sign().as_ref());
    output
}
