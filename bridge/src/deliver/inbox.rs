//! The queue between tokio and Python: tokio puts deliveries in, an event loop or threads take them out.
//!
//! A thread whose handlers are fast takes several at once into its [`Hand`]. If one of them turns out to be slow,
//! the other threads take the rest out of that hand, so that nothing waits while a thread is idle.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nats_consumer::{Delivery, Inbox};
use tokio::sync::Notify;

use crate::host::lock::lock;
use crate::host::wake::Wake;

/// How long one handler may run before other threads take what waits behind it.
const SLOW_HANDLER: Duration = Duration::from_millis(5);

/// The deliveries that no handler has started.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    deliveries: Mutex<VecDeque<Delivery>>,
    hands: Mutex<Vec<Arc<Hand>>>,
    /// How many deliveries the hands hold.
    held: AtomicUsize,
    /// Wakes the event loop.
    wake: Wake,
    /// Wakes threads.
    arrived: Condvar,
    /// How many threads wait for `arrived`, and whether one of them looks at the hands meanwhile.
    sleeping: AtomicUsize,
    looking: AtomicUsize,
    /// How many threads have deliveries, and how often one of them had none left.
    busy: AtomicUsize,
    emptied: AtomicU64,
    is_recalled: AtomicBool,
    is_cancelled: AtomicBool,
    is_closed: AtomicBool,
    closed: Notify,
}

/// The deliveries that a thread has taken and not started.
#[derive(Debug)]
pub(crate) struct Hand(Mutex<Held>);

#[derive(Debug)]
struct Held {
    deliveries: VecDeque<Delivery>,
    /// When the thread started its current delivery.
    began: Instant,
}

/// The end of a thread's wait for deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// This number of deliveries is in the hand.
    With(usize),
    /// None came for as long as the thread wanted to wait.
    Idle,
    /// None will come any more.
    Over,
}

/// A thread that has deliveries.
pub(crate) struct Busy<'a>(&'a DeliveryQueue);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
        self.0.emptied.fetch_add(1, Relaxed);
    }
}

impl Hand {
    /// Whether deliveries wait behind one that is slow.
    fn is_stuck(held: &Held) -> bool {
        !held.deliveries.is_empty() && held.began.elapsed() >= SLOW_HANDLER
    }
}

impl DeliveryQueue {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            deliveries: Mutex::default(),
            hands: Mutex::default(),
            held: AtomicUsize::new(0),
            wake: Wake::new()?,
            arrived: Condvar::new(),
            sleeping: AtomicUsize::new(0),
            looking: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            emptied: AtomicU64::new(0),
            is_recalled: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            closed: Notify::new(),
        })
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// The next delivery for the event loop that may start, if one waits.
    pub(crate) fn next(&self) -> Option<Delivery> {
        loop {
            let next = self.lock().pop_front()?;
            if next.may_start() {
                return Some(next);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A hand for one more thread.
    pub(crate) fn new_hand(&self) -> Arc<Hand> {
        let held = Held { deliveries: VecDeque::new(), began: Instant::now() };
        let hand = Arc::new(Hand(Mutex::new(held)));
        lock(&self.hands).push(hand.clone());
        hand
    }

    /// The next delivery in the thread's own hand that may start.
    pub(crate) fn next_of(&self, hand: &Hand) -> Option<Delivery> {
        loop {
            let next = self.pop_of(hand)?;
            if next.may_start() {
                return Some(next);
            }
        }
    }

    fn pop_of(&self, hand: &Hand) -> Option<Delivery> {
        let mut held = lock(&hand.0);
        let next = held.deliveries.pop_front()?;
        held.began = Instant::now();
        self.held.fetch_sub(1, AcqRel);
        Some(next)
    }

    /// Waits for deliveries, up to `patience`, and moves up to `most` of them into the empty hand. Must be called without
    /// the GIL.
    pub(crate) fn fill(&self, hand: &Hand, most: usize, patience: Option<Duration>) -> Filled {
        let mut deadline = None;
        loop {
            if let Some(delivery) = self.take_from_the_stuck() {
                self.put_into(hand, [delivery]);
                self.call_a_looker();
                return Filled::With(1);
            }
            let mut deliveries = self.lock();
            if !deliveries.is_empty() {
                let count = most.min(deliveries.len());
                self.put_into(hand, deliveries.drain(..count));
                drop(deliveries);
                self.call_a_looker();
                return Filled::With(count);
            }
            if self.is_closed() {
                return Filled::Over;
            }
            let deadline = patience.map(|it| *deadline.get_or_insert_with(|| Instant::now() + it));
            let left = deadline.map(|it| it.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Filled::Idle;
            }
            self.sleep(deliveries, left);
        }
    }

    /// Waits until deliveries arrive, up to `limit`. While hands hold some, one thread waits only until they may be stuck.
    fn sleep(&self, deliveries: MutexGuard<'_, VecDeque<Delivery>>, limit: Option<Duration>) {
        self.sleeping.fetch_add(1, AcqRel);
        if self.held.load(Acquire) == 0 || self.looking.load(Acquire) > 0 {
            self.wait_for_arrivals(deliveries, limit);
        } else {
            self.looking.fetch_add(1, AcqRel);
            self.wait_for_arrivals(deliveries, Some(limit.map_or(SLOW_HANDLER, |it| it.min(SLOW_HANDLER))));
            self.looking.fetch_sub(1, AcqRel);
        }
        self.sleeping.fetch_sub(1, AcqRel);
    }

    fn wait_for_arrivals(&self, deliveries: MutexGuard<'_, VecDeque<Delivery>>, limit: Option<Duration>) {
        match limit {
            None => drop(self.arrived.wait(deliveries).unwrap_or_else(PoisonError::into_inner)),
            Some(limit) => {
                drop(self.arrived.wait_timeout(deliveries, limit).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Wakes a sleeping thread if hands hold deliveries that nobody would notice to be stuck.
    fn call_a_looker(&self) {
        let is_needed = self.held.load(Acquire) > 0 && self.looking.load(Acquire) == 0;
        if is_needed && self.sleeping.load(Acquire) > 0 {
            self.arrived.notify_one();
        }
    }

    fn put_into(&self, hand: &Hand, taken: impl IntoIterator<Item = Delivery>) {
        let mut held = lock(&hand.0);
        held.deliveries.extend(taken);
        held.began = Instant::now();
        self.held.fetch_add(held.deliveries.len(), AcqRel);
    }

    /// The delivery that waits directly behind a slow one.
    fn take_from_the_stuck(&self) -> Option<Delivery> {
        if self.held.load(Acquire) == 0 {
            return None;
        }
        let hands = lock(&self.hands);
        let taken = hands.iter().find_map(|hand| {
            let mut held = lock(&hand.0);
            if Hand::is_stuck(&held) { held.deliveries.pop_front() } else { None }
        });
        if taken.is_some() {
            self.held.fetch_sub(1, AcqRel);
        }
        taken
    }

    /// Marks the calling thread as busy, until it is dropped.
    pub(crate) fn is_given_to_me(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Relaxed);
        Busy(self)
    }

    /// Whether at least this many threads have deliveries.
    pub(crate) fn is_busy(&self, threads: usize) -> bool {
        self.busy.load(Relaxed) >= threads
    }

    /// A number that is another one whenever the event loop has looked, or a thread has nothing left.
    pub(crate) fn progress(&self) -> u64 {
        self.wake.looks() + self.emptied.load(Relaxed)
    }

    /// Whether deliveries are here that no handler has started.
    pub(crate) fn has_unstarted(&self) -> bool {
        !self.is_empty() || self.held.load(Acquire) > 0
    }

    /// Lets deliveries start that are put in from now on, after a recall.
    pub(crate) fn reopen(&self) {
        self.is_recalled.store(false, Release);
    }

    /// Whether deliveries that were taken but not started have to be handed back.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Acquire)
    }

    /// Whether handlers that run have to be cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Acquire)
    }

    /// Whether nothing will come any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    /// Resolves when nothing will come any more. For one task.
    pub(crate) async fn closed(&self) {
        if !self.is_closed() {
            self.closed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        lock(&self.deliveries)
    }
}

impl Inbox for DeliveryQueue {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        let count = deliveries.len();
        self.lock().extend(deliveries.drain(..));
        for _ in 0..count.min(self.sleeping.load(Acquire)) {
            self.arrived.notify_one();
        }
        self.wake.signal();
    }

    fn waiting(&self) -> usize {
        self.lock().len() + self.held.load(Acquire)
    }

    fn recall(&self) -> Vec<Delivery> {
        self.is_recalled.store(true, Release);
        let mut recalled: Vec<_> = self.lock().drain(..).collect();
        for hand in lock(&self.hands).iter() {
            let mut held = lock(&hand.0);
            self.held.fetch_sub(held.deliveries.len(), AcqRel);
            recalled.extend(held.deliveries.drain(..));
        }
        recalled
    }

    fn cancel(&self) {
        self.is_cancelled.store(true, Release);
        self.wake.signal();
    }

    fn close(&self) {
        let guard = self.lock();
        self.is_closed.store(true, Release);
        drop(guard);
        self.arrived.notify_all();
        self.closed.notify_one();
        self.wake.signal();
    }
}
