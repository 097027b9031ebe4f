//! The message that a handler gets. Everything about it is made on first use.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{Delivery, Outcome};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

use crate::host::error::exceptions::{MessageAlreadySettled, NotJetStreamMessage};
use crate::host::future::{into_asyncio, nothing, wait_for};
use crate::options::seconds;
use crate::threads::late::Run;
use crate::view::nats_py::message_class;

/// A delivery in the hands of Python.
#[pyclass(frozen, freelist = 1024, module = "nats_consumer._native")]
pub(crate) struct Message {
    hold: Hold,
    data: PyOnceLock<Py<PyBytes>>,
    headers: PyOnceLock<Option<Py<PyDict>>>,
}

/// Whose the delivery is.
enum Hold {
    /// Its handler's.
    Own(Delivery),
    /// Its handler's, until that runs late.
    Timed(Arc<Run>),
    /// That of `failed`, because its handler ran late.
    Last(Arc<Run>),
}

impl Message {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self::of(Hold::Own(delivery))
    }

    /// For a handler that may run late: then it cannot settle the message any more.
    pub(crate) fn timed(run: Arc<Run>) -> Self {
        Self::of(Hold::Timed(run))
    }

    /// For `failed`, when a handler that runs late had the last attempt.
    pub(crate) fn last(run: Arc<Run>) -> Self {
        Self::of(Hold::Last(run))
    }

    fn of(hold: Hold) -> Self {
        Self { hold, data: PyOnceLock::new(), headers: PyOnceLock::new() }
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        match &self.hold {
            Hold::Own(delivery) => delivery,
            Hold::Timed(run) | Hold::Last(run) => run.delivery(),
        }
    }

    /// Whether it is settled, or not this holder's to settle any more.
    fn is_settled(&self) -> bool {
        self.delivery().is_settled() || matches!(&self.hold, Hold::Timed(run) if run.is_late())
    }

    fn settle(&self, py: Python<'_>, outcome: Outcome) -> PyResult<Py<Settled>> {
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

    /// A copy, so that the engine's read buffer is free again.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.data.get_or_init(py, || PyBytes::new(py, self.delivery().message().payload()).unbind()).bind(py)
    }

    #[getter]
    fn subject<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.delivery().message().subject())
    }

    #[getter]
    fn reply(&self) -> &str {
        self.delivery().message().reply().map_or("", |reply| reply.as_str())
    }

    /// One value a name, the first, as in nats-py; None without headers.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        let headers = self.headers.get_or_try_init(py, || {
            if self.delivery().message().headers().is_none() {
                return Ok::<_, PyErr>(None);
            }
            let dict = PyDict::new(py);
            for (name, value) in self.delivery().message().header_lines() {
                if !dict.contains(name)? {
                    dict.set_item(name, value)?;
                }
            }
            Ok(Some(dict.unbind()))
        })?;
        Ok(headers.as_ref().map(|dict| dict.bind(py)))
    }

    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        self.headers(py)
    }

    #[getter]
    fn metadata(&self) -> PyResult<Metadata> {
        let metadata = self.delivery().message().metadata().map_err(|_| NotJetStreamMessage::new_err(()))?;
        Ok(Metadata::from(&metadata))
    }

    #[getter]
    fn attempt(&self) -> u64 {
        self.delivery().attempt()
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
        self.delivery().in_progress();
        Settled::get(py)
    }

    /// Acknowledges and waits until the server has confirmed it.
    #[pyo3(signature = (timeout=1.0))]
    fn ack_sync<'py>(slf: Py<Self>, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds("timeout", timeout)?;
        if slf.get().is_settled() {
            return Err(MessageAlreadySettled::new_err(()));
        }
        let work = async move { confirm(slf.get().delivery(), limit).await };
        finish(py, work)
    }

    /// Stores a copy in the dead letter stream; the message itself stays to be settled.
    fn copy_to_dlq<'py>(slf: Py<Self>, py: Python<'py>, reason: String) -> PyResult<Bound<'py, PyAny>> {
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
        // Whoever settled it a moment earlier has had the final word.
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

/// What settling returns: it is done already, but may be awaited, also by a task of its own: it has all that
/// asyncio wants of a coroutine.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Settled;

impl Settled {
    fn get(py: Python<'_>) -> PyResult<Py<Self>> {
        static SETTLED: PyOnceLock<Py<Settled>> = PyOnceLock::new();
        Ok(SETTLED.get_or_try_init(py, || Py::new(py, Self))?.clone_ref(py))
    }
}

#[pymethods]
impl Settled {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    fn send(&self, _value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, *_rest))]
    fn throw(&self, error: &Bound<'_, PyAny>, _rest: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(PyErr::from_value(error.clone()))
    }

    fn close(&self) {}
}

/// Where a message is: in its stream, and among the consumer's deliveries.
#[pyclass(frozen, get_all, module = "nats_consumer._native")]
#[derive(Clone)]
pub(crate) struct SequencePair {
    stream: u64,
    consumer: u64,
}

/// What the server tells about a delivery.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Metadata {
    #[pyo3(get)]
    sequence: SequencePair,
    #[pyo3(get)]
    num_delivered: u64,
    #[pyo3(get)]
    num_pending: u64,
    nanoseconds: i64,
    #[pyo3(get)]
    stream: String,
    #[pyo3(get)]
    consumer: String,
    #[pyo3(get)]
    domain: Option<String>,
}

impl From<&nats_consumer::Metadata<'_>> for Metadata {
    fn from(metadata: &nats_consumer::Metadata<'_>) -> Self {
        Self {
            sequence: SequencePair { stream: metadata.stream_sequence, consumer: metadata.consumer_sequence },
            num_delivered: metadata.delivered,
            num_pending: metadata.pending,
            nanoseconds: metadata.timestamp,
            stream: metadata.stream.to_owned(),
            consumer: metadata.consumer.to_owned(),
            domain: metadata.domain.map(str::to_owned),
        }
    }
}

#[pymethods]
impl Metadata {
    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let datetime = py.import("datetime")?;
        let utc = datetime.getattr("timezone")?.getattr("utc")?;
        let epoch = datetime.getattr("datetime")?.call1((1970, 1, 1, 0, 0, 0, 0, utc))?;
        // By whole microseconds: a float of seconds is not exact.
        let since = datetime.getattr("timedelta")?.call1((0, 0, self.nanoseconds / 1000))?;
        epoch.call_method1("__add__", (since,))
    }

    fn __repr__(&self) -> String {
        let SequencePair { stream: message, consumer: delivery } = self.sequence;
        let Self { stream, consumer, num_delivered: attempt, num_pending: pending, .. } = self;
        format!(
            "<Metadata: message {message} of stream {stream}, delivery {delivery} of consumer {consumer}, \
             attempt {attempt}, {pending} pending>"
        )
    }
}

#[pymethods]
impl SequencePair {
    fn __repr__(&self) -> String {
        format!("SequencePair(stream={}, consumer={})", self.stream, self.consumer)
    }
}
