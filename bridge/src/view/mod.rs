//! A message of the engine, as Python sees it: the same for a consumer's `Message` and a client's `Msg`.

pub(crate) mod json;
pub(crate) mod metadata;
pub(crate) mod msg;
pub(crate) mod nats_py;

use nats_consumer::Message;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

use crate::host::error::exceptions::NotJetStreamMessage;
use crate::view::metadata::Metadata;

/// The Python objects of a message's parts. Each is created on first use.
pub(crate) struct View {
    data: PyOnceLock<Py<PyBytes>>,
    headers: PyOnceLock<Option<Py<PyDict>>>,
}

impl View {
    pub(crate) const fn new() -> Self {
        Self { data: PyOnceLock::new(), headers: PyOnceLock::new() }
    }

    /// A copy of the payload, so that the engine's read buffer is free again.
    pub(crate) fn data<'py>(&self, py: Python<'py>, message: &Message) -> &Bound<'py, PyBytes> {
        self.data.get_or_init(py, || PyBytes::new(py, message.payload()).unbind()).bind(py)
    }

    /// The headers with one value a name, the first, as in nats-py; None without headers.
    pub(crate) fn headers<'py>(
        &self,
        py: Python<'py>,
        message: &Message,
    ) -> PyResult<Option<&Bound<'py, PyDict>>> {
        let headers = self.headers.get_or_try_init(py, || dict_of_headers(py, message))?;
        Ok(headers.as_ref().map(|dict| dict.bind(py)))
    }
}

fn dict_of_headers(py: Python<'_>, message: &Message) -> PyResult<Option<Py<PyDict>>> {
    if message.headers().is_none() && message.status().is_none() {
        return Ok(None);
    }
    let dict = PyDict::new(py);
    // nats-py shows a status as headers.
    if let Some((code, description)) = message.status() {
        dict.set_item("Status", code.to_string())?;
        if !description.is_empty() {
            dict.set_item("Description", description)?;
        }
    }
    for (name, value) in message.header_lines() {
        if !dict.contains(name)? {
            dict.set_item(name, value)?;
        }
    }
    Ok(Some(dict.unbind()))
}

/// The reply subject; empty if there is none.
pub(crate) fn reply(message: &Message) -> &str {
    message.reply().map_or("", |reply| reply.as_str())
}

/// The metadata; `NotJetStreamMessage` if the message comes from no stream.
pub(crate) fn metadata(message: &Message) -> PyResult<Metadata> {
    let metadata = message.metadata().map_err(|_| NotJetStreamMessage::new_err(()))?;
    Ok(Metadata::from(&metadata))
}
