//! Pauses that differ from worker to worker, so that a fleet does not act in step after an outage.

use std::time::Duration;

/// A pause between half of `longest` and all of it.
pub(crate) fn jittered(longest: Duration) -> Duration {
    // Without random numbers all pauses are the longest.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    longest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_none_is_longer_than_the_longest() {
        let longest = Duration::from_secs(2);
        let pauses: Vec<_> = (0..1000).map(|_| jittered(longest)).collect();
        assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause < longest * 5 / 8));
        assert!(pauses.iter().any(|pause| *pause > longest * 7 / 8));
    }
}
