//! Futures of the engine as asyncio futures, for the control plane and for publishing.
//!
//! tokio threads never attach to Python: a result is queued, and the event loop is woken once for all that
//! are ready. Each event loop has one queue.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use nats_consumer::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::{exceptions::EngineBug, to_python};
use crate::lock::lock;
use crate::runtime::runtime;
use crate::wake::Wake;

type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// What tokio threads fill and the loop empties.
struct Ready {
    wake: Wake,
    answers: Mutex<Vec<(u64, Answer)>>,
}

/// The pending futures of one event loop.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Futures {
    ready: Arc<Ready>,
    pending: Mutex<HashMap<u64, Py<PyAny>>>,
    next_id: AtomicU64,
}

#[pymethods]
impl Futures {
    /// The loop's reader callback: hands every answer to its future.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        self.ready.wake.clear();
        let answers = std::mem::take(&mut *lock(&self.ready.answers));
        for (id, answer) in answers {
            let pending = lock(&self.pending).remove(&id);
            let Some(future) = pending else { continue };
            // Whoever waited may have been cancelled.
            if future.call_method0(py, "done")?.is_truthy(py)? {
                continue;
            }
            match answer(py) {
                Ok(value) => future.call_method1(py, "set_result", (value,))?,
                Err(error) => future.call_method1(py, "set_exception", (error.into_value(py),))?,
            };
        }
        Ok(())
    }
}

impl Futures {
    fn of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        static BY_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = event_loop.py();
        let by_loop = BY_LOOP
            .get_or_try_init(py, || {
                py.import("weakref")?.getattr("WeakKeyDictionary")?.call0().map(Bound::unbind)
            })?
            .bind(py);
        let known = by_loop.call_method1("get", (event_loop,))?;
        if !known.is_none() {
            return Ok(known.cast_into::<Self>()?);
        }
        let ready = Arc::new(Ready { wake: Wake::new()?, answers: Mutex::default() });
        let fd = ready.wake.fd();
        let futures = Self { ready, pending: Mutex::default(), next_id: AtomicU64::new(0) };
        let futures = Bound::new(py, futures)?;
        event_loop.call_method1("add_reader", (fd, futures.getattr("deliver")?))?;
        by_loop.set_item(event_loop, &futures)?;
        Ok(futures)
    }
}

/// Runs `work` on the engine's runtime; the asyncio future that is returned gets what `convert` makes of
/// its result.
///
/// The work goes on when the asyncio future is cancelled: all of it is bounded in time.
pub(crate) fn into_asyncio<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    convert: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
) -> PyResult<Bound<'_, PyAny>> {
    let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
    let futures = Futures::of(&event_loop)?;
    let futures = futures.get();
    let id = futures.next_id.fetch_add(1, Relaxed);
    let future = event_loop.call_method0("create_future")?;
    lock(&futures.pending).insert(id, future.clone().unbind());
    let ready = futures.ready.clone();
    runtime().spawn(async move {
        let result = AssertUnwindSafe(work).catch_unwind().await;
        let answer: Answer = Box::new(move |py| match result {
            Ok(Ok(value)) => convert(py, value),
            Ok(Err(error)) => Err(to_python(&error)),
            Err(_) => Err(EngineBug::new_err(())),
        });
        lock(&ready.answers).push((id, answer));
        ready.wake.signal();
    });
    Ok(future)
}

/// [`into_asyncio`], but the work begins here and now: what is sent is sent in the order of the calls, and
/// where nothing has to be waited for, no thread has to be woken.
pub(crate) fn begun<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    convert: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
) -> PyResult<Bound<'_, PyAny>> {
    let mut work = Box::pin(work);
    let first_look = {
        let _context = runtime().enter();
        AssertUnwindSafe(&mut work).catch_unwind().now_or_never()
    };
    let Some(result) = first_look else { return into_asyncio(py, work, convert) };
    let value = result.map_err(|_| EngineBug::new_err(()))?.map_err(|error| to_python(&error))?;
    let future = py.import("asyncio")?.call_method0("get_running_loop")?.call_method0("create_future")?;
    future.call_method1("set_result", (convert(py, value)?,))?;
    Ok(future)
}

/// A conversion for what has nothing to tell.
pub(crate) fn nothing(py: Python<'_>, (): ()) -> PyResult<Py<PyAny>> {
    Ok(py.None())
}

/// Runs `work` in the calling thread and waits for it, the GIL released.
pub(crate) fn wait_for<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> PyResult<T> {
    let result = py.detach(|| runtime().block_on(AssertUnwindSafe(work).catch_unwind()));
    result.map_err(|_| EngineBug::new_err(()))?.map_err(|error| to_python(&error))
}
