//! Faults on purpose, and their count.

use std::collections::BTreeMap;

/// What was done to a system in one test.
#[derive(Debug, Default)]
pub struct Injected(BTreeMap<&'static str, u32>);

impl Injected {
    /// Counts a fault: what was hit, and how.
    pub fn add(&mut self, fault: &'static str) {
        self.add_some(fault, 1);
    }

    /// Counts several faults of a kind.
    pub fn add_some(&mut self, fault: &'static str, count: u32) {
        *self.0.entry(fault).or_default() += count;
    }

    /// How often there was a fault of a kind.
    pub fn count(&self, fault: &str) -> u32 {
        self.0.get(fault).copied().unwrap_or(0)
    }

    /// All faults.
    pub fn all(&self) -> u32 {
        self.0.values().sum()
    }

    /// Prints one line, which `scripts/faults.sh` adds up over all tests. Call it last: it says
    /// that everything held.
    pub fn survived(&self, case: &str) {
        let kinds = self.0.iter().map(|(fault, count)| format!("{}={count}", fault.replace(' ', "-")));
        println!("SURVIVED {case} {}", kinds.collect::<Vec<_>>().join(" "));
    }
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// A number below `sides`, which is at least one.
    pub fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}
