//! Random choices that one number decides, so that a failing test can be run again with the same
//! choices (not with the same timing: the nodes are real).

/// splitmix64 (Steele, Lea and Flood, OOPSLA 2014): tiny, and good enough to pick victims.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that this number decides.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(bound).unwrap()).unwrap()
    }
}
