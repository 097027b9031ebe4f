//! The event loop's lanes: a fixed pool of real asyncio Tasks that step the handlers' coroutines.
//!
//! Each Task awaits a [`Lane`], which takes the next delivery and steps the handler's coroutine directly.
//! Only when the handler really waits is its future handed up to the Task. So a handler that never waits
//! costs no Task of its own, and `asyncio.current_task()`, `asyncio.timeout()`, task groups, cancellation
//! and context variables behave as in any Task.

mod lane;
mod rest;
mod step;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use nats_consumer::Delivery;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;

use crate::deliver::handler::Handler;
use crate::deliver::inbox::DeliveryQueue;
use crate::host::forked::Birthplace;
use crate::host::lock::lock;
use crate::monitor;
use crate::tasks::lane::Lane;
use crate::tasks::rest::Rest;

/// The Tasks of one consumption.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Tasks {
    handler: Arc<Handler>,
    waiting: Arc<DeliveryQueue>,
    event_loop: Py<PyAny>,
    lanes: Mutex<Vec<Py<Lane>>>,
    idle: Mutex<Vec<Py<Lane>>>,
    birthplace: Birthplace,
}

impl Tasks {
    /// Begins to serve on the running loop, which is woken whenever deliveries arrive.
    pub(crate) fn start(
        event_loop: &Bound<'_, PyAny>,
        handler: Arc<Handler>,
        waiting: Arc<DeliveryQueue>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let fd = waiting.wake().fd();
        monitor::follow(&waiting);
        let tasks = Self {
            handler,
            waiting,
            event_loop: event_loop.clone().unbind(),
            lanes: Mutex::default(),
            idle: Mutex::default(),
            birthplace: Birthplace::here(),
        };
        let look = Py::new(py, tasks)?.getattr(py, "look")?;
        event_loop.call_method1("add_reader", (fd, &look))?;
        // What arrived before the loop watched.
        event_loop.call_method1("call_soon", (look,))?;
        Ok(())
    }

    pub(crate) fn handler(&self) -> &Handler {
        &self.handler
    }

    pub(crate) fn event_loop(&self) -> &Py<PyAny> {
        &self.event_loop
    }

    /// The next delivery, if one waits; its handler starts `now`.
    pub(crate) fn next(&self, now: Instant) -> Option<Delivery> {
        self.waiting.next(now)
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether what runs is being cancelled, at the end of a drain.
    pub(crate) fn is_cancelling(&self) -> bool {
        self.waiting.is_cancelled()
    }

    /// Whether this process is a forked child of the one that the Tasks work in.
    pub(crate) fn are_elsewhere(&self) -> bool {
        self.birthplace.is_elsewhere()
    }

    /// Whether nothing will come any more.
    pub(crate) fn is_over(&self) -> bool {
        self.waiting.is_closed()
    }

    /// The lane has nothing to do; [`wake_one`](Self::wake_one) may choose it.
    pub(crate) fn rest(&self, lane: Py<Lane>) {
        lock(&self.idle).push(lane);
    }

    /// Wakes a Task, or makes one, if there is work for it.
    pub(crate) fn wake_one(slf: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        Self::wake_one_by(slf, py, Rest::end_soon)
    }

    fn wake_one_by(
        slf: &Py<Self>,
        py: Python<'_>,
        end: fn(&Py<Rest>, Python<'_>) -> PyResult<()>,
    ) -> PyResult<()> {
        let tasks = slf.get();
        if !tasks.has_more() {
            return Ok(());
        }
        let idle = lock(&tasks.idle).pop();
        if let Some(lane) = idle {
            return end(lane.get().rest(), py);
        }
        if lock(&tasks.lanes).len() >= tasks.handler.concurrency {
            return Ok(());
        }
        let lane = Py::new(py, Lane::new(py, slf.clone_ref(py))?)?;
        lock(&tasks.lanes).push(lane.clone_ref(py));
        let task = Self::new_task(py, &lane, &tasks.event_loop)?;
        lane.get().belongs_to(task);
        Ok(())
    }

    /// A Task for the lane, whatever task factory the loop has.
    fn new_task(py: Python<'_>, lane: &Py<Lane>, event_loop: &Py<PyAny>) -> PyResult<Py<PyAny>> {
        static TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = TASK.import(py, "nats_consumer.lanes.pool", "PoolTask")?;
        class.call((lane,), Some(&[("loop", event_loop)].into_py_dict(py)?)).map(Bound::unbind)
    }

    /// The lane's Task has ended before its time: what waits is for another one.
    pub(crate) fn replace(slf: &Py<Self>, py: Python<'_>, lane: &Py<Lane>) -> PyResult<()> {
        let tasks = slf.get();
        lock(&tasks.lanes).retain(|other| !other.is(lane));
        lock(&tasks.idle).retain(|other| !other.is(lane));
        Self::wake_one(slf, py)
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let busy: Vec<_> = lock(&self.lanes).iter().filter_map(|lane| lane.get().busy_task(py)).collect();
        busy.iter().try_for_each(|task| task.call_method0(py, "cancel").map(drop))
    }

    /// Lets every idle Task return and stops watching.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.event_loop.call_method1(py, "remove_reader", (self.waiting.wake().fd(),))?;
        let idle = std::mem::take(&mut *lock(&self.idle));
        lock(&self.lanes).clear();
        idle.iter().try_for_each(|lane| Rest::end_soon(lane.get().rest(), py))
    }
}

#[pymethods]
impl Tasks {
    /// The loop's reader callback.
    fn look(slf: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let tasks = slf.get();
        monitor::looked(tasks.waiting.wake());
        if tasks.is_cancelling() {
            tasks.cancel(py)?;
        }
        if tasks.is_over() { tasks.end(py) } else { Self::wake_one_by(&slf, py, Rest::end) }
    }
}
