//! A task of the engine that panics ends its consumption, and says so: what only looks as if it consumed
//! would be worse.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::error;

use crate::observe::target::CONSUMER;

/// Whether a task of one consumption has panicked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defect(CancellationToken);

impl Defect {
    /// Runs a task of the consumption of this name; its panic is the defect.
    pub(crate) fn watch<T>(&self, consumer: &str, task: T) -> impl Future<Output = ()> + Send + use<T>
    where
        T: Future<Output = ()> + Send,
    {
        let (found, consumer) = (self.0.clone(), consumer.to_owned());
        async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                error!(
                    target: CONSUMER,
                    consumer,
                    "A task of the engine panicked ({}), so this consumer ends. This is a bug of nats-consumer: \
                     please report it",
                    describe(panic.as_ref())
                );
                found.cancel();
            }
        }
    }

    pub(crate) fn is_found(&self) -> bool {
        self.0.is_cancelled()
    }

    pub(crate) fn found(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled()
    }

    /// Returns a token that a defect cancels, too.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.0.child_token()
    }
}

/// The message of a panic.
pub(crate) fn describe(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
