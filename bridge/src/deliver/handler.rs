//! The user's side of a consumer: the callables that `nats_consumer.run` built, and their limits.

use std::time::Duration;

use pyo3::prelude::*;

use crate::deliver::message::Message;
use crate::host::call::call;
use crate::host::panic::catch_panic;

/// The functions of Python to call for a delivery.
pub(crate) struct Handler {
    /// The consumer's name.
    pub(crate) name: String,
    /// `handle(message)`: a coroutine, or a plain call in a thread. With a list of messages, where a consumer handles
    /// batches: that judges each of them.
    pub(crate) handle: Py<PyAny>,
    /// `failed(message, error)`, after the last attempt: of the same kind as `handle`.
    pub(crate) failed: Py<PyAny>,
    /// `log(message, error, follows)` writes the line of log for a failed attempt.
    pub(crate) log: Py<PyAny>,
    /// How many may run at once.
    pub(crate) concurrency: usize,
    /// How long one may run.
    pub(crate) timeout: Option<Duration>,
    /// Whether `handle` ends what runs too long on the event loop, and judges it.
    pub(crate) keeps_time: bool,
}

impl Handler {
    /// Reports a failed attempt that is not the last one.
    pub(crate) fn log_failure(
        &self,
        py: Python<'_>,
        message: &Py<Message>,
        error: &PyErr,
        follows: &str,
    ) -> PyResult<()> {
        let error = error.clone_ref(py).into_value(py);
        call(self.log.bind(py), (message, error, follows)).map(drop)
    }

    /// Calls `handle`, or `failed` where an `error` ended the last attempt.
    pub(crate) fn call(
        &self,
        py: Python<'_>,
        message: &Py<Message>,
        error: Option<&PyErr>,
    ) -> PyResult<Py<PyAny>> {
        catch_panic(|| match error {
            None => call(self.handle.bind(py), (message,)),
            // Not `value()`: before Python 3.12 that is without its traceback.
            Some(error) => call(self.failed.bind(py), (message, error.clone_ref(py).into_value(py))),
        })
        .flatten()
        .map(Bound::unbind)
    }
}
