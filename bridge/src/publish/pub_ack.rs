//! A stream's confirmation, as the `PubAck` of `nats_consumer.api`.
#![allow(
    unsafe_code,
    reason = "PyO3 has no safe functions to untrack an object or to set a frozen attribute"
)]

use nats_consumer::PublishAck;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use pyo3::{ffi, intern};

/// The confirmation of one message.
pub(crate) fn pub_ack(py: Python<'_>, ack: PublishAck) -> PyResult<Py<PyAny>> {
    PubAcks::new(py)?.one(ack).map(Bound::unbind)
}

/// Makes confirmations. The class is a frozen dataclass: its own `__init__` takes 3 µs (CPython 3.11), which
/// publishing many would feel. They hold texts, numbers and None, so that no cycle goes through them: the
/// garbage collector is spared the visits.
pub(crate) struct PubAcks<'py> {
    class: Bound<'py, PyType>,
    new: Bound<'py, PyAny>,
    /// Cached: consecutive acknowledgements usually name the same stream.
    stream: Option<(String, Bound<'py, PyString>)>,
}

impl<'py> PubAcks<'py> {
    pub(crate) fn new(py: Python<'py>) -> PyResult<Self> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = CLASS.import(py, "nats_consumer.api", "PubAck")?.clone();
        let new = class.getattr(intern!(py, "__new__"))?;
        Ok(Self { class, new, stream: None })
    }

    pub(crate) fn one(&mut self, ack: PublishAck) -> PyResult<Bound<'py, PyAny>> {
        let py = self.class.py();
        let made = self.new.call1((&self.class,))?;
        let is_duplicate = ack.duplicate.then_some(true);
        set(&made, intern!(py, "stream"), &self.text(ack.stream))?;
        set(&made, intern!(py, "seq"), ack.sequence.into_pyobject(py)?.as_any())?;
        set(&made, intern!(py, "domain"), &ack.domain.into_pyobject(py)?)?;
        set(&made, intern!(py, "duplicate"), &is_duplicate.into_pyobject(py)?)?;
        // SAFETY: an object of a Python class, which the collector may visit, tracked or not.
        unsafe { ffi::PyObject_GC_UnTrack(made.as_ptr().cast()) };
        Ok(made)
    }

    fn text(&mut self, stream: String) -> Bound<'py, PyString> {
        match &self.stream {
            Some((last, text)) if *last == stream => text.clone(),
            _ => {
                let text = PyString::new(self.class.py(), &stream);
                self.stream = Some((stream, text.clone()));
                text
            }
        }
    }
}

/// Sets an attribute, frozen or not: `object.__setattr__`.
fn set(object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: three live objects, borrowed for the call by a thread that is attached.
    let failed = unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if failed == 0 { Ok(()) } else { Err(PyErr::fetch(object.py())) }
}
