//! One tokio runtime a process.
//!
//! The runtime belongs to the process that made it: after a fork its threads exist only in the parent. A
//! child forgets it (never drops it: that would wait for those threads) and makes its own on first use.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::*};
use std::time::Duration;

use nats_consumer::Consumption;
use tokio::runtime::{Builder, Runtime};

struct OfProcess {
    pid: u32,
    runtime: Runtime,
}

/// Leaked on purpose, and no lock: a fork may happen at any moment.
static CURRENT: AtomicPtr<OfProcess> = AtomicPtr::new(std::ptr::null_mut());

/// The runtime of this process.
#[allow(
    unsafe_code,
    reason = "an atomic pointer is the only lock-free cell for it, and a lock may be held at a fork"
)]
pub(crate) fn runtime() -> &'static Runtime {
    let pid = std::process::id();
    let current = CURRENT.load(Acquire);
    // SAFETY: what CURRENT points to was leaked by `Box::into_raw` below and is never freed.
    if let Some(owned) = unsafe { current.as_ref() }
        && owned.pid == pid
    {
        return &owned.runtime;
    }
    let fresh = Box::into_raw(Box::new(OfProcess { pid, runtime: build() }));
    match CURRENT.compare_exchange(current, fresh, AcqRel, Acquire) {
        // SAFETY: as above; nobody frees what was just leaked.
        Ok(_) => unsafe { &(*fresh).runtime },
        Err(_) => {
            // SAFETY: another thread was faster; nobody else has seen ours.
            drop(unsafe { Box::from_raw(fresh) });
            runtime()
        }
    }
}

/// Ends a consumption: a drain without grace that nobody waits for.
pub(crate) fn end_at_once(consumption: Arc<Consumption>) {
    runtime().spawn(async move { consumption.drain(Duration::ZERO).await });
}

fn build() -> Runtime {
    Builder::new_multi_thread()
        // Two would hand each message to one another; one carries more than Python's thread can handle
        // (docs/decisions/0012).
        .worker_threads(1)
        .thread_name("nats-consumer")
        .enable_all()
        .build()
        .expect("the operating system gives threads to the engine")
}
