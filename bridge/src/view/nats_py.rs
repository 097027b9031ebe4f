//! Makes messages pass `isinstance(..., nats.aio.msg.Msg)` if nats-py is loaded. It is never imported here.

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Returns the `__class__` of a message: nats-py's `Msg`, so that `isinstance` holds with it. `isinstance` looks at
/// the message's own type first.
pub(crate) fn message_class<'py>(own: Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    let modules = own.py().import("sys")?.getattr("modules")?;
    let module = modules.call_method1("get", ("nats.aio.msg",))?;
    match module.getattr_opt("Msg")? {
        Some(theirs) => Ok(theirs.cast_into()?),
        None => Ok(own),
    }
}
