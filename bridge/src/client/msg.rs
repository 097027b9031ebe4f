//! A message of a subscription or an answer to a request: the Msg of nats-py.

use std::sync::atomic::{AtomicBool, Ordering::*};
use std::time::Duration;

use nats_consumer::acknowledge::{Word, ack_confirmed, settle};
use nats_consumer::publish::send;
use nats_consumer::{Connection as Engine, Message, Outgoing};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyType};

use crate::deliver::message::Metadata;
use crate::host::error::exceptions::{MessageAlreadySettled, MessageError, NotJetStreamMessage};
use crate::host::error::to_python;
use crate::host::future::{begun, into_asyncio, nothing};
use crate::options::seconds;
use crate::view::nats_py::message_class;

/// In place of a subscription's number: all answers come by one.
pub(crate) const ANSWERS: u64 = 0;

/// A message; everything about it is made on first use.
#[pyclass(frozen, freelist = 1024, module = "nats_consumer._native")]
pub(crate) struct Msg {
    message: Message,
    connection: Engine,
    sid: u64,
    is_settled: AtomicBool,
    data: PyOnceLock<Py<PyBytes>>,
    headers: PyOnceLock<Option<Py<PyDict>>>,
}

impl Msg {
    /// A message of the subscription `sid`, or the answer to a request, of [`ANSWERS`].
    pub(crate) fn new(message: Message, connection: Engine, sid: u64) -> Self {
        let is_settled = AtomicBool::new(false);
        Self { message, connection, sid, is_settled, data: PyOnceLock::new(), headers: PyOnceLock::new() }
    }

    fn say<'py>(&self, py: Python<'py>, word: Word) -> PyResult<Bound<'py, PyAny>> {
        self.check_stream()?;
        // A sign of life may come at any time, and any number of times.
        if word != Word::InProgress && self.is_settled.swap(true, AcqRel) {
            return Err(MessageAlreadySettled::new_err(()));
        }
        let (connection, message) = (self.connection.clone(), self.message.clone());
        begun(py, async move { settle(&connection, &message, word).await }, nothing)
    }

    fn check_stream(&self) -> PyResult<()> {
        self.message.metadata().map_err(|_| NotJetStreamMessage::new_err(()))?;
        Ok(())
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

    /// A copy, so that the engine's read buffer is free again.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.data.get_or_init(py, || PyBytes::new(py, self.message.payload()).unbind()).bind(py)
    }

    #[getter]
    fn subject(&self) -> &str {
        self.message.subject()
    }

    #[getter]
    fn reply(&self) -> &str {
        self.message.reply().map_or("", |reply| reply.as_str())
    }

    /// One value a name, the first, as in nats-py; None without headers. A status is a header there.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        let headers = self.headers.get_or_try_init(py, || {
            if self.message.headers().is_none() && self.message.status().is_none() {
                return Ok::<_, PyErr>(None);
            }
            let dict = PyDict::new(py);
            if let Some((code, words)) = self.message.status() {
                dict.set_item("Status", code.to_string())?;
                if !words.is_empty() {
                    dict.set_item("Description", words)?;
                }
            }
            for (name, value) in self.message.header_lines() {
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
        self.message
            .metadata()
            .map(|metadata| Metadata::from(&metadata))
            .map_err(|_| NotJetStreamMessage::new_err(()))
    }

    #[getter]
    fn is_acked(&self) -> bool {
        self.is_settled.load(Acquire)
    }

    #[getter]
    fn _ackd(&self) -> bool {
        self.is_acked()
    }

    fn ack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.say(py, Word::Ack)
    }

    #[pyo3(signature = (delay=None))]
    fn nak<'py>(&self, py: Python<'py>, delay: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let after = delay.map_or(Ok(Duration::ZERO), |delay| seconds("delay", delay))?;
        self.say(py, Word::Nak(after))
    }

    #[pyo3(signature = (reason=None))]
    fn term<'py>(&self, py: Python<'py>, reason: Option<String>) -> PyResult<Bound<'py, PyAny>> {
        self.say(py, Word::Term(reason.unwrap_or_default()))
    }

    fn in_progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.say(py, Word::InProgress)
    }

    /// Acknowledges, and waits until the server has confirmed it.
    #[pyo3(signature = (timeout=1.0))]
    fn ack_sync<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds("timeout", timeout)?;
        self.check_stream()?;
        if self.is_settled.swap(true, AcqRel) {
            return Err(MessageAlreadySettled::new_err(()));
        }
        let (connection, message) = (self.connection.clone(), self.message.clone());
        let asking = async move {
            let answer = ack_confirmed(&connection, &message, limit).await?;
            Ok(Self::new(answer, connection, ANSWERS))
        };
        into_asyncio(py, asking, |py, answer| Ok(Py::new(py, answer)?.into_any()))
    }

    /// Sends an answer to where the message asks for it.
    fn respond<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if self.reply().is_empty() {
            let text = "The message has no reply subject: whoever sent it wants no answer.";
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
