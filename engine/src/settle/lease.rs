//! Leases: the server waits `ack_wait` from the last sign of life of a delivery. When the next sign is due and
//! when it would come too late, without I/O and without a clock.

use std::time::Duration;

use async_nats::Subject;
use slab::Slab;
use tokio::time::Instant;

/// The least and the most between two looks for leases that are due.
const SHORTEST_BEAT: Duration = Duration::from_millis(20);
const LONGEST_BEAT: Duration = Duration::from_secs(1);

/// The leases of the deliveries that are not settled yet.
#[derive(Debug)]
pub(crate) struct Leases {
    ack_wait: Duration,
    open: Slab<Lease>,
}

#[derive(Debug)]
struct Lease {
    /// Where the server waits for the settlement.
    reply: Subject,
    renewed: Instant,
}

impl Leases {
    pub(crate) fn new(ack_wait: Duration) -> Self {
        Self { ack_wait, open: Slab::new() }
    }

    /// From now on the server waits so long.
    pub(crate) fn follow(&mut self, ack_wait: Duration) {
        self.ack_wait = ack_wait;
    }

    /// How often to [`renew`](Self::renew): a look that comes late by a third of `ack_wait` loses no lease.
    pub(crate) fn beat(&self) -> Duration {
        (self.ack_wait / 6).clamp(SHORTEST_BEAT, LONGEST_BEAT)
    }

    /// Begins the leases of deliveries that just arrived, known by their reply subjects. Returns the keys.
    pub(crate) fn begin(&mut self, now: Instant, replies: impl Iterator<Item = Subject>) -> Vec<usize> {
        replies.map(|reply| self.open.insert(Lease { reply, renewed: now })).collect()
    }

    /// The reply subjects of every delivery that has been quiet for a third of `ack_wait`, to be sent a sign
    /// of life now. A lease that has run out is not among them: somebody else may have the message.
    pub(crate) fn renew(&mut self, now: Instant) -> Vec<Subject> {
        let due = self.ack_wait / 3..self.ack_wait;
        let quiet = self.open.iter_mut().filter(|(_, lease)| due.contains(&(now - lease.renewed)));
        quiet
            .map(|(_, lease)| {
                lease.renewed = now;
                lease.reply.clone()
            })
            .collect()
    }

    /// Whether the delivery is still ours.
    pub(crate) fn holds(&self, now: Instant, key: usize) -> bool {
        self.open.get(key).is_some_and(|lease| now - lease.renewed < self.ack_wait)
    }

    /// Ends the lease; one that has ended already is no error.
    pub(crate) fn end(&mut self, key: usize) {
        self.open.try_remove(key);
    }

    /// The keys and reply subjects of all that are open.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Subject)> {
        self.open.iter().map(|(key, lease)| (key, &lease.reply))
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
        /// One of those that run is settled.
        Settle(usize),
        /// Time passes up to the next look, which comes late by so many thousandths of `ack_wait`.
        Look(u32),
        /// Something else happens so many thousandths of a beat later.
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
            let leases = Leases::new(ack_wait);
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
            let reply = format!("reply.{}", self.arrived);
            let key = self.leases.begin(self.now, [Subject::from(reply.as_str())].into_iter())[0];
            self.running.insert(reply, Running { key, alive: self.now });
        }

        fn settle(&mut self, index: usize) {
            let Some(reply) = self.running.keys().nth(index % self.running.len().max(1)).cloned() else {
                return;
            };
            self.leases.end(self.running.remove(&reply).unwrap().key);
        }

        /// Renews; returns those that got a sign of life although they were settled or lost.
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
            wrong
        }

        fn take(&mut self, step: Step) -> Vec<String> {
            match step {
                Step::Arrive => self.arrive(),
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

    #[test]
    fn a_shorter_ack_wait_holds_for_what_is_open_too() {
        let now = Instant::now();
        let mut leases = Leases::new(Duration::from_secs(30));
        let keys = leases.begin(now, [Subject::from_static("reply")].into_iter());
        leases.follow(Duration::from_secs(3));
        assert_eq!(leases.renew(now + Duration::from_secs(1)).len(), 1);
        assert!(!leases.holds(now + Duration::from_secs(4), keys[0]));
    }

    #[test]
    fn a_lease_that_has_ended_may_end_again() {
        let now = Instant::now();
        let mut leases = Leases::new(Duration::from_secs(1));
        let keys = leases.begin(now, [Subject::from_static("reply")].into_iter());
        leases.end(keys[0]);
        leases.end(keys[0]);
        assert!(!leases.holds(now, keys[0]));
    }
}
