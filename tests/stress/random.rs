//! Choices that a seed repeats.

/// Splitmix64: small, and good enough to choose.
pub(crate) struct Random(u64);

impl Random {
    /// The choices of one who takes part: `part` tells them from the others'.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut mixed = Random(seed ^ part.wrapping_mul(0xa076_1d64_78bd_642f));
        mixed.number();
        mixed
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to but not including `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
