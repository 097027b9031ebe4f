//! A message of a subscription or an answer to a request: the Msg of nats-py.

use std::sync::atomic::{AtomicU8, Ordering::*};
use std::time::Duration;

use nats_consumer::acknowledge::{Verdict, ack_confirmed, settle};
use nats_consumer::publish::send;
use nats_consumer::{Connection as Engine, Message, Outgoing};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};

use crate::host::error::exceptions::{MessageAlreadySettled, MessageError};
use crate::host::error::to_python;
use crate::host::forked::Birthplace;
use crate::host::future::{begun, into_asyncio, nothing};
use crate::host::seconds::seconds;
use crate::view::json::json;
use crate::view::metadata::Metadata;
use crate::view::nats_py::message_class;
use crate::view::{View, metadata, reply};

/// Stands for the number of the subscription that all answers come by.
pub(crate) const ANSWERS: u64 = 0;

/// The states of a message.
const OPEN: u8 = 0;
/// The server was asked to confirm an acknowledgement, and has not answered: as long as that is so, the message can
/// be settled, as with nats-py.
const ASKED: u8 = 1;
const SETTLED: u8 = 2;

/// A message.
#[pyclass(frozen, freelist = 1024, module = "nats_consumer._native")]
pub(crate) struct Msg {
    message: Message,
    connection: Engine,
    birthplace: Birthplace,
    sid: u64,
    state: AtomicU8,
    view: View,
}

impl Msg {
    /// A message of the subscription `sid`, or the answer to a request, of [`ANSWERS`].
    pub(crate) fn new(message: Message, connection: Engine, sid: u64) -> Self {
        let (birthplace, state) = (Birthplace::here(), AtomicU8::new(OPEN));
        Self { message, connection, birthplace, sid, state, view: View::new() }
    }

    fn say<'py>(&self, py: Python<'py>, verdict: Verdict) -> PyResult<Bound<'py, PyAny>> {
        self.may_settle()?;
        // A heartbeat may come at any time, and any number of times.
        if verdict != Verdict::InProgress {
            self.move_to(SETTLED)?;
        }
        let (connection, message) = (self.connection.clone(), self.message.clone());
        begun(py, async move { settle(&connection, &message, verdict).await }, nothing)
    }

    fn move_to(&self, state: u8) -> PyResult<()> {
        match self.state.fetch_max(state, AcqRel) {
            SETTLED => Err(MessageAlreadySettled::new_err(())),
            _ => Ok(()),
        }
    }

    fn may_settle(&self) -> PyResult<()> {
        self.birthplace.check()?;
        metadata(&self.message).map(drop)
    }
}

#[pymethods]
impl Msg {
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyType>> {
        message_class(slf.get_type())
    }

    #[getter]
    fn sid(&self) -> u64 {
        self.sid
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.view.data(py, &self.message)
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json(py, self.message.payload())
    }

    #[getter]
    fn subject(&self) -> &str {
        self.message.subject()
    }

    #[getter]
    fn reply(&self) -> &str {
        reply(&self.message)
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        self.view.headers(py, &self.message)
    }

    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        self.headers(py)
    }

    #[getter]
    fn metadata(&self) -> PyResult<Metadata> {
        metadata(&self.message)
    }

    #[getter]
    fn is_acked(&self) -> bool {
        self.state.load(Acquire) == SETTLED
    }

    #[getter]
    fn _ackd(&self) -> bool {
        self.is_acked()
    }

    fn ack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.say(py, Verdict::Ack)
    }

    #[pyo3(signature = (delay=None))]
    fn nak<'py>(&self, py: Python<'py>, delay: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let after = delay.map_or(Ok(Duration::ZERO), |delay| seconds("delay", delay))?;
        self.say(py, Verdict::Nak(after))
    }

    #[pyo3(signature = (reason=None))]
    fn term<'py>(&self, py: Python<'py>, reason: Option<String>) -> PyResult<Bound<'py, PyAny>> {
        self.say(py, Verdict::Term(reason.unwrap_or_default()))
    }

    fn in_progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.say(py, Verdict::InProgress)
    }

    /// Acknowledges, and waits until the server has confirmed it. Where it did not, it can be asked again.
    #[pyo3(signature = (timeout=1.0))]
    fn ack_sync<'py>(slf: Py<Self>, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds("timeout", timeout)?;
        slf.get().may_settle()?;
        slf.get().move_to(ASKED)?;
        let asking = async move {
            let Self { connection, message, state, .. } = slf.get();
            let answer = ack_confirmed(connection, message, limit).await?;
            state.store(SETTLED, Release);
            Ok(Self::new(answer, connection.clone(), ANSWERS))
        };
        into_asyncio(py, asking, |py, answer| Ok(Py::new(py, answer)?.into_any()))
    }

    /// Sends an answer to where the message asks for it.
    fn respond<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        self.birthplace.check()?;
        if self.reply().is_empty() {
            let text = "The message has no reply subject: its sender does not expect an answer.";
            return Err(MessageError::new_err(text));
        }
        let outgoing = Outgoing::to(self.reply(), data.to_vec()).map_err(|error| to_python(&error))?;
        let connection = self.connection.clone();
        begun(py, async move { send(&connection, outgoing, None).await }, nothing)
    }

    fn __repr__(&self) -> String {
        format!("<Msg {} ({} bytes)>", self.message.subject(), self.message.payload().len())
    }
}
