//! One tokio runtime a process.
//!
//! The runtime belongs to the process that made it: after a fork its threads exist only in the parent. A
//! child forgets it (never drops it: that would wait for those threads) and makes its own on first use.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::Consumption;
use tokio::runtime::{Builder, Runtime};

use crate::host::process::PerProcess;

static RUNTIME: PerProcess<Runtime> = PerProcess::new();

/// The runtime of this process.
pub(crate) fn runtime() -> &'static Runtime {
    RUNTIME.get_or(build)
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
