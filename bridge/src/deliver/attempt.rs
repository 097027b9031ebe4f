//! An attempt with a time limit, in a thread that nobody can end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::*};

use nats_consumer::{Delivery, Place};

use crate::host::lock::lock;

/// A delivery that its handler loses when its time is over.
#[derive(Debug)]
pub(crate) struct Attempt {
    delivery: Delivery,
    is_late: AtomicBool,
    has_ended: AtomicBool,
    /// Occupied for as long as a late handler still runs.
    place: Mutex<Option<Place>>,
}

impl Attempt {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            is_late: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            place: Mutex::default(),
        }
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Whether its time is over: then its handler cannot settle the delivery any more.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late.load(Acquire)
    }

    /// Its handler has ended in time; what runs on its thread has no limit from now on.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Acquire)
    }

    /// Its time is over, but its handler still runs.
    pub(crate) fn run_late(&self) {
        self.is_late.store(true, Release);
        *lock(&self.place) = Some(self.delivery.occupy());
    }

    /// Its late handler has returned.
    pub(crate) fn free_place(&self) {
        drop(lock(&self.place).take());
    }
}
