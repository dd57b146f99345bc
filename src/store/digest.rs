//! The digest of the whole store, kept up with every batch.
//!
//! Each record has a share, HMAC-SHA-256 of its key and bytes; the digest is the sum of all shares as
//! 256-bit numbers, with their count (MSet-Add-Hash of Clarke et al., ASIACRYPT 2003). So the cost of a batch depends
//! on its own size, not on the store's. The digest is sealed in the commit record, so that nobody without the key can
//! find another set of records with the same sum.

/// A sum of shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    sum: [u64; 4],
    count: u64,
}

impl Digest {
    /// Adds a record's share.
    pub(super) fn add(&mut self, share: &[u8; 32]) {
        let mut carry = false;
        for (limb, part) in self.sum.iter_mut().zip(limbs(share)) {
            let (sum, first) = limb.overflowing_add(part);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
        self.count = self.count.wrapping_add(1);
    }

    /// Subtracts a record's share.
    pub(super) fn subtract(&mut self, share: &[u8; 32]) {
        let mut borrow = false;
        for (limb, part) in self.sum.iter_mut().zip(limbs(share)) {
            let (rest, first) = limb.overflowing_sub(part);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = first || second;
        }
        self.count = self.count.wrapping_sub(1);
    }

    /// Sum and count, as the commit record holds them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.sum.iter().chain([&self.count]).flat_map(|limb| limb.to_le_bytes()).collect()
    }

    /// True if these bytes are this digest's.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        self.to_bytes() == bytes
    }
}

fn limbs(share: &[u8; 32]) -> impl Iterator<Item = u64> {
    share.as_chunks::<8>().0.iter().map(|limb| u64::from_le_bytes(*limb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_and_subtract_in_any_order() {
        let shares: Vec<[u8; 32]> = (0..=255).map(|n| [n; 32]).collect();
        let mut digest = Digest::default();
        shares.iter().for_each(|share| digest.add(share));
        let full = digest.clone();
        shares.iter().for_each(|share| digest.subtract(share));
        assert_eq!(digest, Digest::default());
        shares.iter().rev().for_each(|share| digest.add(share));
        assert_eq!(digest, full);
    }
}
