//! The message that a handler gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nats_consumer::{Delivery, Outcome, identity};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};

use crate::deliver::attempt::Attempt;
use crate::deliver::settled::Settled;
use crate::host::error::exceptions::{MessageAlreadySettled, SettledTooEarly};
use crate::host::error::to_python;
use crate::host::forked::Birthplace;
use crate::host::future::{into_asyncio, nothing, wait_for};
use crate::host::seconds::seconds;
use crate::view::json::json;
use crate::view::metadata::Metadata;
use crate::view::nats_py::message_class;
use crate::view::{View, metadata, reply};

/// A delivery in the hands of Python.
#[pyclass(frozen, freelist = 1024, module = "nats_consumer._native")]
pub(crate) struct Message {
    hold: Hold,
    /// In a forked child, nobody hears how it is settled.
    birthplace: Birthplace,
    view: View,
    /// Its handler's work is not committed yet, so its return alone may settle it.
    is_open: AtomicBool,
}

/// Whose the delivery is.
enum Hold {
    /// Its handler's.
    Own(Delivery),
    /// Its handler's, until that runs late.
    Timed(Arc<Attempt>),
    /// The message of `failed`, because its handler ran late.
    Last(Arc<Attempt>),
}

impl Message {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self::of(Hold::Own(delivery))
    }

    /// A message for a handler that may run late: after that it cannot settle the message any more.
    pub(crate) fn timed(attempt: Arc<Attempt>) -> Self {
        Self::of(Hold::Timed(attempt))
    }

    /// A message for `failed`, when a handler that runs late had the last attempt.
    pub(crate) fn last(attempt: Arc<Attempt>) -> Self {
        Self::of(Hold::Last(attempt))
    }

    fn of(hold: Hold) -> Self {
        let birthplace = Birthplace::here();
        Self { hold, birthplace, view: View::new(), is_open: AtomicBool::new(false) }
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        match &self.hold {
            Hold::Own(delivery) => delivery,
            Hold::Timed(attempt) | Hold::Last(attempt) => attempt.delivery(),
        }
    }

    /// The attempt that its handler loses if it runs late.
    pub(crate) fn timed_attempt(&self) -> Option<Arc<Attempt>> {
        match &self.hold {
            Hold::Timed(attempt) => Some(attempt.clone()),
            Hold::Own(_) | Hold::Last(_) => None,
        }
    }

    /// Whether it is settled, or not this holder's to settle any more.
    fn is_settled(&self) -> bool {
        self.delivery().is_settled() || matches!(&self.hold, Hold::Timed(attempt) if attempt.is_late())
    }

    fn may_settle(&self) -> PyResult<()> {
        self.birthplace.check()?;
        if self.is_open.load(Relaxed) { Err(SettledTooEarly::new_err(())) } else { Ok(()) }
    }

    fn settle(&self, py: Python<'_>, outcome: Outcome) -> PyResult<Py<Settled>> {
        self.may_settle()?;
        if self.is_settled() || self.delivery().settle(outcome).is_err() {
            return Err(MessageAlreadySettled::new_err(()));
        }
        Settled::get(py)
    }
}

#[pymethods]
impl Message {
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyType>> {
        message_class(slf.get_type())
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.view.data(py, self.delivery().message())
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json(py, self.delivery().message().payload())
    }

    #[getter]
    fn subject(&self) -> &str {
        self.delivery().message().subject()
    }

    #[getter]
    fn reply(&self) -> &str {
        reply(self.delivery().message())
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        self.view.headers(py, self.delivery().message())
    }

    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        self.headers(py)
    }

    #[getter]
    fn metadata(&self) -> PyResult<Metadata> {
        metadata(self.delivery().message())
    }

    #[getter]
    fn attempt(&self) -> u64 {
        self.delivery().attempt()
    }

    /// Identity of the message at its publisher.
    #[getter]
    fn identity(&self) -> PyResult<String> {
        identity(self.delivery().message()).map_err(|error| to_python(&error))
    }

    /// Whether settling it is refused from now on.
    fn _keep_open(&self, is_open: bool) {
        self.is_open.store(is_open, Relaxed);
    }

    /// The method that its consumer routed it to.
    #[getter]
    fn _method(&self) -> Option<&str> {
        self.delivery().method()
    }

    /// It is routed to this method.
    fn _note_method(&self, name: &str) {
        self.delivery().note_method(name);
    }

    #[getter]
    fn is_acked(&self) -> bool {
        self.is_settled()
    }

    #[getter]
    fn _ackd(&self) -> bool {
        self.is_settled()
    }

    fn ack(&self, py: Python<'_>) -> PyResult<Py<Settled>> {
        self.settle(py, Outcome::Ack)
    }

    #[pyo3(signature = (delay=None))]
    fn nak(&self, py: Python<'_>, delay: Option<f64>) -> PyResult<Py<Settled>> {
        let after = delay.map_or(Ok(Duration::ZERO), |delay| seconds("delay", delay))?;
        self.settle(py, Outcome::Retry { after: Some(after) })
    }

    #[pyo3(signature = (reason=None))]
    fn term(&self, py: Python<'_>, reason: Option<String>) -> PyResult<Py<Settled>> {
        self.settle(py, Outcome::Drop { reason: reason.unwrap_or_default() })
    }

    fn in_progress(&self, py: Python<'_>) -> PyResult<Py<Settled>> {
        self.birthplace.check()?;
        self.delivery().in_progress();
        Settled::get(py)
    }

    /// Acknowledges and waits until the server has confirmed it.
    #[pyo3(signature = (timeout=1.0))]
    fn ack_sync<'py>(slf: Py<Self>, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds("timeout", timeout)?;
        slf.get().may_settle()?;
        if slf.get().is_settled() && !slf.get().delivery().is_unconfirmed() {
            return Err(MessageAlreadySettled::new_err(()));
        }
        let work = async move { confirm(slf.get().delivery(), limit).await };
        finish(py, work)
    }

    /// Stores a copy in the dead letter stream; the message itself stays to be settled.
    fn copy_to_dlq<'py>(slf: Py<Self>, py: Python<'py>, reason: String) -> PyResult<Bound<'py, PyAny>> {
        slf.get().birthplace.check()?;
        let work = async move { slf.get().delivery().copy_to_dead_letters(reason).await };
        finish(py, work)
    }

    fn __repr__(&self) -> String {
        let message = self.delivery().message();
        let size = message.payload().len();
        format!("<Message {} ({size} bytes, attempt {})>", message.subject(), self.delivery().attempt())
    }
}

/// On an event loop an awaitable; elsewhere it waits, and what it returns can be ignored.
fn finish(
    py: Python<'_>,
    work: impl Future<Output = Result<(), nats_consumer::Error>> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    if is_on_a_loop(py) {
        return into_asyncio(py, work, nothing);
    }
    wait_for(py, work)?;
    Ok(Settled::get(py)?.into_bound(py).into_any())
}

async fn confirm(delivery: &Delivery, limit: Duration) -> Result<(), nats_consumer::Error> {
    match delivery.ack_confirmed(limit).await {
        // It was settled a moment earlier: that is final.
        Ok(true) | Err(_) => Ok(()),
        Ok(false) => Err(nats_consumer::Error::new(
            nats_consumer::ErrorKind::Timeout,
            format!("The server did not confirm the acknowledgement within {limit:?}."),
        )),
    }
}

fn is_on_a_loop(py: Python<'_>) -> bool {
    let running = py.import("asyncio").and_then(|asyncio| asyncio.call_method0("_get_running_loop"));
    running.is_ok_and(|running| !running.is_none())
}
