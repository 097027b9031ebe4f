//! The user's side of a consumer: the callables that `nats_consumer.run.dispatch` built, and their limits.

use std::time::Duration;

use pyo3::prelude::*;

use crate::deliver::message::Message;
use crate::host::panic::catch_panic;

/// What to call for a delivery.
pub(crate) struct Handler {
    /// The consumer's name, for logs.
    pub(crate) name: String,
    /// `handle(message)`: a coroutine, or a plain call in a thread.
    pub(crate) handle: Py<PyAny>,
    /// `failed(message, error)`, after the last attempt: of the same kind as `handle`.
    pub(crate) failed: Py<PyAny>,
    /// How many may run at once.
    pub(crate) concurrency: usize,
    /// How long one may run.
    pub(crate) timeout: Option<Duration>,
}

impl Handler {
    /// Calls `handle`, or `failed` where an `error` ended the last attempt.
    pub(crate) fn call(
        &self,
        py: Python<'_>,
        message: &Py<Message>,
        error: Option<&PyErr>,
    ) -> PyResult<Py<PyAny>> {
        catch_panic(|| match error {
            None => self.handle.call1(py, (message,)),
            // Not `value()`: before Python 3.12 that is without its traceback.
            Some(error) => self.failed.call1(py, (message, error.clone_ref(py).into_value(py))),
        })
        .flatten()
    }
}
