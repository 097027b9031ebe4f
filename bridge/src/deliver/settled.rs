//! The answer of a settlement.

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// The result of settling. It is done already, and can be awaited, also as a Task: it has all that
/// asyncio wants of a coroutine.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Settled;

impl Settled {
    pub(crate) fn get(py: Python<'_>) -> PyResult<Py<Self>> {
        static SETTLED: PyOnceLock<Py<Settled>> = PyOnceLock::new();
        Ok(SETTLED.get_or_try_init(py, || Py::new(py, Self))?.clone_ref(py))
    }
}

#[pymethods]
impl Settled {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    fn send(&self, _value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, *_rest))]
    fn throw(&self, error: &Bound<'_, PyAny>, _rest: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(PyErr::from_value(error.clone()))
    }

    fn close(&self) {}

    /// Whether there is nothing to wait for: a handler may return it.
    #[classattr]
    fn is_done_already() -> bool {
        true
    }
}
