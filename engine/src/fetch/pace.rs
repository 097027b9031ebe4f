//! How many deliveries of a push durable may be under way: as few as keep the handlers busy, without I/O.
//!
//! What the server has sent to one worker, another one cannot take, and a deploy hands it back. So the server
//! may send little, and more as soon as the handlers use it up. Each worker knows only what it holds itself:
//! one that is idle while messages wait asks for more; one that finds far too much allowed takes it back
//! (docs/decisions/0019).

use std::time::Duration;

use tokio::time::Instant;

use crate::bind::allowance::{UNKNOWN_SIZE, fitting_into, most_for_push};
use crate::bind::limits::most_allowed;
use crate::config::{ConsumerOptions, MAX_PREFETCH_BYTES};
use crate::connect::seat::FEWEST_TO_SHARE;
use crate::error::{Error, ErrorKind};
use crate::fetch::budget::Budget;
use crate::fetch::window::{AHEAD, Window};
use crate::jetstream::info::ConsumerInfo;
use crate::shared::places::Places;

/// Pauses between two looks at the durable double between these while a look finds nothing to change.
const SHORTEST_LOOK_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How often a worker that holds something looks at its own numbers.
const OWN_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long after a connection was lost the server may still send to it: async-nats closes the old one about when the
/// new one listens.
const AFTERMATH: Duration = Duration::from_millis(250);

/// How much larger the allowance may become at once: it is not known yet how fast the handlers are.
const GROWTH: usize = 16;

/// The allowance that one worker of a push durable asks for.
#[derive(Debug)]
pub(super) struct Pace {
    concurrency: usize,
    /// The largest allowance for messages of any size.
    most: i64,
    window: Window,
    /// The most bytes that may be on their way together.
    budget: Budget,
    /// How large messages are: up at once, down slowly.
    message_size: usize,
    /// When the allowance was last raised, and how many had been settled then.
    raised: Instant,
    settled_then: usize,
    settled: usize,
    held: usize,
    pause: Duration,
    looked: Instant,
    /// Since when what the server counts as unsettled may be lost on its way. The next message has to fit in beside it.
    lost: Option<Instant>,
    /// This worker may not change the durable.
    is_denied: bool,
}

impl Pace {
    pub(super) fn new(now: Instant, options: &ConsumerOptions, places: &Places) -> Self {
        let settled = places.settled();
        Self {
            concurrency: options.places(),
            most: most_for_push(options),
            window: Window::new(now, options.places(), settled),
            budget: Budget::new(MAX_PREFETCH_BYTES, now),
            message_size: 0,
            raised: now,
            settled_then: settled,
            settled,
            held: 0,
            pause: SHORTEST_LOOK_PAUSE,
            looked: now,
            lost: Some(now),
            is_denied: false,
        }
    }

    /// Takes note of what the handlers did, and of the bytes of the largest message that arrived meanwhile.
    pub(super) fn observe(&mut self, now: Instant, places: &Places, largest: usize) {
        (self.settled, self.held) = (places.settled(), places.held());
        self.window.observe(now, self.settled, self.held, places.held_bytes());
        let size = places.held_bytes().checked_div(self.held).unwrap_or_default();
        self.message_size = size.max(largest).max(self.message_size * 99 / 100);
        self.budget.trust_again(now);
    }

    /// The connection was lost: perhaps too much waited for it.
    pub(super) fn lose(&mut self, now: Instant) {
        self.budget.lose(now);
        self.lost = Some(now);
        self.pause = SHORTEST_LOOK_PAUSE;
    }

    /// Whether to look for deliveries that were lost.
    pub(super) fn misses_some(&self, now: Instant) -> bool {
        self.lost.is_some_and(|when| now - when >= AFTERMATH)
    }

    /// Whether to ask how the durable stands. `has_reason`: messages may wait at the server, or some may be missing.
    pub(super) fn wants_look(&self, now: Instant, has_reason: bool) -> bool {
        !self.is_denied && has_reason && self.is_short() && now - self.looked >= self.pause
    }

    /// How long the numbers can be left alone, unless something arrives; `None` while nothing is held or missing.
    pub(super) fn wait(&self, has_reason: bool) -> Option<Duration> {
        if has_reason && self.is_short() {
            Some(self.pause)
        } else if self.held > 0 {
            Some(OWN_LOOK_INTERVAL)
        } else {
            self.lost.filter(|_| !self.is_denied).map(|_| AFTERMATH)
        }
    }

    /// Whether the durable may be changed.
    pub(super) fn may_change(&self) -> bool {
        !self.is_denied
    }

    /// Whether what is lost may keep the places of what follows.
    pub(super) fn may_run_short(&self) -> bool {
        self.is_denied || self.most < FEWEST_TO_SHARE
    }

    /// Another allowance than the durable has, where it should have one.
    pub(super) fn look(&mut self, now: Instant, durable: &ConsumerInfo) -> Option<i64> {
        self.looked = now;
        let granted = durable.max_ack_pending();
        let most = self.most_of_this_size();
        let elsewhere = (durable.num_ack_pending - count(self.held)).max(0);
        let need = elsewhere.saturating_add(count(self.size(now, granted))).clamp(1, most);
        let is_full = durable.num_pending > 0 && durable.num_ack_pending >= granted;
        let is_short = self.is_short();
        let is_too_much = granted / 2 >= most || (self.budget.is_cut() && granted > most);
        let wanted = if granted <= 0 || is_too_much || granted / 4 > need {
            need
        } else if is_full && is_short {
            need.max(granted + granted / 2).min(most.max(granted))
        } else if self.lost.is_some() && is_short {
            need.max(granted)
        } else {
            granted
        };
        if self.misses_some(now) && is_short {
            self.lost = None;
        }
        if wanted > granted {
            (self.raised, self.settled_then) = (now, self.settled);
            self.pause = SHORTEST_LOOK_PAUSE;
        } else {
            self.pause = (self.pause * 2).min(LONGEST_LOOK_PAUSE);
        }
        (wanted != granted).then_some(wanted)
    }

    /// The server did not take the allowance.
    pub(super) fn refused(&mut self, now: Instant, error: &Error) {
        let most = most_allowed(error);
        if most.is_some() || error.is_temporary() {
            // What the last look found is to be tried again.
            self.lost.get_or_insert(now);
        }
        self.most = most.unwrap_or(self.most).min(self.most);
        self.pause = LONGEST_LOOK_PAUSE;
        self.is_denied = error.kind() == ErrorKind::Denied;
    }

    /// Whether handlers are idle, or will be before the next messages are here.
    fn is_short(&self) -> bool {
        self.held < self.concurrency.max(self.window.size() / 2)
    }

    /// How many this worker should hold.
    fn size(&self, now: Instant, granted: i64) -> usize {
        let elapsed = (now - self.raised).max(SHORTEST_LOOK_PAUSE).as_secs_f64();
        let used = (self.settled - self.settled_then) as f64 * AHEAD.as_secs_f64() / elapsed;
        let growing = usize::try_from(granted).unwrap_or(1).saturating_mul(GROWTH).min(used as usize);
        self.window.size().max(self.concurrency.saturating_add(growing))
    }

    fn most_of_this_size(&self) -> i64 {
        let size = match self.message_size as u64 {
            // They may have been too large to arrive.
            0 if self.budget.is_cut() => UNKNOWN_SIZE,
            0 => return self.most,
            size => size,
        };
        self.most.min(fitting_into(self.budget.bytes(), size))
    }
}

fn count(deliveries: usize) -> i64 {
    i64::try_from(deliveries).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn durable(granted: i64, unsettled: i64, waiting: u64) -> ConsumerInfo {
        let config = json!({ "max_ack_pending": granted }).as_object().cloned().unwrap();
        ConsumerInfo { config, num_ack_pending: unsettled, num_pending: waiting, ..ConsumerInfo::default() }
    }

    struct Worker {
        pace: Pace,
        places: Places,
        now: Instant,
    }

    impl Worker {
        fn new(concurrency: usize) -> Self {
            let (now, places) = (Instant::now(), Places::new());
            let options = ConsumerOptions { concurrency, ..ConsumerOptions::push("orders", "billing") };
            Self { pace: Pace::new(now, &options, &places), places, now }
        }

        /// Time passes; then `held` deliveries of `bytes` each are held.
        fn after(&mut self, time: Duration, settled: usize, held: usize, bytes: usize) {
            self.now += time;
            self.places.take(settled + held - self.places.held(), 0);
            for _ in 0..settled {
                self.places.release(0);
            }
            self.places.take(0, (held * bytes).saturating_sub(self.places.held_bytes()));
            self.pace.observe(self.now, &self.places, 0);
        }

        fn look(&mut self, durable: &ConsumerInfo) -> Option<i64> {
            self.pace.look(self.now, durable)
        }
    }

    #[test]
    fn a_slow_worker_is_sent_no_more_than_it_runs() {
        let mut worker = Worker::new(1);
        for _ in 0..100 {
            worker.after(500 * MILLI, 1, 1, 100);
            assert_eq!(worker.look(&durable(1, 1, 1000)), None);
        }
    }

    #[test]
    fn a_fast_worker_is_sent_thousands_after_a_few_looks() {
        let (mut worker, mut granted) = (Worker::new(1), 1);
        for _ in 0..4 {
            worker.after(MILLI, granted as usize * 2, 0, 100);
            granted = worker.look(&durable(granted, granted, 100_000)).unwrap_or(granted);
        }
        assert_eq!(granted, 2000);
    }

    #[test]
    fn a_worker_that_joins_and_gets_nothing_asks_for_a_share() {
        let mut worker = Worker::new(4);
        worker.after(AFTERMATH, 0, 0, 0);
        assert_eq!(worker.look(&durable(4, 4, 1000)), Some(8));
        assert_eq!(worker.look(&durable(8, 6, 1000)), None, "there is room");
    }

    #[test]
    fn deliveries_lost_with_a_connection_leave_room_for_the_next_message() {
        let mut worker = Worker::new(2);
        worker.after(AFTERMATH, 0, 0, 0);
        assert_eq!(worker.look(&durable(2, 0, 0)), None, "nothing is lost");
        assert_eq!(worker.look(&durable(2, 2, 0)), None, "another worker has them");
        worker.pace.lose(worker.now);
        assert_eq!(worker.look(&durable(2, 2, 0)), Some(4));
        worker.after(AFTERMATH, 0, 0, 0);
        assert_eq!(worker.look(&durable(4, 4, 0)), Some(6), "more went to the old connection");
        worker.after(AFTERMATH, 0, 0, 0);
        assert_eq!(worker.look(&durable(6, 6, 0)), None, "it was lost once");
        worker.pace.lose(worker.now);
        assert_eq!(worker.look(&durable(6, 2, 0)), None, "there is room");
    }

    #[test]
    fn room_for_the_next_message_that_the_server_did_not_make_is_asked_for_again() {
        let mut worker = Worker::new(2);
        worker.after(AFTERMATH, 0, 0, 0);
        assert_eq!(worker.look(&durable(2, 2, 0)), Some(4));
        worker.pace.refused(worker.now, &Error::new(ErrorKind::Timeout, "no answer"));
        worker.after(AFTERMATH, 0, 0, 0);
        assert!(worker.pace.misses_some(worker.now));
        assert_eq!(worker.look(&durable(2, 2, 0)), Some(4));
    }

    #[test]
    fn a_worker_that_holds_what_the_server_counts_has_lost_nothing() {
        let mut worker = Worker::new(2);
        worker.after(MILLI, 0, 2, 100);
        worker.pace.lose(worker.now);
        assert_eq!(worker.look(&durable(2, 2, 0)), None);
    }

    #[test]
    fn retries_that_wait_keep_nobody_from_working() {
        let (mut worker, mut granted) = (Worker::new(1), 1);
        while granted < 1000 {
            worker.after(MILLI, 0, 0, 0);
            granted = worker.look(&durable(granted, granted, 1000)).unwrap();
        }
    }

    #[test]
    fn what_fast_handlers_needed_is_taken_back_from_slow_ones() {
        let mut worker = Worker::new(2);
        worker.after(Duration::from_secs(60), 2, 2, 100);
        assert_eq!(worker.look(&durable(2000, 2, 0)), Some(2));
    }

    #[test]
    fn large_messages_are_allowed_by_their_bytes() {
        let mut worker = Worker::new(1);
        worker.after(10 * MILLI, 2000, 320, 100 * 1024);
        assert_eq!(worker.look(&durable(2000, 320, 1000)), Some(327));
    }

    #[test]
    fn each_lost_connection_halves_the_bytes_that_may_be_sent() {
        let mut worker = Worker::new(1);
        worker.after(10 * MILLI, 2000, 320, 100 * 1024);
        let mut granted = worker.look(&durable(2000, 320, 1000)).unwrap();
        for allowed in [163, 81, 40, 20, 10, 5, 2, 2] {
            worker.pace.lose(worker.now);
            granted = worker.look(&durable(granted, 320, 1000)).unwrap_or(granted);
            assert_eq!(granted, allowed);
        }
    }

    #[test]
    fn messages_of_unknown_size_are_taken_for_large_ones_when_the_connection_was_lost() {
        let mut worker = Worker::new(1000);
        worker.after(10 * MILLI, 0, 0, 0);
        worker.pace.lose(worker.now);
        assert_eq!(worker.look(&durable(1000, 1000, 1000)), Some(16));
    }
}
