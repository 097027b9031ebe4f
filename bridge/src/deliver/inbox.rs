//! The queue between tokio and an event loop: tokio puts deliveries in, the loop takes them out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use nats_consumer::{Delivery, Inbox};

use crate::host::lock::lock;
use crate::host::wake::Wake;

/// The deliveries that no handler has started.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    deliveries: Mutex<VecDeque<Delivery>>,
    wake: Wake,
    is_cancelled: AtomicBool,
    is_closed: AtomicBool,
}

impl DeliveryQueue {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            deliveries: Mutex::default(),
            wake: Wake::new()?,
            is_cancelled: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// The next delivery that may start `now`, if one waits.
    pub(crate) fn next(&self, now: Instant) -> Option<Delivery> {
        loop {
            let next = self.lock().pop_front()?;
            if next.may_start_at(now) {
                return Some(next);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether handlers that run have to be cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Acquire)
    }

    /// Whether nothing will come any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        lock(&self.deliveries)
    }
}

impl Inbox for DeliveryQueue {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        self.lock().extend(deliveries.drain(..));
        self.wake.signal();
    }

    fn waiting(&self) -> usize {
        self.lock().len()
    }

    fn recall(&self) -> Vec<Delivery> {
        self.lock().drain(..).collect()
    }

    fn cancel(&self) {
        self.is_cancelled.store(true, Release);
        self.wake.signal();
    }

    fn close(&self) {
        self.is_closed.store(true, Release);
        self.wake.signal();
    }
}
