//! Where deliveries wait between tokio and Python: tokio puts them in, an event loop or threads take them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nats_consumer::{Delivery, Inbox};
use tokio::sync::Notify;

use crate::host::lock::lock;
use crate::host::wake::Wake;

/// The deliveries that no handler has started.
#[derive(Debug)]
pub(crate) struct Waiting {
    deliveries: Mutex<VecDeque<Delivery>>,
    /// Wakes the event loop.
    wake: Wake,
    /// Wakes threads, as many as `sleeping` are there.
    arrived: Condvar,
    sleeping: AtomicUsize,
    is_recalled: AtomicBool,
    is_cancelled: AtomicBool,
    is_closed: AtomicBool,
    closed: Notify,
}

impl Waiting {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            deliveries: Mutex::default(),
            wake: Wake::new()?,
            arrived: Condvar::new(),
            sleeping: AtomicUsize::new(0),
            is_recalled: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            closed: Notify::new(),
        })
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// The next delivery that may start, if one waits.
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

    /// Waits for deliveries and moves up to `most` of them; `false` when none will come any more.
    /// Must be called without the GIL.
    pub(crate) fn wait(&self, most: usize, into: &mut VecDeque<Delivery>) -> bool {
        let mut deliveries = self.lock();
        while deliveries.is_empty() {
            if self.is_closed() {
                return false;
            }
            self.sleeping.fetch_add(1, AcqRel);
            deliveries = self.arrived.wait(deliveries).unwrap_or_else(PoisonError::into_inner);
            self.sleeping.fetch_sub(1, AcqRel);
        }
        let count = most.min(deliveries.len());
        into.extend(deliveries.drain(..count));
        true
    }

    /// Takes back what a thread has taken and cannot start: it comes before all that waits.
    pub(crate) fn take_back(&self, taken: VecDeque<Delivery>) {
        if self.is_recalled() {
            taken.iter().for_each(Delivery::hand_back);
            return;
        }
        let count = taken.len();
        let mut deliveries = self.lock();
        for delivery in taken.into_iter().rev() {
            deliveries.push_front(delivery);
        }
        drop(deliveries);
        self.wake_threads(count);
    }

    fn wake_threads(&self, deliveries: usize) {
        for _ in 0..deliveries.min(self.sleeping.load(Acquire)) {
            self.arrived.notify_one();
        }
    }

    /// Whether what was taken but not started has to be handed back.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Acquire)
    }

    /// Whether what runs has to be cancelled.
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

impl Inbox for Waiting {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        let count = deliveries.len();
        self.lock().extend(deliveries.drain(..));
        self.wake_threads(count);
        self.wake.signal();
    }

    fn recall(&self) -> Vec<Delivery> {
        self.is_recalled.store(true, Release);
        self.lock().drain(..).collect()
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
        self.wake.signal();
        self.closed.notify_one();
    }
}
