//! XChaCha20-Poly1305 under a key from secret memory.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use zeroize::{Zeroizing, zeroize_stack};

use super::memory::secret_memory::SecretKey;

/// More stack than the cipher needs. The cipher wipes its own state, but not the copies that the compiler makes of it.
/// Without optimisation there are many.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 64 * 1024 } else { 4096 };

/// `None` if the message is longer than the cipher takes.
pub(super) fn encrypt(
    key: &SecretKey,
    nonce: &[u8; 24],
    message: &[u8],
    aad: &[u8],
) -> Option<Vec<u8>> {
    on_wiped_stack(|| {
        let payload = Payload { msg: message, aad };
        cipher(key).encrypt(nonce.into(), payload).ok()
    })
}

/// `None` if the ciphertext fails authentication.
pub(super) fn decrypt(
    key: &SecretKey,
    nonce: &[u8; 24],
    ciphertext: &[u8],
    aad: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    on_wiped_stack(|| {
        let payload = Payload { msg: ciphertext, aad };
        cipher(key).decrypt(nonce.into(), payload).map(Zeroizing::new).ok()
    })
}

fn cipher(key: &SecretKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&*key.copy()).into())
}

/// Runs a closure in its own stack frame, and wipes that frame.
#[inline(never)]
pub(super) fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    zeroize_stack::<STACK_BYTES>();
    done
}

#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}
