//! How long threads wait for the interpreter: the thread that carries the log takes it now and then, and what it waits
//! for then, every other thread waits for too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nats_consumer::observe::Host;

static HOST: OnceLock<Host> = OnceLock::new();

/// When a thread began to wait, in nanoseconds since `first`.
static WANTED: AtomicU64 = AtomicU64::new(0);

/// From now on it is measured.
pub(crate) fn measure(host: Host) {
    let _ = HOST.set(host);
}

/// The measurements, if there are any.
pub(crate) fn host() -> Option<&'static Host> {
    HOST.get()
}

/// A thread begins to wait. The first of several counts: what it waits for, the others wait for too.
pub(crate) fn wants() {
    if let Some(host) = host()
        && WANTED.compare_exchange(0, clock(), Relaxed, Relaxed).is_ok()
    {
        host.wants_interpreter();
    }
}

/// A thread has it.
pub(crate) fn has() {
    let wanted = WANTED.swap(0, Relaxed);
    if let Some(host) = host().filter(|_| wanted > 0) {
        host.has_interpreter();
        host.interpreter_wait.observe(Duration::from_nanos(clock().saturating_sub(wanted)));
    }
}

/// A log record was dropped because the thread did not take it.
pub(crate) fn dropped_record() {
    if let Some(host) = host() {
        host.dropped_record();
    }
}

/// Nanoseconds; never 0.
fn clock() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    u64::try_from(FIRST.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}
