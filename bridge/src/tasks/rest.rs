//! The rest of a Task that has nothing to do: what it awaits until there is a delivery for it.
//!
//! To the Task it is a future. Unlike asyncio's own it is used again and again, and the caller that ends it may have the
//! Task continue at once: asyncio's ends its Task's rest in the loop's next turn, which every single message would
//! pay for.

use std::sync::Mutex;

use pyo3::prelude::*;

use crate::host::context::Context;
use crate::host::lock::lock;

/// A future as a Task wants it, which is done again and again.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Rest {
    event_loop: Py<PyAny>,
    resting: Mutex<Option<Resting>>,
}

/// A Task that rests: how it goes on, and its context.
struct Resting {
    go_on: Py<PyAny>,
    context: Context,
}

impl Rest {
    pub(crate) fn new(event_loop: Py<PyAny>) -> Self {
        Self { event_loop, resting: Mutex::default() }
    }

    /// The Task goes on before this returns. Must not be called where a Task runs.
    pub(crate) fn end(slf: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(Resting { go_on, context }) = slf.get().take() else { return Ok(()) };
        context.run(py, || go_on.call1(py, (slf,)).map(drop))
    }

    /// The Task goes on in the loop's next turn.
    pub(crate) fn end_soon(slf: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let rest = slf.get();
        let Some(Resting { go_on, context }) = rest.take() else { return Ok(()) };
        context.run(py, || rest.event_loop.call_method1(py, "call_soon", (go_on, slf)).map(drop))
    }

    fn take(&self) -> Option<Resting> {
        lock(&self.resting).take()
    }
}

#[pymethods]
impl Rest {
    /// How a coroutine tells its Task that what it yields is to be waited for.
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        true
    }

    /// The Task notes that it waits; it always does.
    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, _is_blocking: bool) {}

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop.clone_ref(py)
    }

    /// The Task's word that it rests.
    #[pyo3(signature = (go_on, *, context))]
    fn add_done_callback(&self, go_on: Py<PyAny>, context: Py<PyAny>) {
        *lock(&self.resting) = Some(Resting { go_on, context: Context::from_python(context) });
    }

    /// The Task is cancelled: it goes on, and finds out there.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: Py<Self>, py: Python<'_>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        drop(msg);
        Self::end_soon(&slf, py).map(|()| false)
    }

    /// Asked by a Task that goes on: nothing went wrong, and there is nothing to say.
    fn result(&self) {}
}
