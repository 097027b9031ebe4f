//! Locking a mutex that a panic may have poisoned, or a fork left locked.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::sleep;
use std::time::Duration;

/// How long a lock of the process is waited for. It is held for microseconds.
const TRIES: u32 = 1_000;
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// Locks the mutex. A thread that panicked while it held the lock does not stop the others: what the engine guards
/// this way is valid after each statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex that all threads of the process share, as in a static. `None` if it stays locked: then a thread of the
/// parent held it when this process was forked, and no thread here unlocks it.
pub(crate) fn lock_of_process<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..TRIES {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => sleep(TRY_AGAIN),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{scope, spawn};

    use super::*;

    #[test]
    fn a_lock_that_a_fork_left_locked_is_not_waited_for_without_limit() {
        static LEFT_LOCKED: Mutex<()> = Mutex::new(());
        std::mem::forget(lock(&LEFT_LOCKED));
        let (ended, has_ended) = channel();
        spawn(move || ended.send(lock_of_process(&LEFT_LOCKED).is_none()));
        assert_eq!(has_ended.recv_timeout(Duration::from_secs(30)), Ok(true));
    }

    #[test]
    fn a_lock_that_another_thread_holds_for_a_moment_is_waited_for() {
        let mutex = Mutex::new(0);
        scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| (0..100).for_each(|_| *lock_of_process(&mutex).unwrap() += 1));
            }
        });
        assert_eq!(*lock(&mutex), 800);
    }
}
