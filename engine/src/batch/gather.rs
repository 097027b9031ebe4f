//! Deliveries gather until there are enough of them, or until the first one has waited long enough.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::{Instant, sleep_until};

use crate::config::Batching;
use crate::handle::Inbox;
use crate::handle::delivery::Delivery;
use crate::lock::lock;

/// An [`Inbox`] from which deliveries are taken in batches. Those that gather have their heartbeats like any other that
/// waits.
pub struct Gatherer {
    state: Mutex<State>,
    /// Held by the one that gathers the next batch. The others wait behind it.
    turn: Turn<()>,
    changed: Notify,
}

struct State {
    gathering: Gathering<Delivery>,
    is_winding_up: bool,
    is_closed: bool,
}

/// The items that wait, and the limits of a batch. It has no clock.
struct Gathering<T> {
    limits: Batching,
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
}

struct Waiting<T> {
    item: T,
    bytes: usize,
    came: Instant,
}

/// The answer of a look at what waits.
#[derive(Debug, PartialEq, Eq)]
enum Look<T> {
    /// This batch is to be handled.
    Ready(Vec<T>),
    /// There are too few before this moment.
    Until(Instant),
    Nothing,
}

impl<T> Gathering<T> {
    fn new(limits: Batching) -> Self {
        Self { limits, waiting: VecDeque::new(), bytes: 0 }
    }

    fn put(&mut self, now: Instant, item: T, bytes: usize) {
        self.bytes += bytes;
        self.waiting.push_back(Waiting { item, bytes, came: now });
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= self.limits.messages || self.bytes >= self.limits.bytes
    }

    fn look(&mut self, now: Instant) -> Look<T> {
        let Some(first) = self.waiting.front() else { return Look::Nothing };
        // A wait that no clock can count has no end.
        let due = first.came.checked_add(self.limits.wait);
        match due.filter(|due| *due > now && !self.is_full()) {
            Some(due) => Look::Until(due),
            None if due.is_none() && !self.is_full() => Look::Nothing,
            None => Look::Ready(self.take()),
        }
    }

    /// As many as fit, the first one in any case.
    fn take(&mut self) -> Vec<T> {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while let Some(next) = self.waiting.front()
            && (taken.is_empty() || bytes + next.bytes <= self.limits.bytes)
            && taken.len() < self.limits.messages
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.bytes;
            taken.push(next.item);
        }
        self.bytes -= bytes;
        taken
    }

    fn take_all(&mut self) -> Vec<T> {
        self.bytes = 0;
        self.waiting.drain(..).map(|waiting| waiting.item).collect()
    }
}

impl Gatherer {
    /// Nothing waits.
    #[must_use]
    pub fn new(limits: Batching) -> Self {
        let state = State { gathering: Gathering::new(limits), is_winding_up: false, is_closed: false };
        Self { state: Mutex::new(state), turn: Turn::new(()), changed: Notify::new() }
    }

    /// The next batch of deliveries that may start; `None` when it is closed. Cancel-safe: what waits goes on waiting.
    pub async fn next(&self) -> Option<Vec<Delivery>> {
        let _turn = self.turn.lock().await;
        loop {
            let look = lock(&self.state).look(Instant::now())?;
            match look {
                Look::Ready(mut batch) => {
                    batch.retain(Delivery::may_start);
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
                Look::Until(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
                Look::Nothing => self.changed.notified().await,
            }
        }
    }
}

impl State {
    /// The next action; `None` when it is closed.
    fn look(&mut self, now: Instant) -> Option<Look<Delivery>> {
        match (self.is_closed, self.is_winding_up) {
            (true, _) => None,
            (_, true) => Some(Look::Nothing),
            _ => Some(self.gathering.look(now)),
        }
    }
}

impl Inbox for Gatherer {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        let now = Instant::now();
        let gathering = &mut lock(&self.state).gathering;
        let was_empty = gathering.waiting.is_empty();
        for delivery in deliveries.drain(..) {
            let bytes = delivery.message().size();
            gathering.put(now, delivery, bytes);
        }
        if was_empty || gathering.is_full() {
            self.changed.notify_one();
        }
    }

    fn waiting(&self) -> usize {
        lock(&self.state).gathering.waiting.len()
    }

    fn recall(&self) -> Vec<Delivery> {
        lock(&self.state).gathering.take_all()
    }

    fn cancel(&self) {}

    fn wind_up(&self) {
        lock(&self.state).is_winding_up = true;
    }

    fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_one();
    }
}

impl fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatherer").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gathering(messages: usize, bytes: usize) -> Gathering<usize> {
        Gathering::new(Batching { messages, bytes, wait: SECOND })
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_ready_when_it_has_all_its_messages_or_its_first_one_has_waited() {
        let mut gathering = gathering(3, usize::MAX);
        let began = Instant::now();
        assert_eq!(gathering.look(began), Look::Nothing);
        (0..5).for_each(|item| gathering.put(began, item, 1));
        assert_eq!(gathering.look(began), Look::Ready(vec![0, 1, 2]));
        assert_eq!(gathering.look(began), Look::Until(began + SECOND));
        tokio::time::advance(SECOND).await;
        gathering.put(Instant::now(), 5, 1);
        assert_eq!(gathering.look(began + SECOND / 2), Look::Ready(vec![3, 4, 5]));
        assert_eq!(gathering.look(Instant::now()), Look::Nothing);
        gathering.put(began, 6, 1);
        assert_eq!(gathering.look(Instant::now()), Look::Ready(vec![6]));
    }

    #[test]
    fn a_message_that_is_larger_than_a_batch_is_one() {
        let (mut gathering, now) = (gathering(10, 100), Instant::now());
        for (item, bytes) in [60, 30, 500, 100].into_iter().enumerate() {
            gathering.put(now, item, bytes);
        }
        for expected in [vec![0, 1], vec![2], vec![3]] {
            assert_eq!(gathering.look(now), Look::Ready(expected));
        }
        assert_eq!((gathering.look(now), gathering.bytes), (Look::Nothing, 0));
    }

    #[test]
    fn a_wait_without_end_waits_for_a_full_batch() {
        let mut gathering = Gathering::new(Batching { messages: 2, bytes: 100, wait: Duration::MAX });
        let now = Instant::now();
        gathering.put(now, 0, 1);
        assert_eq!(gathering.look(now), Look::Nothing);
        gathering.put(now, 1, 1);
        assert_eq!(gathering.look(now), Look::Ready(vec![0, 1]));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_overtaken_and_no_batch_is_too_large(
            sizes in prop::collection::vec(0..200_usize, 0..100),
            (messages, bytes) in (1..20_usize, 1..300_usize),
        ) {
            let (mut gathering, now) = (gathering(messages, bytes), Instant::now());
            for (item, size) in sizes.iter().enumerate() {
                gathering.put(now, item, *size);
            }
            let mut taken = Vec::new();
            while let Look::Ready(batch) = gathering.look(now + SECOND) {
                let size: usize = batch.iter().map(|item| sizes[*item]).sum();
                prop_assert!(!batch.is_empty() && batch.len() <= messages);
                prop_assert!(size <= bytes || batch.len() == 1);
                taken.extend(batch);
            }
            prop_assert_eq!(taken, (0..sizes.len()).collect::<Vec<_>>());
            prop_assert_eq!(gathering.bytes, 0);
        }
    }

    #[cfg(feature = "testing")]
    mod with_deliveries {
        use super::*;
        use crate::testing::Arrivals;

        fn gatherer(messages: usize) -> Gatherer {
            Gatherer::new(Batching { wait: SECOND, ..Batching::of(messages) })
        }

        #[tokio::test(start_paused = true)]
        async fn a_batch_is_given_out_once_and_the_next_one_gathers_meanwhile() {
            let (arrivals, gatherer) = (Arrivals::new().await.unwrap(), gatherer(3));
            let mut first = arrivals.arrive(5);
            let mut last = first.split_off(4);
            gatherer.put(&mut first);
            assert_eq!(gatherer.next().await.unwrap().len(), 3);
            let began = Instant::now();
            let late = async {
                tokio::time::sleep(SECOND / 2).await;
                gatherer.put(&mut last);
            };
            let (batch, ()) = tokio::join!(gatherer.next(), late);
            assert_eq!(batch.unwrap().len(), 2);
            assert_eq!(began.elapsed(), SECOND, "the time runs from the first message");
        }

        #[tokio::test(start_paused = true)]
        async fn what_gathers_at_a_drain_is_given_back_and_never_given_out() {
            let (arrivals, gatherer) = (Arrivals::new().await.unwrap(), gatherer(3));
            gatherer.put(&mut arrivals.arrive(2));
            gatherer.wind_up();
            gatherer.put(&mut arrivals.arrive(2));
            assert!(tokio::time::timeout(SECOND * 60, gatherer.next()).await.is_err());
            assert_eq!(gatherer.recall().len(), 4);
            gatherer.close();
            assert!(gatherer.next().await.is_none());
        }

        #[tokio::test(start_paused = true)]
        async fn everybody_who_waits_learns_that_nothing_will_come_any_more() {
            let gatherer = gatherer(3);
            let closing = async { gatherer.close() };
            let (first, second, ()) = tokio::join!(gatherer.next(), gatherer.next(), closing);
            assert!(first.is_none() && second.is_none());
        }
    }
}
