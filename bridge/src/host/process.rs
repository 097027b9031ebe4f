//! Values that belong to the process that made them.

use std::convert::Infallible;
use std::sync::atomic::{AtomicPtr, Ordering::*};

use pyo3::prelude::*;

use crate::host::error::exceptions::ForkedProcess;

/// A handle to something of this process: a connection, a consumption. After a fork its socket and its tasks are the
/// parent's, so a child can neither use it nor end it.
pub(crate) struct Owned<T: Clone> {
    pid: u32,
    handle: T,
}

impl<T: Clone> Owned<T> {
    pub(crate) fn new(handle: T) -> Self {
        Self { pid: std::process::id(), handle }
    }

    /// The handle; `ForkedProcess` in a child of the process that made it.
    pub(crate) fn get(&self) -> PyResult<&T> {
        if self.is_ours() { Ok(&self.handle) } else { Err(ForkedProcess::new_err(())) }
    }

    /// The handle, for reading what is in memory, in any process.
    pub(crate) fn peek(&self) -> &T {
        &self.handle
    }

    fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }
}

impl<T: Clone> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.is_ours() {
            // The last handle would end what it leads to, which the parent still uses.
            std::mem::forget(self.handle.clone());
        }
    }
}

/// A value that each process has for itself, for a static. A child begins with a new one: the threads of its parent's do
/// not exist in it, nor does the thread that held its lock when another one forked.
pub(crate) struct PerProcess<T>(AtomicPtr<OfProcess<T>>);

struct OfProcess<T> {
    pid: u32,
    value: T,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The value of this process, if it was made. A signal handler may ask.
    #[allow(unsafe_code, reason = "no lock: it may be held at a fork, or by what a signal interrupts")]
    pub(crate) fn made(&self) -> Option<&'static T> {
        // SAFETY: what it points to was leaked by `get_or_try` and is never freed.
        let current = unsafe { self.0.load(Acquire).as_ref() }?;
        (current.pid == std::process::id()).then_some(&current.value)
    }

    /// The value of this process. Two threads may both make it: one counts.
    pub(crate) fn get_or(&self, make: impl FnOnce() -> T) -> &'static T {
        let Ok(value) = self.get_or_try(|| Ok::<_, Infallible>(make()));
        value
    }

    /// [`get_or`](Self::get_or), for what cannot always be made.
    #[allow(unsafe_code, reason = "as in `made`")]
    pub(crate) fn get_or_try<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        let before = self.0.load(Acquire);
        if let Some(value) = self.made() {
            return Ok(value);
        }
        let fresh = Box::into_raw(Box::new(OfProcess { pid: std::process::id(), value: make()? }));
        match self.0.compare_exchange(before, fresh, AcqRel, Acquire) {
            // SAFETY: it was leaked just now, and nobody frees it.
            Ok(_) => Ok(unsafe { &(*fresh).value }),
            Err(faster) => {
                // SAFETY: nobody else has seen ours.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: another thread of this process has leaked it.
                Ok(unsafe { &(*faster).value })
            }
        }
    }
}
