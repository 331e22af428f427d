//! A [`Fingerprint`] stands for an event's bytes.

use std::fmt;

/// What is remembered of an event instead of its bytes: 63 bits that other bytes
/// have with a probability of 2⁻⁶³. Not made to withstand an adversary.
///
/// It is taken of the bytes as the publisher encoded them. A gateway gets these
/// bytes and the cursor after them, and takes the fingerprint of what comes before
/// the cursor.
///
/// ```
/// use galaxy_push::lab::history::Fingerprint;
///
/// assert_eq!(Fingerprint::of(b"event"), Fingerprint::of(b"event"));
/// assert_ne!(Fingerprint::of(b"event"), Fingerprint::of(b"evenu"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// Two numbers without a pattern: the fractional parts of π and e, the second odd.
const START: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0xb7e1_5162_8aed_2a6b;

impl Fingerprint {
    /// The fingerprint of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut state = fold(START, FACTOR ^ bytes.len() as u64);
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            state = mix(state, block);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        state = mix(state, &last);
        // Zero is left out: the ledger says "nothing here" with it.
        Fingerprint((fold(state, FACTOR) >> 1).max(1))
    }

    /// From 1 to 2⁶³ - 1.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn from_number(number: u64) -> Self {
        Fingerprint(number)
    }
}

/// Takes sixteen bytes more into account.
fn mix(state: u64, block: &[u8; 16]) -> u64 {
    let block = u128::from_le_bytes(*block);
    fold(block as u64 ^ FACTOR, (block >> 64) as u64 ^ state)
}

/// Multiplies, and lets both halves of the product count.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_bit_and_the_length_count() {
        let mut seen = HashSet::new();
        for length in 0..40 {
            let mut bytes = vec![0; length];
            assert!(seen.insert(Fingerprint::of(&bytes)), "{length} zeros");
            for bit in 0..8 * length {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(seen.insert(Fingerprint::of(&bytes)), "{length}, {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn the_order_of_words_counts() {
        let (ab, ba) = ([1, 2].map(u64::to_le_bytes), [2, 1].map(u64::to_le_bytes));
        assert_ne!(
            Fingerprint::of(ab.as_flattened()),
            Fingerprint::of(ba.as_flattened())
        );
    }
}
