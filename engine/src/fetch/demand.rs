//! The pull requests of a consumption, open and next, as a state machine without I/O.
//!
//! Feed it what arrived and what the time is; it says when to ask, for how many, and when the server has
//! been silent for too long. It never wants more than there are free places, so nothing is ever dropped.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::jetstream::status::{Meaning, Status};
use crate::jitter::jittered;
use crate::observe::ConsumerState;
use crate::observe::meter::Repair;
use crate::observe::state::Trouble;

/// Pauses after an error double between these bounds, so that no answer of the server makes a hot loop.
const SHORTEST_ERROR_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_ERROR_PAUSE: Duration = Duration::from_secs(1);

/// The server fills several requests in turn, so that some may end one after the other.
const FRUITLESS_LIMIT: u32 = 8;

/// Requests whose end is remembered: a second word about the same end changes nothing.
const REMEMBERED: usize = 64;

/// Consecutive "no responders" after which it is time to look whether the durable still exists.
const UNANSWERED_LIMIT: u32 = 4;

/// One pull request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) id: u64,
    pub(crate) batch: usize,
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
    /// A permission is missing, which the log names already.
    Denied,
}

impl Problem {
    /// The kind of repair that it is counted as.
    pub(crate) fn repair(&self) -> Repair {
        match self {
            Self::Gone => Repair::Gone,
            Self::Silent => Repair::Silent,
            Self::Closed => Repair::Closed,
            Self::Refused(_) => Repair::Refused,
            Self::Denied => Repair::Denied,
        }
    }

    /// The state of the consumption because of it.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Gone => (ConsumerState::Repairing, "the durable or its stream is gone"),
            Self::Silent => (ConsumerState::Repairing, "the server is silent"),
            Self::Closed => (ConsumerState::Unreachable, "the connection is closed"),
            Self::Refused(_) => (ConsumerState::Repairing, "the server refuses pull requests"),
            Self::Denied => (ConsumerState::Denied, "a permission is missing"),
        }
    }
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
    /// The most messages that one request may ask for.
    most: usize,
    most_requests: usize,
    requests: VecDeque<Request>,
    /// The requests that the server said to have ended, the latest last.
    ended: VecDeque<u64>,
    outstanding: usize,
    heard: Instant,
    paused_until: Instant,
    pause: Duration,
    unanswered: u32,
    silences: u32,
    repairs: u64,
    /// Requests that ended full in bytes since the last message.
    fruitless: u32,
    next_id: u64,
    /// Requests up to this one are forgotten.
    forgotten: u64,
}

impl Demand {
    pub(crate) fn new(now: Instant, expires: Duration, most: usize) -> Self {
        Self {
            // ADR-37: at most half of `expires`; 2.5 s notices a dead leader soon after the election.
            heartbeat: (expires / 3).min(Duration::from_millis(2500)),
            expires,
            most,
            most_requests: REMEMBERED,
            requests: VecDeque::new(),
            ended: VecDeque::with_capacity(REMEMBERED),
            outstanding: 0,
            heard: now,
            paused_until: now,
            pause: SHORTEST_ERROR_PAUSE,
            unanswered: 0,
            silences: 0,
            repairs: 0,
            fruitless: 0,
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

    /// Sets the number of requests that may wait together.
    pub(crate) fn limit(&mut self, requests: usize) {
        self.most_requests = requests.clamp(1, REMEMBERED);
    }

    /// The next request, if `free` places are worth one: at least `least`, or any when nothing is asked for.
    pub(crate) fn ask(&mut self, now: Instant, free: usize, least: usize) -> Option<Ask> {
        let batch = free.saturating_sub(self.outstanding).min(self.most);
        let is_little = batch < least.min(self.most) && self.outstanding > 0;
        if now < self.paused_until || batch == 0 || is_little || self.requests.len() >= self.most_requests {
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
        self.pause = SHORTEST_ERROR_PAUSE;
        self.fruitless = 0;
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
        match Meaning::of(status.code, status.description) {
            Meaning::Alive => {}
            Meaning::Deleted | Meaning::PushBased => return Err(Problem::Gone),
            Meaning::Refused => {
                return Err(Problem::Refused(format!("{} {}", status.code, status.description)));
            }
            Meaning::Ended => self.returned(&status),
            // Full in bytes, though not in number. Where nothing comes any more, no request is large enough.
            Meaning::TooSmall => {
                self.returned(&status);
                self.fruitless += 1;
                if self.fruitless > FRUITLESS_LIMIT {
                    self.hold(now);
                }
            }
            Meaning::Busy => {
                self.returned(&status);
                self.hold(now);
            }
            Meaning::Unanswered => {
                self.returned(&status);
                self.unanswered += 1;
                if self.unanswered >= UNANSWERED_LIMIT {
                    return Err(Problem::Gone);
                }
                self.hold(now);
            }
        }
        Ok(())
    }

    /// Looks at the clock: forgets requests that ran out without a word, and notices missing heartbeats. The first time
    /// it asks again. The second time in a row is a problem, which is repaired from outside.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Problem> {
        let grace = self.heartbeat;
        let is_late = |request: &Request| now >= request.deadline + grace;
        if self.requests.back().is_some_and(is_late) {
            self.forget();
        }
        if self.outstanding == 0 || now < self.silence_at() {
            return Ok(());
        }
        self.forget();
        self.silences += 1;
        if self.silences > 1 {
            return Err(Problem::Silent);
        }
        self.repairs += 1;
        Ok(())
    }

    /// The connection is a new one: the server has forgotten the open requests.
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

    /// How often, since it was last asked, a request was lost or refused and another one takes its place.
    pub(crate) fn take_repairs(&mut self) -> u64 {
        std::mem::take(&mut self.repairs)
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
        self.repairs += 1;
        self.paused_until = now + jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_ERROR_PAUSE);
    }

    fn returned(&mut self, status: &Status<'_>) {
        let Some(id) = status.id.filter(|id| self.is_news(*id)) else { return };
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
        let known = self.requests.iter().position(|request| request.id == id);
        let left = known.and_then(|index| self.requests.remove(index)).map_or(0, |request| request.left);
        // Without a count the sum may be wrong; it is right again when nothing is left that could be open. With
        // one it is right, and what is left belongs to an earlier request, whose messages came for a later one.
        self.outstanding = match status.unfilled {
            None if self.requests.is_empty() => 0,
            unfilled => self.outstanding.saturating_sub(unfilled.unwrap_or(left)),
        };
    }

    /// Whether the request is open. One that was never made, was forgotten or has ended stays closed, also if
    /// something arrives for it later.
    fn is_news(&self, id: u64) -> bool {
        (self.forgotten + 1..=self.next_id).contains(&id) && !self.ended.contains(&id)
    }

    fn forget(&mut self) {
        self.forgotten = self.next_id;
        self.requests.clear();
        self.outstanding = 0;
    }
}

#[cfg(test)]
mod tests;
