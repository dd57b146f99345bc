//! Hashes of passwords that were hashed before: each login of an admin role hashes the same.
//!
//! A hash is as good as its password, so it lies in memory behind a mask that only the password makes.

use std::sync::LazyLock;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::hmac;
use parking_lot::Mutex;

use super::scram::{Rounds, Salted};
use crate::seal::random;

/// The most hashes that are remembered. The oldest goes first.
const MOST: usize = 64;

/// The hashes of this process; `None` if there are no random numbers.
static REMEMBERED: LazyLock<Option<Remembered>> =
    LazyLock::new(|| Some(Remembered::new(random().ok()?)));

type Block = [u8; SHA256_OUTPUT_LEN];

struct Remembered {
    key: hmac::Key,
    /// Behind their masks, each with its name.
    hashes: Mutex<Vec<(Block, Block)>>,
}

/// Hashes a password, or remembers its hash. It blocks the thread for a millisecond for four thousand rounds.
pub(super) fn hash(password: &[u8], rounds: &Rounds) -> Salted {
    let Some(remembered) = &*REMEMBERED else { return Salted::of(password, rounds) };
    remembered.find(password, rounds).unwrap_or_else(|| {
        let salted = Salted::of(password, rounds);
        remembered.keep(password, rounds, &salted);
        salted
    })
}

impl Remembered {
    fn new(key: Block) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), hashes: Mutex::default() }
    }

    fn find(&self, password: &[u8], rounds: &Rounds) -> Option<Salted> {
        let name = self.derive(b'n', password, rounds);
        let hashes = self.hashes.lock();
        let (_, masked) = hashes.iter().find(|(known, _)| *known == name)?;
        Some(Salted::from_bytes(masked_by(masked, &self.derive(b'm', password, rounds))))
    }

    fn keep(&self, password: &[u8], rounds: &Rounds, salted: &Salted) {
        let name = self.derive(b'n', password, rounds);
        let masked = masked_by(salted.bytes(), &self.derive(b'm', password, rounds));
        let mut hashes = self.hashes.lock();
        if hashes.len() >= MOST {
            hashes.remove(0);
        }
        hashes.push((name, masked));
    }

    /// A name or a mask, which say nothing of each other or of the password.
    fn derive(&self, purpose: u8, password: &[u8], rounds: &Rounds) -> Block {
        let mut context = hmac::Context::with_key(&self.key);
        let iterations = rounds.iterations.get().to_be_bytes();
        for part in [&[purpose][..], &iterations, &rounds.salt, password] {
            // Behind its length, so that no two lists of parts are alike.
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut block = [0; SHA256_OUTPUT_LEN];
        block.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        block
    }
}

fn masked_by(block: &Block, mask: &Block) -> Block {
    let mut masked = *block;
    masked.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    masked
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_hash_is_remembered_for_its_password_and_salt_alone() {
        let remembered = Remembered::new([7; SHA256_OUTPUT_LEN]);
        let rounds = |salt: &[u8], iterations| Rounds {
            salt: salt.to_vec(),
            iterations: NonZeroU32::new(iterations).unwrap(),
        };
        let (password, own) = (b"a-password", rounds(b"salt", 2));
        assert!(remembered.find(password, &own).is_none());
        let salted = Salted::of(password, &own);
        remembered.keep(password, &own, &salted);
        assert!(remembered.find(password, &own).unwrap().bytes() == salted.bytes());
        for (password, rounds) in [
            (&b"another"[..], rounds(b"salt", 2)),
            (password, rounds(b"salz", 2)),
            (password, rounds(b"salt", 3)),
            (b"ta-password", rounds(b"sal", 2)),
        ] {
            assert!(remembered.find(password, &rounds).is_none());
        }
        assert!(remembered.hashes.lock()[0].1 != *salted.bytes(), "it lies behind a mask");
        for n in 0..MOST {
            let other = format!("other-{n}");
            remembered.keep(other.as_bytes(), &own, &salted);
        }
        assert!(remembered.find(password, &own).is_none(), "the oldest goes first");
    }
}
