//! Contexts of contextvars.
#![allow(unsafe_code, reason = "PyO3 has no safe functions for contexts")]

use pyo3::ffi;
use pyo3::prelude::*;

/// A context. Each delivery gets one of its own: the next delivery does not see what a handler sets.
#[derive(Debug)]
pub(crate) struct Context(Py<PyAny>);

// Exported by every CPython from 3.7 on, though not part of the limited API.
unsafe extern "C" {
    fn PyContext_Copy(context: *mut ffi::PyObject) -> *mut ffi::PyObject;
    fn PyContext_CopyCurrent() -> *mut ffi::PyObject;
    fn PyContext_Enter(context: *mut ffi::PyObject) -> std::ffi::c_int;
    fn PyContext_Exit(context: *mut ffi::PyObject) -> std::ffi::c_int;
}

impl Context {
    /// A copy of the current context.
    pub(crate) fn of_caller(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: attached to Python; the result is a new reference or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, PyContext_CopyCurrent()) }.map(|copy| Self(copy.unbind()))
    }

    /// A copy, for code that runs while the original may still be entered elsewhere.
    pub(crate) fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        // SAFETY: as above; an object of another type is refused with an exception.
        let copy = unsafe { Bound::from_owned_ptr_or_err(py, PyContext_Copy(self.0.as_ptr())) };
        copy.map(|copy| Self(copy.unbind()))
    }

    /// A context that Python handed over.
    pub(crate) fn from_python(context: Py<PyAny>) -> Self {
        Self(context)
    }

    /// Runs `work` inside the context.
    pub(crate) fn run<T>(&self, py: Python<'_>, work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        // SAFETY: attached to Python; an object of another type is refused with an exception.
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
