//! Awaitables, and how to step them.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// Returns the coroutine to resume: the returned value itself, or the iterator of another awaitable. `None` if the
/// value is a result already.
pub(crate) fn steps_of(returned: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    if is_coroutine(returned)? {
        return Ok(Some(returned.clone().unbind()));
    }
    if returned.is_none() || !returned.hasattr("__await__")? {
        return Ok(None);
    }
    Ok(Some(returned.call_method0("__await__")?.unbind()))
}

fn is_coroutine(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    static COROUTINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let coroutine = COROUTINE.import(value.py(), "types", "CoroutineType")?;
    Ok(value.is_exact_instance(coroutine))
}
