//! How many deliveries to hold: as many as may run at once, and as many more as are used up while the
//! next ones travel.
//!
//! Fast handlers need a deep prefetch to be kept busy; slow ones need none, and what they held would be
//! missing elsewhere. So the depth is what the handlers used up in the last moments.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::MAX_PREFETCH_BYTES;

/// How much work, in time, is held ahead of the handlers.
pub(crate) const AHEAD: Duration = Duration::from_millis(50);

/// Maximum number of prefetched deliveries; more gain no speed.
const DEEPEST: usize = 4096;

/// The most bytes to be answered at once, all requests together, where large messages follow small
/// ones: a server closes the connection of a client that lags 64 MiB behind.
pub(crate) const LARGEST_ANSWER: usize = 48 * 1024 * 1024;

/// How large messages are taken to be before the first one arrived: as large as servers take by default.
const UNKNOWN_SIZE: usize = 1024 * 1024;

/// How often it is looked at what the handlers used up.
const INTERVAL: Duration = Duration::from_millis(10);

/// The size of the prefetch of one consumption.
#[derive(Debug)]
pub(crate) struct Window {
    concurrency: usize,
    /// How long the last intervals took and how many were settled in each; together about as long as [`AHEAD`].
    recent: VecDeque<(Duration, usize)>,
    ahead: usize,
    message_size: usize,
    measured: Instant,
    settled: usize,
}

impl Window {
    /// A window that opens when `settled` deliveries are settled already.
    pub(crate) fn new(now: Instant, concurrency: usize, settled: usize) -> Self {
        let recent = VecDeque::new();
        Self { concurrency, recent, ahead: 0, message_size: UNKNOWN_SIZE, measured: now, settled }
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
        let used = self.used_up(elapsed, settled.saturating_sub(self.settled));
        // Up at once, down slowly: a short lull must not starve the handlers.
        self.ahead = used.max(self.ahead * 9 / 10);
        self.measured = now;
        self.settled = settled;
    }

    /// How many were settled in the last [`AHEAD`]. A rate would not do: handlers that begin together end together.
    fn used_up(&mut self, elapsed: Duration, count: usize) -> usize {
        if elapsed >= AHEAD {
            self.recent.clear();
            return (count as f64 * AHEAD.as_secs_f64() / elapsed.as_secs_f64()) as usize;
        }
        self.recent.push_back((elapsed, count));
        let mut span: Duration = self.recent.iter().map(|(elapsed, _)| *elapsed).sum();
        while span > AHEAD
            && let Some((elapsed, _)) = self.recent.pop_front()
        {
            span -= elapsed;
        }
        self.recent.iter().map(|(_, count)| count).sum()
    }

    /// How many deliveries to hold now.
    pub(crate) fn size(&self) -> usize {
        let wanted = self.concurrency.saturating_add(self.ahead.min(DEEPEST));
        wanted.min((MAX_PREFETCH_BYTES / self.message_size).max(1))
    }

    /// The least that is worth a request while others are outstanding: `batch_size` if that fits in several
    /// times, and never so little that the requests become many, each of which may bring one large message.
    pub(crate) fn least(&self, batch_size: usize) -> usize {
        let size = self.size();
        batch_size.min(size / 4).max(size / 16).max(1)
    }
}

/// How many bytes may answer a request for `batch` messages: its part of `all` that a window of `size` may bring.
pub(crate) fn largest_answer(all: usize, size: usize, batch: usize) -> usize {
    all / size.max(1) * batch
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Milliseconds, then the deliveries settled in them, those held, and the bytes of each.
    fn observations() -> impl Strategy<Value = Vec<(u64, usize, usize, usize)>> {
        let sizes = prop_oneof![1..2000_usize, Just(1 << 20), Just(64 << 20)];
        prop::collection::vec((0..5000_u64, 0..200_000_usize, 0..5000_usize, sizes), 0..40)
    }

    proptest! {
        #[test]
        fn whatever_the_handlers_do_the_bytes_that_are_held_and_asked_for_are_bounded(
            concurrency in prop_oneof![1..200_usize, any::<usize>()],
            batch_size in prop_oneof![1..200_usize, any::<usize>()],
            observations in observations(),
        ) {
            let mut now = Instant::now();
            let mut window = Window::new(now, concurrency, 0);
            let (mut total, mut message_size) = (0, UNKNOWN_SIZE);
            for (millis, settled, held, size) in observations {
                now += Duration::from_millis(millis);
                total += settled;
                window.observe(now, total, held, held * size);
                message_size = if held > 0 { size } else { message_size };
                let (size, least) = (window.size(), window.least(batch_size));
                prop_assert!(size >= 1 && size <= concurrency.saturating_add(DEEPEST));
                prop_assert!(size * message_size <= MAX_PREFETCH_BYTES.max(message_size));
                prop_assert!(least >= 1 && least <= size);
                prop_assert!(size / least <= 31, "{} requests at once", size / least);
                prop_assert!(largest_answer(LARGEST_ANSWER, size, least) * (size / least) <= LARGEST_ANSWER);
            }
        }
    }

    #[test]
    fn a_window_that_opens_later_does_not_count_what_was_settled_before() {
        let now = Instant::now();
        let mut window = Window::new(now, 10, 1_000_000);
        window.observe(now + Duration::from_secs(1), 1_000_040, 0, 0);
        assert_eq!(window.size(), 12);
    }

    #[test]
    fn slow_handlers_hold_no_more_than_they_run() {
        let now = Instant::now();
        let mut window = Window::new(now, 10, 0);
        assert_eq!(window.size(), 10);
        window.observe(now + Duration::from_secs(1), 10, 0, 0);
        assert_eq!(window.size(), 10);
    }

    #[test]
    fn slow_handlers_that_end_together_are_not_taken_for_fast_ones() {
        let mut now = Instant::now();
        let mut window = Window::new(now, 100, 0);
        for _ in 0..5 {
            now += INTERVAL;
            window.observe(now, 0, 1, 1);
        }
        window.observe(now + INTERVAL, 100, 1, 1);
        assert_eq!(window.size(), 200);
    }

    #[test]
    fn fast_handlers_hold_as_much_as_they_use_up_meanwhile_but_not_without_end() {
        let now = Instant::now();
        let mut window = Window::new(now, 10, 0);
        window.observe(now + Duration::from_secs(1), 20_000, 1, 100);
        assert_eq!(window.size(), 1010);
        window.observe(now + Duration::from_secs(2), 9_020_000, 1, 100);
        assert_eq!(window.size(), 10 + DEEPEST);
    }

    #[test]
    fn large_messages_are_held_by_their_bytes() {
        let now = Instant::now();
        let mut window = Window::new(now, 1000, 0);
        assert_eq!(window.size(), 32, "how large they are is not known yet");
        window.observe(now, 0, 2, 1024 * 1024);
        assert_eq!(window.size(), 64);
        window.observe(now, 0, 1, 100 * 1024 * 1024);
        assert_eq!(window.size(), 1);
    }
}
