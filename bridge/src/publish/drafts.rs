//! Many messages to publish, all of them checked before the first one is sent.

use std::collections::HashMap;

use bytes::BytesMut;
use nats_consumer::Outgoing;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::host::error::to_python;
use crate::publish::outgoing::with_headers;

/// Bytes of many messages that are allocated at once; as much as `BytesMut` goes on to allocate when they are full.
const BLOCK: usize = 64 << 10;

/// A message: subject, payload, headers.
type Draft = (PyBackedStr, PyBackedBytes, Option<HashMap<String, String>>);

/// A draft as Python sees it.
type Shown<'a, 'py> = (&'a str, Bound<'py, PyBytes>, Option<HashMap<&'a str, &'a str>>);

/// Messages, checked and encoded, in their order.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Drafts {
    messages: Vec<Outgoing>,
}

#[pymethods]
impl Drafts {
    /// Takes what `publish_many()` takes. `draft` makes a draft of everything but a pair of text without braces and
    /// bytes or text. A note on an exception says which message it is about.
    #[new]
    fn new(messages: &Bound<'_, PyAny>, draft: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut block = BytesMut::with_capacity(BLOCK);
        let packed = messages.try_iter()?.enumerate().map(|(index, message)| {
            let message = message?;
            pack(&mut block, &message, draft).map_err(|error| {
                match message.get_item(0).or_else(|_| message.getattr("subject")) {
                    Ok(subject) => noted(error, index, &subject),
                    Err(_) => error,
                }
            })
        });
        Ok(Self { messages: packed.collect::<PyResult<_>>()? })
    }

    fn __len__(&self) -> usize {
        self.messages.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Shown<'_, 'py>> {
        let message = self.messages.get(index).ok_or_else(|| PyIndexError::new_err(index))?;
        let headers = message.headers().iter().filter_map(|(name, values)| {
            values.first().map(|value| (<_ as AsRef<str>>::as_ref(name), value.as_str()))
        });
        let headers: HashMap<_, _> = headers.collect();
        let headers = Some(headers).filter(|headers| !headers.is_empty());
        Ok((message.subject(), PyBytes::new(py, message.payload()), headers))
    }
}

impl Drafts {
    /// They share the memory of their texts.
    pub(crate) fn messages(&self) -> &[Outgoing] {
        &self.messages
    }
}

/// Says in a note which of many messages the exception is about.
pub(crate) fn noted(error: PyErr, index: usize, subject: &Bound<'_, PyAny>) -> PyErr {
    let py = subject.py();
    let spelled = subject.repr().map_or_else(|_| String::from("?"), |text| text.to_string());
    let note = format!("This was message {index}, to {spelled}.");
    match error.value(py).call_method1("add_note", (note,)) {
        Ok(_) => error,
        Err(other) => other,
    }
}

fn pack(block: &mut BytesMut, message: &Bound<'_, PyAny>, draft: &Bound<'_, PyAny>) -> PyResult<Outgoing> {
    if let Some(packed) = pack_as_it_is(block, message) {
        return packed;
    }
    let (subject, payload, headers): Draft = draft.call1((message,))?.extract()?;
    with_headers(Outgoing::packed(block, &subject, &payload), headers.as_ref())
}

/// Most are a text and bytes or text: for them no Python has to run.
fn pack_as_it_is(block: &mut BytesMut, message: &Bound<'_, PyAny>) -> Option<PyResult<Outgoing>> {
    let pair = message.cast_exact::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
    let (subject, data) = (pair.get_item(0).ok()?, pair.get_item(1).ok()?);
    let subject = subject.cast_exact::<PyString>().ok()?.to_str().ok()?;
    if subject.contains('{') {
        return None; // a template, or a mistake
    }
    let payload = match data.cast_exact::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes(),
        Err(_) => data.cast_exact::<PyString>().ok()?.to_str().ok()?.as_bytes(),
    };
    Some(Outgoing::packed(block, subject, payload).map_err(|error| to_python(&error)))
}
