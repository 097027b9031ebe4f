//! How often the server is asked for the state of a durable while nothing happens, without I/O.
//!
//! A fleet of idle consumers asks the JetStream API about a thousand things that did not change. So the pause between two
//! questions grows while the durable has nothing to do (docs/decisions/0039).

use std::time::Duration;

use tokio::time::Instant;

use crate::jetstream::info::ConsumerInfo;
use crate::jitter::jittered;

/// The pause after the first answer that found nothing to do.
const SHORTEST: Duration = Duration::from_secs(5);

/// The last pause that is only doubled.
const LONG: Duration = Duration::from_secs(40);

/// The longest pause, before jitter takes up to half of it. With a look at the stream each time, that is less than one
/// request a minute.
const LONGEST: Duration = Duration::from_secs(240);

/// The state of the durable when it was asked last.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Deliveries that the durable had made, and messages that this worker had received; `None` after an answer that
    /// found something to do.
    seen: Option<(u64, u64)>,
    /// The pause that was found last, before its jitter.
    pause: Duration,
    due: Option<Instant>,
}

impl Idle {
    /// Whether the state is to be asked for, now that the worker has `received` messages. Where it `is_needed`, it is in
    /// any case.
    pub(super) fn wants_state(&self, now: Instant, received: u64, is_needed: bool) -> bool {
        let is_unchanged = self.seen.is_some_and(|(_, then)| then == received);
        is_needed || !is_unchanged || self.due.is_none_or(|due| now >= due)
    }

    /// Takes note of the state, asked for when the worker had `received` messages.
    pub(super) fn note(&mut self, now: Instant, info: &ConsumerInfo, received: u64) {
        let has_nothing = info.num_pending == 0 && info.num_ack_pending == 0 && !info.paused;
        let seen = has_nothing.then_some((info.delivered.consumer_seq, received));
        let is_the_same = seen.is_some() && seen == self.seen;
        self.pause = match self.pause {
            _ if !is_the_same => Duration::ZERO,
            Duration::ZERO => SHORTEST,
            // About a minute has passed since.
            pause if pause >= LONG => LONGEST,
            pause => pause * 2,
        };
        self.due = Some(now + jittered(self.pause));
        self.seen = seen;
    }

    /// The next question is for the state.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::info::Sequences;

    const HOUR: Duration = Duration::from_secs(3600);

    fn idle_after(deliveries: u64) -> ConsumerInfo {
        let delivered = Sequences { consumer_seq: deliveries, stream_seq: deliveries };
        ConsumerInfo { delivered, ..ConsumerInfo::default() }
    }

    /// The number of questions for the state, if one may be asked each five seconds.
    fn questions(idle: &mut Idle, began: Instant, time: Duration, info: &ConsumerInfo) -> usize {
        let moments = (0..time.as_secs()).step_by(5).map(|second| began + Duration::from_secs(second));
        let asked = moments.filter(|now| {
            let wants = idle.wants_state(*now, 7, false);
            if wants {
                idle.note(*now, info, 7);
            }
            wants
        });
        asked.count()
    }

    #[test]
    fn an_idle_durable_is_asked_for_at_most_every_two_minutes_after_the_first_one() {
        let (mut idle, began) = (Idle::default(), Instant::now());
        let info = idle_after(3);
        assert!((4..=9).contains(&questions(&mut idle, began, Duration::from_secs(60), &info)));
        let asked = questions(&mut idle, began + Duration::from_secs(60), HOUR, &info);
        assert!((15..=30).contains(&asked), "{asked}");
    }

    #[test]
    fn a_durable_with_something_to_do_is_asked_each_time() {
        let now = Instant::now();
        let busy = [
            ConsumerInfo { num_pending: 1, ..idle_after(3) },
            ConsumerInfo { num_ack_pending: 1, ..idle_after(3) },
            ConsumerInfo { paused: true, ..idle_after(3) },
        ];
        for info in busy {
            assert_eq!(questions(&mut Idle::default(), now, HOUR, &info), 720);
        }
    }

    #[test]
    fn an_arrival_and_a_delivery_to_another_worker_end_the_pause() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        for deliveries in [3, 3] {
            idle.note(now, &idle_after(deliveries), 7);
        }
        assert!(!idle.wants_state(now, 7, false));
        assert!(idle.wants_state(now, 8, false), "a message arrived");
        assert!(idle.wants_state(now, 7, true), "somebody reads the metrics");
        idle.note(now, &idle_after(4), 7);
        assert!(idle.wants_state(now, 7, false), "another worker was sent one");
    }

    #[test]
    fn after_a_question_that_nobody_answered_the_state_is_asked_for() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        for _ in 0..2 {
            idle.note(now, &idle_after(3), 7);
        }
        idle.end();
        assert!(idle.wants_state(now, 7, false));
    }
}
