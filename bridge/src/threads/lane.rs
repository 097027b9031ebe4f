//! A consumer's way to the threads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nats_consumer::{Delivery, Gatherer, Inbox};
use tokio::sync::{Notify, watch};

use crate::host::lock::lock;
use crate::host::used::Used;
use crate::threads::pool::{FAST_HANDLER, MOST_AT_ONCE, Pool, SLOW_HANDLER};

/// The deliveries of one consumer that no handler has started, and what handles them.
pub(crate) struct Lane<W> {
    pub(crate) work: W,
    pub(crate) concurrency: usize,
    /// Locked after the pool's state.
    pub(super) queue: Mutex<Queue>,
    pool: Arc<Pool<W>>,
    own: Weak<Self>,
    is_recalled: AtomicBool,
    is_closed: watch::Sender<bool>,
    /// A turn has ended, or batches were recalled.
    pub(super) room: Notify,
}

/// The state of a lane.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) batches: VecDeque<Vec<Delivery>>,
    /// Whether threads may take from here, and whether the lane stands in the row.
    pub(super) is_open: bool,
    pub(super) is_in_row: bool,
    concurrency: usize,
    /// How many threads have a turn, and how many turns have ended.
    pub(super) running: usize,
    pub(super) ended: u64,
    /// How many deliveries a thread takes at once, and when one did so.
    pub(super) at_once: usize,
    pub(super) taken: Instant,
    /// Whether more threads would not make handlers faster.
    is_bound: bool,
}

impl Queue {
    /// Whether one more turn may run.
    pub(super) fn has_place(&self) -> bool {
        self.running < self.concurrency
    }

    pub(super) fn has_more(&self) -> bool {
        !self.deliveries.is_empty() || !self.batches.is_empty()
    }

    /// A batch waits for a thread.
    pub(crate) fn add_batch(&mut self, batch: Vec<Delivery>) {
        self.batches.push_back(batch);
    }

    /// Whether the threads that have a turn are enough for what waits.
    pub(super) fn is_served(&self) -> bool {
        self.is_bound && self.running > 0 && self.taken.elapsed() < SLOW_HANDLER
    }

    /// Learns from a turn with this number of deliveries. If handlers wait for nothing, more threads would only wait for
    /// the GIL, and their CPU time counts: it is the same on a busy machine.
    pub(super) fn learn(&mut self, lasted: Duration, spent: Option<Used>, deliveries: u32) {
        let never_waits = spent.is_some_and(|spent| spent.waits * 4 < u64::from(deliveries));
        let lasted = spent.filter(|_| never_waits).map_or(lasted, |spent| spent.time);
        let each = lasted / deliveries.max(1);
        let is_fast = deliveries > 0 && each < FAST_HANDLER;
        self.at_once = match each {
            _ if is_fast => (self.at_once * 2).min(MOST_AT_ONCE),
            // One turn of many says little about the next.
            each if each < SLOW_HANDLER => (self.at_once / 2).max(1),
            _ => 1,
        };
        self.is_bound = is_fast && never_waits;
    }
}

impl<W> Lane<W> {
    /// Whether nothing will come any more.
    pub(crate) fn is_closed(&self) -> bool {
        *self.is_closed.borrow()
    }
}

impl<W: Send + Sync + 'static> Lane<W> {
    /// Takes deliveries in, which wait until the pool opens it.
    pub(crate) fn new(pool: Arc<Pool<W>>, concurrency: usize, work: W) -> Arc<Self> {
        let queue = Queue {
            deliveries: VecDeque::new(),
            batches: VecDeque::new(),
            is_open: false,
            is_in_row: false,
            concurrency,
            running: 0,
            ended: 0,
            at_once: 1,
            taken: Instant::now(),
            is_bound: false,
        };
        Arc::new_cyclic(|own| Self {
            work,
            concurrency,
            queue: Mutex::new(queue),
            pool,
            own: own.clone(),
            is_recalled: AtomicBool::new(false),
            is_closed: watch::Sender::new(false),
            room: Notify::new(),
        })
    }

    fn with_own<T>(&self, body: impl FnOnce(&Arc<Self>) -> T) -> Option<T> {
        self.own.upgrade().map(|own| body(&own))
    }

    /// Whether deliveries are here that no handler has started.
    pub(crate) fn has_unstarted(&self) -> bool {
        self.waiting() > 0
    }

    /// Whether nothing of this lane can start: as many handlers run as may, or no thread of the process is free. With a
    /// number that is another one whenever that may have changed.
    pub(crate) fn is_held(&self) -> (bool, Held) {
        let queue = lock(&self.queue);
        let (is_full, own) = (!queue.has_place(), queue.ended);
        drop(queue);
        if is_full {
            return (true, Held::ByOwn(own));
        }
        let (is_exhausted, ended) = self.pool.is_exhausted();
        (is_exhausted, Held::ByAll(ended))
    }

    /// Whether deliveries that were taken but not started have to be handed back.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Acquire)
    }

    /// Resolves when nothing will come any more.
    pub(crate) async fn closed(&self) {
        let _ = self.is_closed.subscribe().wait_for(|is_closed| *is_closed).await;
    }

    /// Takes batches out of the gatherer whenever one can start, until nothing will come any more.
    pub(crate) async fn fill_from(self: Arc<Self>, gatherer: Arc<Gatherer>) {
        loop {
            while !self.has_room() {
                if self.is_closed() {
                    return;
                }
                self.room.notified().await;
            }
            let Some(batch) = gatherer.next().await else { return };
            self.pool.arrived(&self, |queue| queue.add_batch(batch));
        }
    }

    fn has_room(&self) -> bool {
        let queue = lock(&self.queue);
        queue.running + queue.batches.len() < queue.concurrency
    }
}

/// The threads that a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Its own, after this number of turns.
    ByOwn(u64),
    /// Any of the process, after this number of turns.
    ByAll(u64),
}

impl<W: Send + Sync + 'static> Inbox for Lane<W> {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        self.with_own(|own| self.pool.arrived(own, |queue| queue.deliveries.extend(deliveries.drain(..))));
    }

    fn waiting(&self) -> usize {
        let queue = lock(&self.queue);
        let waiting = queue.deliveries.len() + queue.batches.iter().map(Vec::len).sum::<usize>();
        drop(queue);
        waiting + self.with_own(|own| self.pool.held_of(own)).unwrap_or(0)
    }

    fn recall(&self) -> Vec<Delivery> {
        self.is_recalled.store(true, Release);
        let recalled = self.with_own(|own| self.pool.recall(own)).unwrap_or_default();
        self.room.notify_one();
        recalled
    }

    fn reopen(&self) {
        self.is_recalled.store(false, Release);
    }

    /// A thread cannot be cancelled.
    fn cancel(&self) {}

    fn close(&self) {
        self.is_closed.send_replace(true);
        self.with_own(|own| self.pool.close(own));
        // What is left cannot be settled any more.
        drop(self.recall());
    }
}

impl<W> fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}
