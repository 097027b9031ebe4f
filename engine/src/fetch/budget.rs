//! How many bytes a server may send ahead over a connection.
//!
//! A server closes the connection of a client for which too much waits, and never tells how much that is. So the budget
//! halves each time that the connection is lost (docs/decisions/0019).

use std::time::Duration;

use tokio::time::Instant;

/// The least bytes, however often the connection was lost.
pub(super) const SMALLEST: usize = 256 * 1024;

/// How long a connection has to last until it is trusted with twice as many bytes.
const TRUSTED_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    largest: usize,
    /// When the connection was lost last, or the budget was raised.
    changed: Instant,
}

impl Budget {
    pub(super) fn new(largest: usize, now: Instant) -> Self {
        Self { bytes: largest, largest, changed: now }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the connection was lost, and is not trusted with everything again.
    pub(super) fn is_cut(&self) -> bool {
        self.bytes < self.largest
    }

    /// The connection was lost: perhaps too much waited for it.
    pub(super) fn lose(&mut self, now: Instant) {
        (self.bytes, self.changed) = ((self.bytes / 2).max(SMALLEST), now);
    }

    /// Raises the budget if the connection has lasted.
    pub(super) fn trust_again(&mut self, now: Instant) {
        if self.is_cut() && now - self.changed > TRUSTED_AFTER {
            (self.bytes, self.changed) = ((self.bytes * 2).min(self.largest), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lost_connection_halves_the_budget_and_each_minute_without_one_doubles_it() {
        let now = Instant::now();
        let mut budget = Budget::new(4 * SMALLEST, now);
        budget.lose(now);
        assert_eq!(budget.bytes(), 2 * SMALLEST);
        budget.lose(now);
        budget.lose(now);
        assert_eq!(budget.bytes(), SMALLEST);
        budget.trust_again(now + TRUSTED_AFTER);
        assert_eq!(budget.bytes(), SMALLEST);
        for minutes in 1..=9 {
            budget.trust_again(now + (TRUSTED_AFTER + Duration::from_secs(1)) * minutes);
        }
        assert_eq!((budget.bytes(), budget.is_cut()), (4 * SMALLEST, false));
    }
}
