//! A keyed permutation of 128-bit numbers: the result reveals nothing about the number.
//!
//! A Feistel network of four rounds over HMAC-SHA-256. By Luby and Rackoff it cannot be distinguished from a random
//! permutation without the key, in either direction.

use aws_lc_rs::hmac;

use super::prf::prf;

const ROUNDS: std::ops::Range<u8> = 0..4;

/// The number that `number` is replaced by.
pub(super) fn permute(key: &hmac::Key, number: u128) -> u128 {
    let round = |(left, right), round| (right, left ^ mix(key, round, right));
    join(ROUNDS.fold(halves(number), round))
}

/// The number that was replaced by `number`.
pub(super) fn invert(key: &hmac::Key, number: u128) -> u128 {
    let round = |(left, right), round| (right ^ mix(key, round, left), left);
    join(ROUNDS.rev().fold(halves(number), round))
}

fn mix(key: &hmac::Key, round: u8, half: u64) -> u64 {
    let mixed = prf(key, &[&[round], &half.to_be_bytes()]);
    mixed.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[expect(clippy::cast_possible_truncation, reason = "each half is what is left of it")]
fn halves(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}

fn join((left, right): (u64, u64)) -> u128 {
    u128::from(left) << 64 | u128::from(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_its_neighbours_are_far_apart() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let hidden: Vec<u128> = (1..100).map(|number| permute(&key, number)).collect();
        for (number, hidden) in (1..100).zip(&hidden) {
            assert_eq!(invert(&key, *hidden), number);
        }
        for pair in hidden.windows(2) {
            let bits = (pair[0] ^ pair[1]).count_ones();
            assert!((32..96).contains(&bits), "{bits}");
        }
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert_ne!(permute(&other, 1), hidden[0]);
    }
}
