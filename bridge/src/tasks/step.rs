//! One step of a coroutine, in its own context.

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::host::panic::catch_panic;

/// What a step of a coroutine came to.
pub(crate) enum Step {
    /// It returned.
    Done(Py<PyAny>),
    /// It waits for this future (or gives way, with None).
    Waits(Py<PyAny>),
    /// It raised.
    Failed(PyErr),
}

/// A contextvars context: what one delivery sets, the next does not see.
pub(crate) struct Context(Py<PyAny>);

// Exported by every CPython from 3.7 on, though not part of the limited API.
unsafe extern "C" {
    fn PyContext_CopyCurrent() -> *mut ffi::PyObject;
    fn PyContext_Enter(context: *mut ffi::PyObject) -> std::ffi::c_int;
    fn PyContext_Exit(context: *mut ffi::PyObject) -> std::ffi::c_int;
}

impl Context {
    /// A copy of the current context.
    pub(crate) fn copy(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: attached to Python; the result is a new reference or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, PyContext_CopyCurrent()) }.map(|copy| Self(copy.unbind()))
    }

    /// A context that Python handed over.
    pub(crate) fn of(context: Py<PyAny>) -> Self {
        Self(context)
    }

    /// Runs `work` inside the context.
    pub(crate) fn run<T>(&self, py: Python<'_>, work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        // SAFETY: attached to Python, and what is no context is refused.
        if unsafe { PyContext_Enter(self.0.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        let result = work();
        // SAFETY: as above; it was entered just now, and `work` left what it entered itself.
        if unsafe { PyContext_Exit(self.0.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        result
    }
}

/// Resumes `coroutine`.
pub(crate) fn resume(py: Python<'_>, coroutine: &Py<PyAny>) -> Step {
    catch_panic(|| send(py, coroutine)).unwrap_or_else(Step::Failed)
}

fn send(py: Python<'_>, coroutine: &Py<PyAny>) -> Step {
    let mut result = std::ptr::null_mut();
    // SAFETY: attached to Python; `coroutine` is an iterator (see `as_coroutine`) and `result` receives a
    // new reference unless the answer is an error.
    let answer = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) };
    match answer {
        // SAFETY: a new reference, as above.
        ffi::PySendResult::PYGEN_RETURN => Step::Done(unsafe { Bound::from_owned_ptr(py, result) }.unbind()),
        // SAFETY: a new reference, as above.
        ffi::PySendResult::PYGEN_NEXT => Step::Waits(unsafe { Bound::from_owned_ptr(py, result) }.unbind()),
        ffi::PySendResult::PYGEN_ERROR => Step::Failed(PyErr::fetch(py)),
    }
}

/// Resumes `coroutine` by raising `error` where it waits.
pub(crate) fn interrupt(py: Python<'_>, coroutine: &Py<PyAny>, error: Py<PyAny>) -> Step {
    match catch_panic(|| coroutine.call_method1(py, "throw", (error,))).flatten() {
        Ok(future) => Step::Waits(future),
        Err(stop) if stop.is_instance_of::<PyStopIteration>(py) => match stop.value(py).getattr("value") {
            Ok(value) => Step::Done(value.unbind()),
            Err(error) => Step::Failed(error),
        },
        Err(error) => Step::Failed(error),
    }
}

/// What can be resumed of what a handler returned: a coroutine itself, or the iterator of another
/// awaitable. `None` when it is a result already.
pub(crate) fn as_coroutine(returned: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    if is_coroutine(returned)? {
        return Ok(Some(returned.clone().unbind()));
    }
    if returned.is_none() || !returned.hasattr("__await__")? {
        return Ok(None);
    }
    Ok(Some(returned.call_method0("__await__")?.unbind()))
}

pub(crate) fn is_coroutine(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    static COROUTINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let coroutine = COROUTINE.import(value.py(), "types", "CoroutineType")?;
    Ok(value.is_exact_instance(coroutine))
}
