//! Pauses between attempts.

use std::time::Duration;

/// Pauses that double up to a bound, each shortened at random by up to a half: clients that lost
/// their coordinator in the same moment don't come back in the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Pauses from `first` to `longest`. The same seed gives the same pauses; clients that start
    /// together need different ones.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, next: first, random: seed }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        // Splitmix64: spreads any seed well enough for pauses.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((bits ^ (bits >> 31)) % 1000) as f64 / 2000.0;
        whole.mul_f64(1.0 - share)
    }

    /// Something succeeded: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_lose_at_most_a_half() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        for seed in 0..50 {
            let mut backoff = Backoff::new(first, longest, seed);
            for attempt in 0..12 {
                let whole = (first * 2_u32.pow(attempt)).min(longest);
                let pause = backoff.pause();
                assert!(pause <= whole && pause >= whole / 2, "{pause:?} of {whole:?}");
            }
            backoff.reset();
            assert!(backoff.pause() <= first);
        }
    }

    #[test]
    fn seeds_spread_pauses() {
        let pause = |seed| Backoff::new(Duration::from_secs(1), Duration::from_secs(1), seed).pause();
        let pauses: std::collections::BTreeSet<Duration> = (0..100).map(pause).collect();
        assert!(pauses.len() > 80, "{}", pauses.len());
    }
}
