//! What of nats-py's is recognized, where it is loaded; it is never imported here.

use pyo3::prelude::*;
use pyo3::types::PyType;

/// What a message answers as its `__class__`: nats-py's `Msg`, so that `isinstance` holds with it. What the
/// message is by itself, `isinstance` asks first.
pub(crate) fn message_class<'py>(own: Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    let modules = own.py().import("sys")?.getattr("modules")?;
    let module = modules.call_method1("get", ("nats.aio.msg",))?;
    match module.getattr_opt("Msg")? {
        Some(theirs) => Ok(theirs.cast_into()?),
        None => Ok(own),
    }
}
