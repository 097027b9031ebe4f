//! Calls of Python code by a thread that may still run it when the interpreter ends.
//!
//! From then on, Python before 3.14 ends every other thread that asks for the GIL, by `pthread_exit`. That unwinds the
//! stack of the thread. Frames of Rust abort the process at this, or release objects without the GIL. So the thread
//! stops where it comes to them: it sleeps until the process has ended, a moment later.
#![allow(unsafe_code, reason = "PyO3 declares that none of Python's functions unwinds")]

use std::hint::black_box;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

unsafe extern "C-unwind" {
    fn PyObject_Call(
        callable: *mut ffi::PyObject,
        args: *mut ffi::PyObject,
        kwargs: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
    fn PyIter_Send(
        iter: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult;
}

// PyO3 declares them too, and without unwinding. An optimizer that sees both declarations at once, as for a release, believes
// that one; so it must not see which functions are called.

/// Stops the thread when it is unwound without a panic of Rust.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            loop {
                std::thread::park();
            }
        }
    }
}

fn stopping<T>(call: impl FnOnce() -> T) -> T {
    let stop = Stop;
    let answer = call();
    std::mem::forget(stop);
    answer
}

type Call = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *mut ffi::PyObject,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;
type Send = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *mut ffi::PyObject,
    *mut *mut ffi::PyObject,
) -> ffi::PySendResult;

/// Calls `callable` with these arguments.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    args: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let args = args.into_pyobject(py).map_err(Into::into)?;
    let function = black_box::<Call>(PyObject_Call);
    // SAFETY: attached to Python; the result is a new reference or null with an exception set.
    unsafe {
        let answer = stopping(|| function(callable.as_ptr(), args.as_ptr(), std::ptr::null_mut()));
        Bound::from_owned_ptr_or_err(py, answer)
    }
}

/// Runs `work` without the GIL. A daemon thread of Python that asks for it again when Python ends stops here: the trampoline
/// that called it would catch the unwinding, and abort the process.
pub(crate) fn detached<T: std::marker::Send>(
    py: Python<'_>,
    work: impl FnOnce() -> T + std::marker::Send,
) -> T {
    stopping(|| py.detach(work))
}

/// [`PyIter_Send`](ffi::PyIter_Send) of None.
///
/// # Safety
/// `iter` is an iterator, and `result` receives a new reference unless the answer is an error.
pub(crate) unsafe fn send_none(iter: &Py<PyAny>, result: *mut *mut ffi::PyObject) -> ffi::PySendResult {
    let function = black_box::<Send>(PyIter_Send);
    // SAFETY: the caller's.
    stopping(|| unsafe { function(iter.as_ptr(), ffi::Py_None(), result) })
}
