//! How many deliveries may be in hand at once, counted in messages and in bytes.

use std::sync::atomic::{AtomicUsize, Ordering::*};

use tokio::sync::Notify;

/// Counts the deliveries in hand and wakes whoever waits for it to fall.
#[derive(Debug)]
pub(crate) struct Places {
    held: AtomicUsize,
    bytes: AtomicUsize,
    settled: AtomicUsize,
    /// Whoever waits wants to know when `held` falls to this.
    wanted: AtomicUsize,
    fallen: Notify,
}

/// `wanted` when nobody waits.
const NOBODY: usize = usize::MAX;

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            held: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            wanted: AtomicUsize::new(NOBODY),
            fallen: Notify::new(),
        }
    }

    pub(crate) fn take(&self, messages: usize, bytes: usize) {
        self.held.fetch_add(messages, AcqRel);
        self.bytes.fetch_add(bytes, AcqRel);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, AcqRel);
        self.settled.fetch_add(1, Relaxed);
        // It falls one by one, so nobody's mark is jumped over.
        let held = self.held.fetch_sub(1, AcqRel) - 1;
        if held == self.wanted.load(Acquire) {
            self.fallen.notify_one();
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Acquire)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.load(Acquire)
    }

    /// How many were released since the beginning.
    pub(crate) fn settled(&self) -> usize {
        self.settled.load(Relaxed)
    }

    /// Waits until no more than `mark` are held. One waiter at a time.
    pub(crate) async fn fallen_to(&self, mark: usize) {
        loop {
            self.wanted.store(mark, Release);
            if self.held() <= mark {
                break;
            }
            self.fallen.notified().await;
        }
        self.wanted.store(NOBODY, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn wakes_whoever_waits_for_places() {
        let places = Arc::new(Places::new());
        places.take(3, 30);
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.fallen_to(1).await }
        });
        places.release(10);
        places.release(10);
        waiting.await.unwrap();
        assert_eq!((places.held(), places.held_bytes(), places.settled()), (1, 10, 2));
    }

    #[tokio::test]
    async fn does_not_wait_for_places_that_are_free() {
        Places::new().fallen_to(0).await;
    }
}
