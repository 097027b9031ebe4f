//! How many deliveries to hold: as many as may run at once, and as many more as are used up while the
//! next ones travel.
//!
//! Fast handlers need a deep prefetch to be kept busy; slow ones need none, and what they held would be
//! missing elsewhere. So the depth follows the rate at which deliveries are settled.

use std::time::Duration;

use tokio::time::Instant;

/// How much work, in time, is held ahead of the handlers.
const AHEAD: Duration = Duration::from_millis(50);

/// Deliveries held ahead at the most; beyond this, depth gains no speed.
const DEEPEST: usize = 4096;

/// Payloads held at the most, in bytes; one message is always allowed. A server closes the connection
/// of a client that lags 64 MiB behind.
const LARGEST: usize = 32 * 1024 * 1024;

/// How large messages are taken to be before the first one arrived: as large as servers take by default.
const UNKNOWN_SIZE: usize = 1024 * 1024;

/// How often the rate is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// The size of the prefetch of one consumption.
#[derive(Debug)]
pub(crate) struct Window {
    concurrency: usize,
    rate: f64,
    message_size: usize,
    measured: Instant,
    settled: usize,
}

impl Window {
    pub(crate) fn new(now: Instant, concurrency: usize) -> Self {
        Self { concurrency, rate: 0.0, message_size: UNKNOWN_SIZE, measured: now, settled: 0 }
    }

    /// Notes how many deliveries were settled since the beginning, and how large those in hand are.
    pub(crate) fn observe(&mut self, now: Instant, settled: usize, held: usize, held_bytes: usize) {
        if let Some(size) = held_bytes.checked_div(held) {
            self.message_size = size.max(1);
        }
        let elapsed = now.duration_since(self.measured);
        if elapsed < INTERVAL {
            return;
        }
        let rate = (settled - self.settled) as f64 / elapsed.as_secs_f64();
        // Up at once, down slowly: a short lull must not starve the handlers.
        self.rate = rate.max(self.rate * 0.9);
        self.measured = now;
        self.settled = settled;
    }

    /// How many deliveries to hold now.
    pub(crate) fn size(&self) -> usize {
        let ahead = (self.rate * AHEAD.as_secs_f64()) as usize;
        let wanted = self.concurrency + ahead.clamp(1, DEEPEST);
        wanted.min((LARGEST / self.message_size).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_handlers_hold_hardly_more_than_they_run() {
        let now = Instant::now();
        let mut window = Window::new(now, 10);
        window.observe(now + Duration::from_secs(1), 20, 0, 0);
        assert_eq!(window.size(), 11);
    }

    #[test]
    fn fast_handlers_hold_as_much_as_they_use_up_meanwhile_but_not_without_end() {
        let now = Instant::now();
        let mut window = Window::new(now, 10);
        window.observe(now + Duration::from_secs(1), 20_000, 1, 100);
        assert_eq!(window.size(), 1010);
        window.observe(now + Duration::from_secs(2), 9_020_000, 1, 100);
        assert_eq!(window.size(), 10 + DEEPEST);
    }

    #[test]
    fn large_messages_are_held_by_their_bytes() {
        let now = Instant::now();
        let mut window = Window::new(now, 1000);
        assert_eq!(window.size(), 32, "how large they are is not known yet");
        window.observe(now, 0, 2, 1024 * 1024);
        assert_eq!(window.size(), 64);
        window.observe(now, 0, 1, 100 * 1024 * 1024);
        assert_eq!(window.size(), 1);
    }
}
