//! Values that belong to the process that made them.

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
