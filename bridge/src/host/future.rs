//! Futures of the engine as asyncio futures, for the control plane and for publishing.
//!
//! tokio threads never attach to Python: a result is queued, and the event loop is woken once for all that
//! are ready. Each event loop has one queue.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nats_consumer::Error;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyWeakrefReference;
use pyo3::{PyTraverseError, PyVisit};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::host::call::detached;
use crate::host::error::{exceptions::EngineBug, to_python};
use crate::host::lock::lock;
use crate::host::runtime::runtime;
use crate::host::wake::Wake;

/// Ends with its answer in the queue.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The results that tokio threads put in and the loop takes out.
struct Ready {
    wake: Wake,
    answers: Mutex<Vec<(u64, Answer)>>,
}

impl Ready {
    fn put(&self, id: u64, answer: Answer) {
        lock(&self.answers).push((id, answer));
        self.wake.signal();
    }
}

/// By number.
type Pending = Mutex<HashMap<u64, Py<PyAny>>>;

/// The pending futures of one event loop, which holds them by its reader callback: when it is closed, they end, and
/// the files of the queue with them, whatever answers are outstanding.
#[pyclass(frozen, weakref, module = "nats_consumer._native")]
pub(crate) struct Futures {
    ready: Arc<Ready>,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    /// The work that this turn of the loop has begun.
    gathered: Mutex<Vec<Work>>,
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
            // The waiting Task may have been cancelled.
            if future.call_method0(py, intern!(py, "done"))?.is_truthy(py)? {
                continue;
            }
            let set = match answer(py) {
                Ok(value) => future.call_method1(py, intern!(py, "set_result"), (value,)),
                Err(error) => future.call_method1(py, intern!(py, "set_exception"), (error.into_value(py),)),
            };
            if let Err(refused) = set {
                // A future takes no StopIteration.
                future.call_method1(py, intern!(py, "set_exception"), (refused.into_value(py),))?;
            }
        }
        Ok(())
    }

    /// The loop's callback at the end of a turn: hands over what the turn has gathered.
    fn hand_over(&self) {
        let gathered = std::mem::take(&mut *lock(&self.gathered));
        // In one task: one wake, and what they send goes out in the order of the calls.
        runtime().spawn(gathered.into_iter().collect::<FuturesUnordered<_>>().collect::<()>());
    }

    /// A loop that is dropped without being closed is part of a circle: it holds this, and this holds its futures.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(pending) = self.pending.try_lock() else { return Ok(()) };
        pending.values().try_for_each(|future| visit.call(future))
    }

    fn __clear__(&self) {
        lock(&self.pending).clear();
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
        // Weak on both sides: a future that is kept here keeps its loop.
        let known = by_loop.call_method1(intern!(py, "get"), (event_loop,))?;
        if let Ok(known) = known.cast::<PyWeakrefReference>()
            && let Some(futures) = known.upgrade_as::<Self>()?
        {
            return Ok(futures);
        }
        let ready = Arc::new(Ready { wake: Wake::new()?, answers: Mutex::default() });
        let fd = ready.wake.fd();
        let futures =
            Self { ready, pending: Arc::default(), next_id: AtomicU64::new(0), gathered: Mutex::default() };
        let futures = Bound::new(py, futures)?;
        event_loop.call_method1("add_reader", (fd, futures.getattr("deliver")?))?;
        by_loop.set_item(event_loop, PyWeakrefReference::new(&futures)?)?;
        Ok(futures)
    }

    /// A pending future of the loop, and the work that answers it.
    fn promise<'py, T: Send + 'static>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
        convert: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
    ) -> PyResult<(u64, Bound<'py, PyAny>, impl Future<Output = ()> + Send + 'static)> {
        let (id, future) = self.pending(event_loop)?;
        let ready: Weak<Ready> = Arc::downgrade(&self.ready);
        let answering = async move {
            let result = AssertUnwindSafe(work).catch_unwind().await;
            let answer: Answer = Box::new(move |py| match result {
                Ok(Ok(value)) => convert(py, value),
                Ok(Err(error)) => Err(to_python(&error)),
                Err(_) => Err(EngineBug::new_err(())),
            });
            if let Some(ready) = ready.upgrade() {
                ready.put(id, answer);
            }
        };
        Ok((id, future, answering))
    }

    /// A pending future of the loop, and its number.
    fn pending<'py>(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<(u64, Bound<'py, PyAny>)> {
        let id = self.next_id.fetch_add(1, Relaxed);
        let future = event_loop.call_method0(intern!(event_loop.py(), "create_future"))?;
        lock(&self.pending).insert(id, future.clone().unbind());
        Ok((id, future))
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
    let event_loop = running_loop(py)?;
    let futures = Futures::of(&event_loop)?;
    let (_, future, work) = futures.get().promise(&event_loop, work, convert)?;
    runtime().spawn(work);
    Ok(future)
}

/// [`into_asyncio`] for work that may wait without limit, and of which nothing is lost where it stops: it ends when the
/// asyncio future is cancelled.
pub(crate) fn while_awaited<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    convert: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
) -> PyResult<Bound<'_, PyAny>> {
    let event_loop = running_loop(py)?;
    let futures = Futures::of(&event_loop)?;
    let (id, future, work) = futures.get().promise(&event_loop, work, convert)?;
    let pending = Arc::downgrade(&futures.get().pending);
    let end = WorkEnd { id, pending, work: runtime().spawn(work).abort_handle() };
    future.call_method1(intern!(py, "add_done_callback"), (end,))?;
    Ok(future)
}

/// The callback of a future that is done: ends the work that nobody waits for any more.
#[pyclass(frozen, module = "nats_consumer._native")]
struct WorkEnd {
    id: u64,
    pending: Weak<Pending>,
    work: AbortHandle,
}

#[pymethods]
impl WorkEnd {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.work.abort();
        let future = self.pending.upgrade().and_then(|pending| lock(&pending).remove(&self.id));
        drop(future);
    }
}

/// The answer of a call that another thread makes, for a future of an event loop.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Promise {
    id: u64,
    ready: Weak<Ready>,
}

/// A future of the running loop, and its promise.
#[pyfunction]
pub(crate) fn promise(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Promise)> {
    let event_loop = running_loop(py)?;
    let futures = Futures::of(&event_loop)?;
    let (id, future) = futures.get().pending(&event_loop)?;
    Ok((future, Promise { id, ready: Arc::downgrade(&futures.get().ready) }))
}

#[pymethods]
impl Promise {
    /// Gives the future its result, from any thread. Unlike `call_soon_threadsafe()` it keeps the GIL, which others
    /// would take while the loop is woken.
    fn keep(&self, result: Py<PyAny>) {
        self.answer(Box::new(|_| Ok(result)));
    }

    /// Gives the future an exception.
    fn fail(&self, error: Py<PyAny>) {
        self.answer(Box::new(|py| Err(PyErr::from_value(error.into_bound(py)))));
    }
}

impl Promise {
    fn answer(&self, answer: Answer) {
        if let Some(ready) = self.ready.upgrade() {
            ready.put(self.id, answer);
        }
    }
}

/// [`into_asyncio`] for what comes in swarms: what one turn of the event loop begins is handed over at its end,
/// with one wake for all.
pub(crate) fn gathered<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    convert: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
) -> PyResult<Bound<'_, PyAny>> {
    let event_loop = running_loop(py)?;
    let futures = Futures::of(&event_loop)?;
    let (_, future, work) = futures.get().promise(&event_loop, work, convert)?;
    let is_first = {
        let mut gathered = lock(&futures.get().gathered);
        gathered.push(Box::pin(work));
        gathered.len() == 1
    };
    if is_first {
        let hand_over = futures.getattr(intern!(py, "hand_over"))?;
        if let Err(closing) = event_loop.call_method1(intern!(py, "call_soon"), (hand_over,)) {
            lock(&futures.get().gathered).clear();
            return Err(closing);
        }
    }
    Ok(future)
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    GET.import(py, "asyncio", "get_running_loop")?.call0()
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
    let future = running_loop(py)?.call_method0(intern!(py, "create_future"))?;
    future.call_method1(intern!(py, "set_result"), (convert(py, value)?,))?;
    Ok(future)
}

/// A conversion for what has nothing to tell.
pub(crate) fn nothing(py: Python<'_>, (): ()) -> PyResult<Py<PyAny>> {
    Ok(py.None())
}

/// How often the waiting main thread looks for signals.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs `work` in the calling thread and waits for it, the GIL released. What a signal handler raises ends the wait, and
/// the work.
pub(crate) fn wait_for<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> PyResult<T> {
    let work = AssertUnwindSafe(work).catch_unwind();
    let result = if is_main_thread(py)? {
        wait_for_signals_too(py, work)?
    } else {
        // Python runs no signal handlers here. A daemon thread that comes back while Python ends has nothing of the work left
        // on its stack.
        detached(py, || runtime().block_on(work))
    };
    result.map_err(|_| EngineBug::new_err(()))?.map_err(|error| to_python(&error))
}

fn wait_for_signals_too<T: Send>(py: Python<'_>, work: impl Future<Output = T> + Send) -> PyResult<T> {
    let mut work = Box::pin(work);
    loop {
        let looking = &mut work;
        let looked =
            py.detach(|| runtime().block_on(async move { timeout(SIGNAL_CHECK_INTERVAL, looking).await }));
        match looked {
            Ok(result) => return Ok(result),
            Err(_) => py.check_signals()?,
        }
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static THREADING: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let threading = THREADING
        .get_or_try_init(py, || PyResult::Ok(py.import(intern!(py, "threading"))?.unbind()))?
        .bind(py);
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    threading.call_method0(intern!(py, "get_ident"))?.eq(main)
}
