//! The remainder of a division of numbers that are secret. OpenSSH's format of an RSA key leaves out `d mod (p - 1)` and
//! `d mod (q - 1)`, and aws-lc-rs wants both. It checks them against the rest of the key.
//!
//! The time depends on the lengths of the numbers only.

use zeroize::Zeroizing;

/// `number mod (divisor - 1)`, both in network order, for an odd divisor above 1. The result is at least as long as the
/// divisor.
pub(super) fn modulo_one_less(number: &[u8], divisor: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut modulus = limbs(divisor);
    // An odd number less one: no borrow.
    if let Some(last) = modulus.last_mut() {
        *last &= !1;
    }
    let mut rest = Zeroizing::new(vec![0_u64; modulus.len()]);
    let mut less = Zeroizing::new(vec![0_u64; modulus.len()]);
    for byte in number {
        for bit in (0..8).rev() {
            double(&mut rest, u64::from(byte >> bit & 1));
            let is_smaller = subtract(&rest, &modulus, &mut less);
            // All ones keep the rest, zeros take the difference.
            let keep = 0_u64.wrapping_sub(is_smaller);
            for (rest, less) in rest.iter_mut().zip(less.iter()) {
                *rest = *rest & keep | *less & !keep;
            }
        }
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 * rest.len()));
    rest.iter().for_each(|limb| bytes.extend(limb.to_be_bytes()));
    bytes
}

/// A number in words, the highest first. The first word is 0, so that the number can be doubled.
fn limbs(number: &[u8]) -> Zeroizing<Vec<u64>> {
    let mut limbs = Zeroizing::new(Vec::with_capacity(number.len() / 8 + 2));
    limbs.push(0);
    let (first, rest) = number.split_at(number.len() % 8);
    for chunk in std::iter::once(first).chain(rest.chunks(8)) {
        limbs.push(chunk.iter().fold(0, |limb, byte| limb << 8 | u64::from(*byte)));
    }
    limbs
}

/// Doubles a number, and adds a bit.
fn double(number: &mut [u64], bit: u64) {
    let mut carry = bit;
    for limb in number.iter_mut().rev() {
        let above = *limb >> 63;
        *limb = *limb << 1 | carry;
        carry = above;
    }
}

/// Writes `one - other` to `difference`. Returns 1 if `one` is smaller, else 0.
fn subtract(one: &[u64], other: &[u64], difference: &mut [u64]) -> u64 {
    let mut borrow = 0;
    for ((one, other), difference) in one.iter().zip(other).zip(difference.iter_mut()).rev() {
        let (without, is_below) = one.overflowing_sub(*other);
        let (with, is_below_too) = without.overflowing_sub(borrow);
        *difference = with;
        borrow = u64::from(is_below | is_below_too);
    }
    borrow
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_remainder(number: u128, divisor: u128, shift in 0_u32..120, skipped in 0_usize..8) {
            let divisor = divisor >> shift | 3;
            let bytes = divisor.to_be_bytes();
            let zeros = usize::try_from(divisor.leading_zeros() / 8).unwrap();
            let rest = modulo_one_less(&number.to_be_bytes(), &bytes[zeros.min(skipped)..]);
            let rest = rest.iter().fold(0, |rest, byte| rest << 8 | u128::from(*byte));
            prop_assert_eq!(rest, number % (divisor - 1));
        }
    }
}
