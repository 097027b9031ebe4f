//! One step of a coroutine.
#![allow(unsafe_code, reason = "PyO3 has no safe function for PyIter_Send")]

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::host::call::send_none;
use crate::host::panic::catch_panic;

/// The result of a step of a coroutine.
pub(crate) enum Step {
    /// The coroutine returned.
    Done(Py<PyAny>),
    /// The coroutine waits for this future (or gives way, with None).
    Waits(Py<PyAny>),
    /// The coroutine raised.
    Failed(PyErr),
}

/// Resumes `coroutine`.
pub(crate) fn resume(py: Python<'_>, coroutine: &Py<PyAny>) -> Step {
    catch_panic(|| send(py, coroutine)).unwrap_or_else(Step::Failed)
}

fn send(py: Python<'_>, coroutine: &Py<PyAny>) -> Step {
    let mut result = std::ptr::null_mut();
    // SAFETY: attached to Python; `coroutine` is an iterator (see `steps_of`) and `result` receives a
    // new reference unless the answer is an error.
    let answer = unsafe { send_none(coroutine, &raw mut result) };
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
