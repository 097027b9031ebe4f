//! Leases: the server waits `ack_wait` from the last heartbeat of a delivery. This file knows when the next heartbeat
//! is due, when it would come too late, and which delivery of a message counts. It has no I/O and no clock.
//!
//! A heartbeat that was written may never have arrived. To settle a delivery, a lease counts from the last heartbeat
//! that was written. To start a handler, it counts from the last one that has certainly arrived.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::Duration;

use async_nats::Subject;
use slab::Slab;
use tokio::time::Instant;

use crate::message::Metadata;
use crate::settle::age::Age;

/// Bounds of the time between two looks for leases that are due.
const SHORTEST_BEAT: Duration = Duration::from_millis(20);
const LONGEST_BEAT: Duration = Duration::from_secs(1);

/// Time that an answer may take on a busy machine. A shorter `ack_wait` is checked with this margin.
const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// Longest time between two questions.
const LONGEST_ASK_INTERVAL: Duration = Duration::from_secs(5);

/// The leases of the deliveries that are not settled yet.
#[derive(Debug)]
pub(crate) struct Leases {
    ack_wait: Duration,
    open: Slab<Lease>,
    age: Age,
    /// Heartbeats from this moment are being written.
    saying: Option<Instant>,
    /// Counts the subscriptions and connections.
    link: u32,
    /// Some leases may be of an earlier link: a server that was killed may count their deliveries again.
    are_of_several_links: bool,
    /// Counts what may end leases before their time.
    upheavals: Arc<AtomicUsize>,
}

/// The key of a lease, and how long it holds without a look at the lease itself, which lies on another core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) key: usize,
    until: Instant,
    upheavals: usize,
}

#[derive(Debug)]
struct Lease {
    /// Reply subject, where the server expects the settlement.
    reply: Subject,
    /// The message's place in its stream.
    sequence: u64,
    attempt: u64,
    link: u32,
    /// The last heartbeat that was written, and the one before: its answer may come after the next one.
    said: Instant,
    said_before: Instant,
    /// The last one that has arrived for certain: a question that was asked behind it is answered.
    heard: Instant,
    /// Another delivery of the message counts.
    is_passed_on: bool,
    /// When the delivery arrived.
    arrived: Instant,
}

/// A delivery that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsettled {
    /// The message's place in its stream.
    pub(crate) sequence: u64,
    pub(crate) attempt: u64,
    /// The time since it arrived.
    pub(crate) age: Duration,
}

/// A delivery that just arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) reply: Subject,
    pub(crate) sequence: u64,
    /// The delivery's place among the consumer's deliveries.
    pub(crate) place: u64,
    pub(crate) attempt: u64,
    /// When the message was stored, in nanoseconds since 1970; 0 if that is not known.
    pub(crate) stored: i64,
}

impl Arrival {
    /// The delivery with this reply subject.
    pub(crate) fn of(reply: Option<&Subject>) -> Self {
        let reply = reply.cloned().unwrap_or_else(|| Subject::from_static("_"));
        match Metadata::parse(&reply) {
            Some(it) => Self {
                sequence: it.stream_sequence,
                place: it.consumer_sequence,
                attempt: it.delivered,
                stored: it.timestamp,
                reply,
            },
            None => Self { reply, sequence: 0, place: u64::MAX, attempt: 1, stored: 0 },
        }
    }
}

/// A question to the server that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    asked: Instant,
    /// Its answer tells that the heartbeats up to this moment have arrived.
    behind: Instant,
}

impl Leases {
    /// No leases, of a subscription that begins now.
    pub(crate) fn new(ack_wait: Duration, now: Instant) -> Self {
        Self {
            ack_wait,
            open: Slab::new(),
            age: Age::new(now),
            saying: None,
            link: 0,
            are_of_several_links: false,
            upheavals: Arc::default(),
        }
    }

    /// Follows a new `ack_wait` of the server.
    pub(crate) fn follow(&mut self, ack_wait: Duration) {
        if self.ack_wait != ack_wait {
            self.ack_wait = ack_wait;
            self.upset();
        }
    }

    /// Counts what may end leases before their time: with an unchanged count, a [`Ticket`] holds.
    pub(crate) fn upheavals(&self) -> &Arc<AtomicUsize> {
        &self.upheavals
    }

    /// From now on no ticket is enough.
    pub(crate) fn upset(&self) {
        self.upheavals.fetch_add(1, Release);
    }

    /// How often to [`renew`](Self::renew): a look that comes late by a third of `ack_wait` loses no lease.
    pub(crate) fn beat(&self) -> Duration {
        (self.ack_wait / 6).clamp(SHORTEST_BEAT, LONGEST_BEAT)
    }

    /// How often to [`ask`](Self::ask): with the beat and a third of `ack_wait`, an answer that takes another third is
    /// in time.
    pub(crate) fn pause(&self) -> Duration {
        (self.ack_wait / 6).clamp(SHORTEST_BEAT, LONGEST_ASK_INTERVAL)
    }

    /// Begins the leases of deliveries that just arrived, from when the server can have sent them. Of several
    /// deliveries of a message the newest counts.
    pub(crate) fn begin(&mut self, now: Instant, arrivals: &[Arrival]) -> Vec<Ticket> {
        let (longest, upheavals) = (self.longest_before_start(), self.upheavals.load(Relaxed));
        let mut tickets = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let lease = self.lease_of(now, arrival);
            let until = (lease.heard + longest).min(lease.said + self.ack_wait);
            tickets.push(Ticket { key: self.open.insert(lease), until, upheavals });
        }
        self.are_of_several_links =
            self.are_of_several_links && self.open.iter().any(|(_, lease)| lease.link != self.link);
        let is_of_interest = |arrival: &&Arrival| arrival.attempt > 1 || self.are_of_several_links;
        let mut newest = HashMap::new();
        for Arrival { sequence, attempt, .. } in arrivals.iter().filter(is_of_interest) {
            let known = newest.entry(*sequence).or_insert(*attempt);
            *known = (*known).max(*attempt);
        }
        if !newest.is_empty() {
            let link = self.link;
            self.pass_on(|lease| {
                newest.get(&lease.sequence).is_some_and(|it| lease.attempt < *it || lease.link != link)
            });
        }
        tickets
    }

    /// How long after its last certain heartbeat a delivery may still be started.
    fn longest_before_start(&self) -> Duration {
        (self.ack_wait * 9 / 10).max(SLOW_ANSWER)
    }

    fn lease_of(&mut self, now: Instant, arrival: &Arrival) -> Lease {
        let sent = self.age.sent(now, arrival.place);
        let is_short = self.ack_wait <= SLOW_ANSWER * 2;
        let said = if is_short && now - sent < SLOW_ANSWER { now } else { sent };
        let Arrival { reply, sequence, attempt, .. } = arrival;
        Lease {
            reply: reply.clone(),
            sequence: *sequence,
            attempt: *attempt,
            link: self.link,
            said,
            said_before: said,
            heard: sent,
            is_passed_on: false,
            arrived: now,
        }
    }

    fn pass_on(&mut self, which: impl Fn(&Lease) -> bool) {
        let concerned = self.open.iter_mut().filter(|(_, lease)| which(lease));
        if concerned.map(|(_, lease)| lease.is_passed_on = true).count() > 0 {
            self.upset();
        }
    }

    /// The reply subjects of every delivery that has been quiet for a third of `ack_wait`, to be sent a sign
    /// of life now; then [`said`](Self::said). A lease that has run out is not among them: somebody else may have the
    /// message.
    pub(crate) fn renew(&mut self, now: Instant) -> Vec<Subject> {
        self.saying = Some(now);
        let (ack_wait, is_mute) = (self.ack_wait, self.age.is_mute());
        let held = self.open.iter_mut().filter(|(_, lease)| lease.is_held(now, ack_wait));
        let quiet = held.filter(|(_, lease)| now - lease.said >= ack_wait / 3);
        quiet
            .map(|(_, lease)| {
                lease.said_before = std::mem::replace(&mut lease.said, now);
                if is_mute {
                    lease.heard = now;
                }
                lease.reply.clone()
            })
            .collect()
    }

    /// Notes that the heartbeats are written.
    pub(crate) fn said(&mut self) {
        self.saying = None;
    }

    /// A question is sent now.
    pub(crate) fn ask(&self, now: Instant) -> Question {
        // What is being written may end up behind it.
        let behind = self.saying.map_or(now, |began| began - Duration::from_nanos(1));
        Question { asked: now, behind }
    }

    /// Notes the answer to a question, and the number of deliveries made by then. The heartbeats that were written before
    /// the question have arrived, if the link is still the same.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        question: Question,
        made: Option<u64>,
        is_same_link: bool,
    ) {
        let oldest = now.checked_sub(self.ack_wait);
        self.age.answered(question.asked, made, oldest);
        if !is_same_link {
            return;
        }
        for (_, lease) in &mut self.open {
            let signs = [lease.said, lease.said_before];
            let arrived = signs.into_iter().find(|said| *said <= question.behind);
            lease.heard = arrived.map_or(lease.heard, |said| lease.heard.max(said));
        }
    }

    /// Notes that no answer came in time.
    pub(crate) fn unanswered(&mut self) {
        self.age.unanswered();
    }

    /// A subscription or a connection begins: what is sent over it is sent from now on, and what was said over another
    /// one may be lost.
    pub(crate) fn link_begins(&mut self, now: Instant) {
        self.age = Age::new(now);
        self.link += 1;
        self.are_of_several_links = true;
        for (_, lease) in &mut self.open {
            lease.said = lease.heard;
            lease.said_before = lease.heard;
        }
    }

    /// Whether the delivery is still ours.
    pub(crate) fn holds(&self, now: Instant, key: usize) -> bool {
        self.open.get(key).is_some_and(|lease| lease.is_held(now, self.ack_wait))
    }

    /// Whether its handler may start: it is ours for certain, and for long enough. Where it may not, nothing is said of
    /// it any more.
    pub(crate) fn start(&mut self, now: Instant, key: usize) -> bool {
        let longest = self.longest_before_start();
        let Some(lease) = self.open.get_mut(key) else { return false };
        let is_held = lease.is_held(now, self.ack_wait) && now - lease.heard < longest;
        lease.is_passed_on |= !is_held;
        is_held
    }

    /// Deliveries that are not settled, the oldest first.
    pub(crate) fn unsettled(&self, now: Instant) -> Vec<Unsettled> {
        let unsettled = |lease: &Lease| Unsettled {
            sequence: lease.sequence,
            attempt: lease.attempt,
            age: now.saturating_duration_since(lease.arrived),
        };
        let mut all: Vec<_> = self.open.iter().map(|(_, lease)| unsettled(lease)).collect();
        all.sort_by_key(|it| (std::cmp::Reverse(it.age), it.sequence));
        all
    }

    /// Ends the lease; one that has ended already is not an error. Returns whether it held.
    pub(crate) fn end(&mut self, now: Instant, key: usize, is_final: bool) -> bool {
        let holds = self.holds(now, key);
        let ended = self.open.try_remove(key);
        if let Some(ended) = ended.filter(|_| is_final && !holds) {
            // The server takes a final word from any delivery of a message for all of them.
            self.pass_on(|lease| lease.sequence == ended.sequence);
        }
        holds
    }

    /// The keys and reply subjects of all that are open.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Subject)> {
        self.open.iter().map(|(key, lease)| (key, &lease.reply))
    }
}

impl Ticket {
    /// Whether the lease certainly holds, with this count of [`upheavals`](Leases::upheavals).
    #[inline]
    pub(crate) fn holds(&self, now: Instant, upheavals: &AtomicUsize) -> bool {
        now < self.until && self.upheavals == upheavals.load(Acquire)
    }
}

impl Lease {
    fn is_held(&self, now: Instant, ack_wait: Duration) -> bool {
        !self.is_passed_on && now - self.said < ack_wait
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A delivery as the server sees it.
    #[derive(Debug)]
    struct Running {
        key: usize,
        alive: Instant,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive,
        /// One of the running deliveries is settled.
        Settle(usize),
        /// Time passes up to the next look, which is late by this number of thousandths of `ack_wait`.
        Look(u32),
        /// Something else happens, this number of thousandths of a beat later.
        Wait(u32),
    }

    fn steps(latest: u32) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Arrive),
            any::<usize>().prop_map(Step::Settle),
            (0..=latest).prop_map(Step::Look),
            (0..1000_u32).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..80)
    }

    fn ack_waits() -> impl Strategy<Value = Duration> {
        (100..90_000_u64).prop_map(Duration::from_millis)
    }

    /// The server and the leases side by side, on one clock.
    struct Model {
        leases: Leases,
        ack_wait: Duration,
        now: Instant,
        next_look: Instant,
        running: BTreeMap<String, Running>,
        arrived: usize,
    }

    impl Model {
        fn new(ack_wait: Duration) -> Self {
            let now = Instant::now();
            let leases = Leases::new(ack_wait, now);
            Self {
                next_look: now + leases.beat(),
                leases,
                ack_wait,
                now,
                running: BTreeMap::new(),
                arrived: 0,
            }
        }

        fn arrive(&mut self) {
            self.arrived += 1;
            let number = self.arrived as u64;
            let arrival = arrival(number, 1);
            let Ticket { key, .. } = self.leases.begin(self.now, std::slice::from_ref(&arrival))[0];
            self.running.insert(arrival.reply.to_string(), Running { key, alive: self.now });
        }

        fn settle(&mut self, index: usize) {
            let Some(reply) = self.running.keys().nth(index % self.running.len().max(1)).cloned() else {
                return;
            };
            self.leases.end(self.now, self.running.remove(&reply).unwrap().key, true);
        }

        /// Renews; returns those that got a heartbeat although they were settled or lost.
        fn look(&mut self, late: u32) -> Vec<String> {
            self.now = self.now.max(self.next_look + self.ack_wait * late / 1000);
            self.next_look = self.now + self.leases.beat();
            let mut wrong = Vec::new();
            for reply in self.leases.renew(self.now) {
                match self.running.get_mut(reply.as_str()) {
                    Some(running) if self.now - running.alive < self.ack_wait => running.alive = self.now,
                    _ => wrong.push(reply.to_string()),
                }
            }
            self.leases.said();
            self.question();
            wrong
        }

        /// Asks, and is answered at once.
        fn question(&mut self) {
            let question = self.leases.ask(self.now);
            self.leases.answered(self.now, question, Some(self.arrived as u64), true);
        }

        fn take(&mut self, step: Step) -> Vec<String> {
            match step {
                Step::Arrive => {
                    self.question();
                    self.arrive();
                }
                Step::Settle(index) => self.settle(index),
                Step::Look(late) => return self.look(late),
                // Never beyond a look: those have their time.
                Step::Wait(part) => {
                    let later = self.now + self.leases.beat() * part / 1000;
                    self.now = later.min(self.next_look).max(self.now);
                }
            }
            Vec::new()
        }
    }

    proptest! {
        #[test]
        fn what_runs_is_renewed_before_ack_wait_has_passed_and_what_is_settled_never(
            ack_wait in ack_waits(),
            steps in steps(330),
        ) {
            let mut model = Model::new(ack_wait);
            for step in steps {
                prop_assert_eq!(model.take(step), Vec::<String>::new());
                for (reply, running) in &model.running {
                    let quiet = model.now - running.alive;
                    prop_assert!(quiet < ack_wait, "{reply} was quiet for {quiet:?} of {ack_wait:?}");
                    prop_assert!(model.leases.holds(model.now, running.key));
                }
            }
            prop_assert_eq!(model.leases.iter().count(), model.running.len());
        }

        #[test]
        fn a_lease_that_ran_out_is_never_renewed_however_late_the_looks_come(
            ack_wait in ack_waits(),
            steps in steps(3000),
        ) {
            let mut model = Model::new(ack_wait);
            for step in steps {
                prop_assert_eq!(model.take(step), Vec::<String>::new());
                for running in model.running.values() {
                    let is_ours = model.now - running.alive < ack_wait;
                    prop_assert_eq!(model.leases.holds(model.now, running.key), is_ours);
                }
            }
        }
    }

    const ACK_WAIT: Duration = Duration::from_secs(6);
    const SECOND: Duration = Duration::from_secs(1);

    fn keys(tickets: Vec<Ticket>) -> Vec<usize> {
        tickets.into_iter().map(|ticket| ticket.key).collect()
    }

    fn arrival(sequence: u64, attempt: u64) -> Arrival {
        let reply = format!("reply.{sequence}.{attempt}").into();
        Arrival { reply, sequence, place: sequence * 10 + attempt, attempt, stored: 0 }
    }

    /// Leases, their time, and the key of a delivery that just arrived.
    fn one_lease() -> (Leases, Instant, usize) {
        let now = Instant::now();
        let mut leases = Leases::new(ACK_WAIT, now);
        let keys = keys(leases.begin(now, &[arrival(1, 1)]));
        (leases, now, keys[0])
    }

    fn say(leases: &mut Leases, now: Instant) -> usize {
        let count = leases.renew(now).len();
        leases.said();
        count
    }

    #[test]
    fn a_shorter_ack_wait_holds_for_what_is_open_too() {
        let (mut leases, now, key) = one_lease();
        leases.follow(SECOND * 3);
        assert_eq!(say(&mut leases, now + SECOND), 1);
        assert!(!leases.holds(now + SECOND * 4, key));
    }

    #[test]
    fn a_lease_that_has_ended_may_end_again() {
        let (mut leases, now, key) = one_lease();
        assert!(leases.end(now, key, true));
        assert!(!leases.end(now, key, true));
        assert!(!leases.holds(now, key));
    }

    #[test]
    fn a_handler_does_not_start_where_signs_of_life_were_written_and_may_not_have_arrived() {
        let (mut leases, now, key) = one_lease();
        assert_eq!(say(&mut leases, now + SECOND * 2), 1);
        assert_eq!(say(&mut leases, now + SECOND * 4), 1, "they are written all the same");
        assert!(leases.holds(now + ACK_WAIT, key));
        assert!(!leases.start(now + ACK_WAIT, key));
        assert!(!leases.holds(now + ACK_WAIT, key), "nothing is said of what is passed over");
    }

    #[test]
    fn a_sign_of_life_counts_when_a_question_behind_it_is_answered() {
        let (mut leases, now, key) = one_lease();
        say(&mut leases, now + SECOND * 2);
        let question = leases.ask(now + SECOND * 3);
        leases.answered(now + SECOND * 4, question, Some(11), true);
        assert!(leases.start(now + SECOND * 7, key));
        assert!(!leases.start(now + SECOND * 8, key), "it counts from when it was written");
    }

    #[test]
    fn a_sign_of_life_counts_though_the_answer_comes_after_the_next_one() {
        let (mut leases, now, key) = one_lease();
        say(&mut leases, now + SECOND * 2);
        let question = leases.ask(now + SECOND * 3);
        say(&mut leases, now + SECOND * 4);
        leases.answered(now + SECOND * 5, question, Some(11), true);
        assert!(leases.start(now + SECOND * 7, key));
        assert!(!leases.start(now + SECOND * 8, key));
    }

    #[test]
    fn a_question_that_may_overtake_signs_of_life_confirms_none_of_them() {
        let (mut leases, now, key) = one_lease();
        leases.renew(now + SECOND * 2);
        let question = leases.ask(now + SECOND * 2);
        leases.said();
        leases.answered(now + SECOND * 3, question, Some(11), true);
        assert!(!leases.start(now + ACK_WAIT, key));
    }

    #[test]
    fn what_was_said_over_a_link_that_was_lost_is_said_again() {
        let (mut leases, now, _) = one_lease();
        say(&mut leases, now + SECOND * 2);
        let question = leases.ask(now + SECOND * 3);
        leases.link_begins(now + SECOND * 3);
        leases.answered(now + SECOND * 3, question, Some(11), false);
        assert_eq!(say(&mut leases, now + SECOND * 3), 1);
    }

    #[test]
    fn where_nobody_answers_questions_signs_of_life_count_as_they_are_written() {
        let (mut leases, now, key) = one_lease();
        (0..3).for_each(|_| leases.unanswered());
        say(&mut leases, now + SECOND * 3);
        assert!(leases.start(now + SECOND * 8, key));
    }

    #[test]
    fn a_delivery_that_was_held_up_on_its_way_for_longer_than_ack_wait_is_not_started() {
        let now = Instant::now();
        let mut leases = Leases::new(ACK_WAIT, now);
        let question = leases.ask(now);
        leases.answered(now, question, Some(0), true);
        let keys = keys(leases.begin(now + ACK_WAIT, &[arrival(1, 1)]));
        assert!(!leases.start(now + ACK_WAIT, keys[0]));
        assert!(leases.renew(now + ACK_WAIT).is_empty(), "and nothing is said of it");
    }

    #[test]
    fn what_a_frozen_process_held_is_not_started_when_it_goes_on() {
        let (mut leases, now, key) = one_lease();
        let thawed = now + SECOND * 60;
        assert!(!leases.start(thawed, key));
        assert!(leases.renew(thawed).is_empty());
        assert!(!leases.end(thawed, key, false));
    }

    #[test]
    fn a_short_ack_wait_allows_for_answers_that_take_a_while() {
        let now = Instant::now();
        let mut leases = Leases::new(SECOND / 3, now);
        let soon = now + SECOND / 2;
        let keys = keys(leases.begin(soon, &[arrival(1, 1)]));
        assert!(leases.holds(soon, keys[0]) && leases.start(soon, keys[0]));
    }

    #[test]
    fn a_handler_starts_only_where_its_lease_lasts_for_a_while() {
        let (mut leases, now, key) = one_lease();
        let late = now + ACK_WAIT - Duration::from_millis(1);
        assert!(leases.holds(late, key) && !leases.start(late, key));
    }

    #[test]
    fn an_older_delivery_that_waits_does_not_start_when_a_newer_one_has_arrived() {
        let (mut leases, now, older) = one_lease();
        let newer = keys(leases.begin(now, &[arrival(2, 1), arrival(1, 2)]));
        assert!(!leases.start(now, older));
        assert!(newer.into_iter().all(|key| leases.start(now, key)));
    }

    #[test]
    fn of_two_deliveries_that_arrive_together_the_newer_one_starts() {
        let now = Instant::now();
        let mut leases = Leases::new(ACK_WAIT, now);
        let keys = keys(leases.begin(now, &[arrival(1, 3), arrival(1, 2)]));
        assert_eq!([leases.start(now, keys[0]), leases.start(now, keys[1])], [true, false]);
    }

    #[test]
    fn a_delivery_that_waits_does_not_start_when_a_server_that_was_killed_counts_it_again() {
        let (mut leases, now, older) = one_lease();
        leases.link_begins(now);
        let keys = keys(leases.begin(now, &[arrival(1, 1), arrival(2, 1)]));
        assert!(!leases.start(now, older));
        assert!(keys.into_iter().all(|key| leases.start(now, key)));
    }

    #[test]
    fn a_ticket_holds_no_longer_than_its_lease() {
        let now = Instant::now();
        let mut leases = Leases::new(ACK_WAIT, now);
        let ticket = leases.begin(now, &[arrival(1, 1)])[0];
        let until = now + ACK_WAIT * 9 / 10;
        for moment in [now, until - Duration::from_millis(1), until, now + ACK_WAIT] {
            assert_eq!(ticket.holds(moment, leases.upheavals()), moment < until);
            assert!(moment >= until || leases.start(moment, ticket.key));
        }
    }

    #[test]
    fn a_ticket_does_not_hold_when_its_delivery_was_passed_on_or_ack_wait_is_another() {
        let now = Instant::now();
        let mut leases = Leases::new(ACK_WAIT, now);
        let older = leases.begin(now, &[arrival(1, 1)])[0];
        assert!(older.holds(now, leases.upheavals()));
        let newer = leases.begin(now, &[arrival(1, 2)])[0];
        assert!(!older.holds(now, leases.upheavals()) && !leases.start(now, older.key));
        assert!(leases.start(now, newer.key));
        let ticket = leases.begin(now, &[arrival(2, 1)])[0];
        leases.follow(ACK_WAIT);
        assert!(ticket.holds(now, leases.upheavals()));
        leases.follow(ACK_WAIT / 2);
        assert!(!ticket.holds(now, leases.upheavals()));
    }

    #[test]
    fn what_an_older_delivery_has_settled_for_good_does_not_start() {
        let (mut leases, now, older) = one_lease();
        let keys = keys(leases.begin(now, &[arrival(1, 2), arrival(2, 2)]));
        leases.end(now, older, true);
        assert_eq!([leases.start(now, keys[0]), leases.start(now, keys[1])], [false, true]);
    }

    #[test]
    fn what_is_not_settled_is_named_the_oldest_first() {
        let (mut leases, now, key) = one_lease();
        leases.begin(now + SECOND, &[arrival(7, 2)]);
        let unsettled = leases.unsettled(now + SECOND * 3);
        assert_eq!(unsettled.iter().map(|it| it.age).collect::<Vec<_>>(), [SECOND * 3, SECOND * 2]);
        assert_eq!((unsettled[1].sequence, unsettled[1].attempt), (7, 2));
        leases.end(now, key, true);
        assert_eq!(leases.unsettled(now).len(), 1);
    }

    #[test]
    fn what_an_older_delivery_wants_again_starts() {
        let (mut leases, now, older) = one_lease();
        let keys = keys(leases.begin(now, &[arrival(1, 2)]));
        leases.end(now, older, false);
        assert!(leases.start(now, keys[0]));
    }
}
