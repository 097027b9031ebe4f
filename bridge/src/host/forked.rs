//! Children of a fork: a handler that returns in one must not go on as a second worker.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pyo3::prelude::*;

use crate::host::error::exceptions::ForkedProcess;

/// How many forks lie between the first process of this program and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The process that something was made in. Cheaper than its id, which is a system call.
#[derive(Clone, Copy)]
pub(crate) struct Birthplace(u32);

impl Birthplace {
    pub(crate) fn here() -> Self {
        Self(FORKS.load(Relaxed))
    }

    /// Whether this process is a forked child of that one.
    pub(crate) fn is_elsewhere(self) -> bool {
        self.0 != FORKS.load(Relaxed)
    }

    /// `ForkedProcess` in a child of that process.
    pub(crate) fn check(self) -> PyResult<()> {
        if self.is_elsewhere() { Err(ForkedProcess::new_err(())) } else { Ok(()) }
    }
}

/// Called in each child, by Python.
#[pyfunction]
fn count_fork() {
    FORKS.fetch_add(1, Relaxed);
}

/// Starts to count forks by Python.
pub(crate) fn count_forks(py: Python<'_>) -> PyResult<()> {
    let os = py.import("os")?;
    // Windows does not fork.
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let count = pyo3::wrap_pyfunction!(count_fork, py)?;
    let arguments = pyo3::types::PyDict::new(py);
    arguments.set_item("after_in_child", count)?;
    os.call_method("register_at_fork", (), Some(&arguments)).map(drop)
}

/// Ends this process with the status that `error` gives a script.
pub(crate) fn end(py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
    let error = error.map(|error| error.clone_ref(py).into_value(py));
    py.import("nats_consumer.lanes.forked")?.call_method1("end", (error,)).map(drop)
}
