//! What a pull loop has asked for and what it may ask next, as a state machine without I/O.
//!
//! Feed it what arrived and what the time is; it says when to ask, for how many, and when the server has
//! been silent for too long. It never wants more than there are free places, so nothing is ever dropped.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Pauses after an error double between these, so that no answer of the server makes a hot loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Consecutive "no responders" after which it is time to look whether the durable still exists.
const UNANSWERED_LIMIT: u32 = 4;

/// One pull request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) id: u64,
    pub(crate) batch: usize,
}

/// A status message of the server: the end of a request, or a heartbeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status<'a> {
    /// The request it belongs to.
    pub(crate) id: Option<u64>,
    pub(crate) code: u16,
    pub(crate) description: &'a str,
    /// How much of the request stays unfilled, where the server says so.
    pub(crate) unfilled: Option<usize>,
}

/// Why asking again cannot help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The durable was deleted or replaced, or nobody answers for it.
    Gone,
    /// The server sent neither messages nor heartbeats.
    Silent,
    /// The connection is closed.
    Closed,
    /// The server does not accept the requests.
    Refused(String),
}

#[derive(Debug)]
struct Request {
    id: u64,
    left: usize,
    deadline: Instant,
}

/// The pull requests of one durable.
#[derive(Debug)]
pub(crate) struct Demand {
    heartbeat: Duration,
    expires: Duration,
    requests: VecDeque<Request>,
    outstanding: usize,
    heard: Instant,
    paused_until: Instant,
    pause: Duration,
    unanswered: u32,
    silences: u32,
    next_id: u64,
    /// Requests up to this one are forgotten.
    forgotten: u64,
}

impl Demand {
    pub(crate) fn new(now: Instant, expires: Duration) -> Self {
        Self {
            // ADR-37: at most half of `expires`; 2.5 s notices a dead leader soon after the election.
            heartbeat: (expires / 3).min(Duration::from_millis(2500)),
            expires,
            requests: VecDeque::new(),
            outstanding: 0,
            heard: now,
            paused_until: now,
            pause: SHORTEST_PAUSE,
            unanswered: 0,
            silences: 0,
            next_id: 0,
            forgotten: 0,
        }
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    pub(crate) fn expires(&self) -> Duration {
        self.expires
    }

    /// The next request, if `free` places are worth one: at least `least`, or any when nothing is asked for.
    pub(crate) fn ask(&mut self, now: Instant, free: usize, least: usize) -> Option<Ask> {
        let batch = free.saturating_sub(self.outstanding);
        if now < self.paused_until || batch == 0 || (batch < least && self.outstanding > 0) {
            return None;
        }
        if self.outstanding == 0 {
            self.heard = now;
        }
        self.next_id += 1;
        self.outstanding += batch;
        self.requests.push_back(Request { id: self.next_id, left: batch, deadline: now + self.expires });
        Some(Ask { id: self.next_id, batch })
    }

    /// Messages arrived.
    pub(crate) fn delivered(&mut self, now: Instant, mut messages: usize) {
        self.hear(now);
        self.pause = SHORTEST_PAUSE;
        self.unanswered = 0;
        self.outstanding = self.outstanding.saturating_sub(messages);
        // The server fills requests in their order, or nearly so; only the sum has to be exact.
        while let Some(first) = self.requests.front_mut() {
            if first.left > messages {
                first.left -= messages;
                break;
            }
            messages -= first.left;
            self.requests.pop_front();
        }
    }

    /// A status arrived.
    pub(crate) fn status(&mut self, now: Instant, status: Status<'_>) -> Result<(), Problem> {
        self.hear(now);
        match status.code {
            100 => {}
            404 | 408 => self.returned(&status),
            409 if is_terminal(status.description) => return Err(Problem::Gone),
            409 if status.description.starts_with("Exceeded MaxRequest") => {
                return Err(Problem::Refused(format!("{} of the durable", status.description)));
            }
            // How a request with `max_bytes` ends when it is filled (seen on nats-server 2.15.1).
            409 if status.description.starts_with("Batch Completed") => self.returned(&status),
            // The other 409 are the server's own troubles: a new leader, a shutdown, a full queue.
            409 => {
                self.returned(&status);
                self.hold(now);
            }
            503 => {
                self.returned(&status);
                self.hold(now);
                self.unanswered += 1;
                if self.unanswered >= UNANSWERED_LIMIT {
                    return Err(Problem::Gone);
                }
            }
            code => return Err(Problem::Refused(format!("{code} {}", status.description))),
        }
        Ok(())
    }

    /// Looks at the clock: forgets requests that ran out without a word, and notices silence. A first
    /// silence is mended by asking again; a second one in a row is a problem.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Problem> {
        let grace = self.heartbeat;
        if self.requests.iter().all(|request| now >= request.deadline + grace) {
            self.forget();
        }
        if self.outstanding == 0 || now < self.silence_at() {
            return Ok(());
        }
        self.forget();
        self.silences += 1;
        if self.silences > 1 { Err(Problem::Silent) } else { Ok(()) }
    }

    /// The connection was made anew: what was asked for is forgotten on the other side.
    pub(crate) fn reconnected(&mut self, now: Instant) {
        self.forget();
        self.hear(now);
        self.paused_until = now;
    }

    /// When something has to be looked at although nothing arrives.
    pub(crate) fn wake_at(&self, now: Instant) -> Instant {
        if self.outstanding > 0 {
            return self.silence_at();
        }
        if self.paused_until > now { self.paused_until } else { now + self.heartbeat }
    }

    /// Whether asking waits for an earlier error to pass.
    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        now < self.paused_until
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn silence_at(&self) -> Instant {
        self.heard + self.heartbeat * 2
    }

    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.silences = 0;
    }

    fn hold(&mut self, now: Instant) {
        self.paused_until = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn returned(&mut self, status: &Status<'_>) {
        // What was forgotten is not outstanding, whatever the server says of it later.
        if status.id.is_some_and(|id| id <= self.forgotten) {
            return;
        }
        let known = self.requests.iter().position(|request| Some(request.id) == status.id);
        let left = known.and_then(|index| self.requests.remove(index)).map_or(0, |request| request.left);
        self.outstanding = self.outstanding.saturating_sub(status.unfilled.unwrap_or(left));
        if self.requests.is_empty() {
            self.outstanding = 0;
        }
    }

    fn forget(&mut self) {
        self.forgotten = self.next_id;
        self.requests.clear();
        self.outstanding = 0;
    }
}

/// ADR-37: these end the consumer, every other 409 ends just a request.
fn is_terminal(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    description.contains("consumer deleted") || description.contains("push based")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn demand() -> (Demand, Instant) {
        let now = Instant::now();
        (Demand::new(now, SECOND * 30), now)
    }

    fn status(id: u64, code: u16, description: &str) -> Status<'_> {
        Status { id: Some(id), code, description, unfilled: None }
    }

    #[test]
    fn never_asks_for_more_than_the_free_places() {
        let (mut demand, now) = demand();
        assert_eq!(demand.ask(now, 10, 4), Some(Ask { id: 1, batch: 10 }));
        assert_eq!(demand.ask(now, 10, 4), None);
        demand.delivered(now, 3);
        assert_eq!(demand.ask(now, 7, 4), None, "the three that arrived hold their places");
        assert_eq!(demand.ask(now, 11, 4), Some(Ask { id: 2, batch: 4 }));
    }

    #[test]
    fn asks_again_at_once_when_a_request_ran_out() {
        let (mut demand, now) = demand();
        demand.ask(now, 10, 4);
        demand.delivered(now, 4);
        let ended = Status { unfilled: Some(6), ..status(1, 408, "Request Timeout") };
        demand.status(now, ended).unwrap();
        assert_eq!(demand.ask(now, 6, 4), Some(Ask { id: 2, batch: 6 }));
    }

    #[test]
    fn a_request_that_was_filled_is_no_reason_to_pause() {
        let (mut demand, now) = demand();
        demand.ask(now, 10, 1);
        demand.delivered(now, 9);
        demand.status(now, Status { unfilled: Some(1), ..status(1, 409, "Batch Completed") }).unwrap();
        assert_eq!(demand.ask(now, 10, 1), Some(Ask { id: 2, batch: 10 }));
    }

    #[test]
    fn a_missed_heartbeat_is_mended_by_asking_again_and_a_second_one_is_a_problem() {
        let (mut demand, now) = demand();
        demand.ask(now, 10, 1);
        let later = demand.wake_at(now);
        assert_eq!(demand.tick(later), Ok(()));
        assert!(demand.ask(later, 10, 1).is_some());
        assert_eq!(demand.tick(demand.wake_at(later)), Err(Problem::Silent));
    }

    #[test]
    fn heartbeats_keep_an_idle_request_alive() {
        let (mut demand, mut now) = demand();
        demand.ask(now, 10, 1);
        for _ in 0..10 {
            now += demand.heartbeat();
            demand.status(now, status(1, 100, "Idle Heartbeat")).unwrap();
            assert_eq!(demand.tick(now), Ok(()));
        }
    }

    #[test]
    fn a_deleted_durable_is_gone_but_a_new_leader_is_not() {
        let (mut demand, now) = demand();
        demand.ask(now, 10, 1);
        assert_eq!(demand.status(now, status(1, 409, "Consumer Deleted")), Err(Problem::Gone));
        let exceeded = demand.status(now, status(1, 409, "Exceeded MaxRequestBatch of 5"));
        assert!(matches!(exceeded, Err(Problem::Refused(_))), "{exceeded:?}");
        assert_eq!(demand.status(now, status(1, 409, "Leadership Change")), Ok(()));
        assert_eq!(demand.ask(now, 10, 1), None, "not at once, lest it be a hot loop");
        assert!(demand.ask(now + SHORTEST_PAUSE, 10, 1).is_some());
    }

    #[test]
    fn nobody_answering_is_tried_with_growing_pauses_and_then_a_problem() {
        let (mut demand, mut now) = demand();
        for _ in 1..UNANSWERED_LIMIT {
            let ask = demand.ask(now, 10, 1).unwrap();
            assert_eq!(demand.status(now, status(ask.id, 503, "No Responders")), Ok(()));
            now = demand.wake_at(now);
        }
        let ask = demand.ask(now, 10, 1).unwrap();
        assert_eq!(demand.status(now, status(ask.id, 503, "")), Err(Problem::Gone));
    }

    #[test]
    fn a_reconnect_forgets_what_was_asked() {
        let (mut demand, now) = demand();
        demand.ask(now, 10, 1);
        demand.reconnected(now);
        assert_eq!(demand.ask(now, 10, 1), Some(Ask { id: 2, batch: 10 }));
    }

    #[test]
    fn a_late_word_about_a_forgotten_request_frees_no_place_of_the_next_one() {
        let (mut demand, now) = demand();
        demand.ask(now, 10, 1);
        demand.reconnected(now);
        demand.ask(now, 10, 1);
        let late = Status { unfilled: Some(10), ..status(1, 408, "Request Timeout") };
        demand.status(now, late).unwrap();
        assert_eq!(demand.outstanding(), 10);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deliver(usize),
        Status(u64, u16, Option<usize>),
        Wait(u64),
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        let codes = prop::sample::select(vec![100_u16, 404, 408, 409, 503]);
        prop_oneof![
            (1..50_usize).prop_map(Step::Deliver),
            (0..20_u64, codes, prop::option::of(0..50_usize))
                .prop_map(|(id, code, n)| Step::Status(id, code, n)),
            (1..9000_u64).prop_map(Step::Wait),
            Just(Step::Reconnect),
        ]
    }

    proptest! {
        /// Whatever the server does: no more is outstanding than there are places, and within a bounded
        /// time the demand either asks again or reports a problem.
        #[test]
        fn whatever_happens_it_keeps_asking_within_its_places(steps in prop::collection::vec(step(), 0..60)) {
            let (mut demand, mut now) = demand();
            let free = 32;
            for step in steps {
                demand.ask(now, free, 8);
                prop_assert!(demand.outstanding() <= free);
                let problem = match step {
                    Step::Deliver(messages) => { demand.delivered(now, messages); Ok(()) }
                    Step::Status(id, code, unfilled) => {
                        demand.status(now, Status { id: Some(id), code, description: "", unfilled })
                    }
                    Step::Wait(millis) => { now += Duration::from_millis(millis); demand.tick(now) }
                    Step::Reconnect => { demand.reconnected(now); Ok(()) }
                };
                if problem.is_err() {
                    return Ok(());
                }
            }
            for _ in 0..4 {
                now = demand.wake_at(now);
                if demand.tick(now).is_err() || demand.ask(now, free, 8).is_some() {
                    return Ok(());
                }
            }
            prop_assert!(false, "neither asked nor complained: {demand:?}");
        }
    }
}
