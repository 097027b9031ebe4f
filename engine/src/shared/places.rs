//! How many deliveries may be in hand at once, counted in messages and in bytes.

use std::pin::pin;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::*};

use tokio::sync::Notify;

/// Counts the deliveries in hand and wakes tasks that wait for it to fall.
#[derive(Debug)]
pub(crate) struct Places {
    held: AtomicUsize,
    bytes: AtomicUsize,
    settled: AtomicUsize,
    /// Somebody waits until no more than this are held.
    wanted: AtomicIsize,
    fallen: Notify,
}

/// `wanted` when nobody waits.
const NOBODY: isize = -1;

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            held: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            wanted: AtomicIsize::new(NOBODY),
            fallen: Notify::new(),
        }
    }

    pub(crate) fn take(&self, messages: usize, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.held.fetch_add(messages, SeqCst);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.settled.fetch_add(1, Relaxed);
        // In one order with the waiter's store and load, or each could miss the other.
        let held = self.held.fetch_sub(1, SeqCst) - 1;
        if count(held) <= self.wanted.load(SeqCst) {
            self.wanted.store(NOBODY, SeqCst);
            self.fallen.notify_waiters();
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// How many were released since the beginning.
    pub(crate) fn settled(&self) -> usize {
        self.settled.load(Relaxed)
    }

    /// Waits until no more than `mark` are held. Several may wait; one that is woken too early waits again.
    pub(crate) async fn fallen_to(&self, mark: usize) {
        loop {
            let mut fallen = pin!(self.fallen.notified());
            fallen.as_mut().enable();
            self.wanted.fetch_max(count(mark), SeqCst);
            if self.held() <= mark {
                return;
            }
            fallen.await;
        }
    }
}

fn count(places: usize) -> isize {
    isize::try_from(places).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_waits_for_places_is_woken() {
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
    async fn wakes_everybody_who_waits() {
        let places = Arc::new(Places::new());
        places.take(3, 0);
        let waiting = [2, 0, 0].map(|mark| {
            let places = places.clone();
            tokio::spawn(async move { places.fallen_to(mark).await })
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
            places.release(0);
        }
        for waiter in waiting {
            waiter.await.unwrap();
        }
    }

    #[tokio::test]
    async fn does_not_wait_for_places_that_are_free() {
        Places::new().fallen_to(0).await;
    }
}
