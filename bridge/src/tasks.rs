//! The event loop's lane: a fixed pool of real asyncio Tasks that step the handlers' coroutines.
//!
//! Each Task awaits a [`Lane`], which takes the next delivery and steps the handler's coroutine directly.
//! Only when the handler really waits is its future handed up to the Task. So a handler that never waits
//! costs no Task of its own, and `asyncio.current_task()`, `asyncio.timeout()`, task groups, cancellation
//! and context variables behave as in any Task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;

use crate::inbox::Waiting;
use crate::judge::{Verdict, exhaust, raised, returned};
use crate::message::Message;
use crate::step::{Context, Step, as_coroutine, interrupt, resume};

/// A Task gives the loop back after so many deliveries or so long, whichever comes first, so that timers,
/// signals and other consumers get their turn.
const TURN_DELIVERIES: usize = 128;
const TURN: Duration = Duration::from_millis(5);

/// The Tasks of one consumption.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Tasks {
    name: String,
    waiting: Arc<Waiting>,
    handle: Py<PyAny>,
    failed: Py<PyAny>,
    timeout: Option<Duration>,
    concurrency: usize,
    event_loop: Py<PyAny>,
    lanes: Mutex<Vec<Py<Lane>>>,
    idle: Mutex<Vec<Py<Lane>>>,
}

impl Tasks {
    /// A pool on the running loop, woken whenever deliveries arrive.
    pub(crate) fn start(
        py: Python<'_>,
        name: String,
        waiting: Arc<Waiting>,
        handle: Py<PyAny>,
        failed: Py<PyAny>,
        timeout: Option<Duration>,
        concurrency: usize,
    ) -> PyResult<Py<Self>> {
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        let fd = waiting.wake().fd();
        let tasks = Self {
            name,
            waiting,
            handle,
            failed,
            timeout,
            concurrency,
            event_loop: event_loop.clone().unbind(),
            lanes: Mutex::default(),
            idle: Mutex::default(),
        };
        let tasks = Py::new(py, tasks)?;
        event_loop.call_method1("add_reader", (fd, tasks.getattr(py, "look")?))?;
        // What arrived before the loop watched.
        event_loop.call_method1("call_soon", (tasks.getattr(py, "look")?,))?;
        Ok(tasks)
    }

    /// Wakes a Task, or makes one, if there is work for it.
    fn wake_one(slf: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let tasks = slf.get();
        if tasks.waiting.is_empty() {
            return Ok(());
        }
        let idle = lock(&tasks.idle).pop();
        if let Some(lane) = idle {
            return lane.get().wake(py);
        }
        if lock(&tasks.lanes).len() >= tasks.concurrency {
            return Ok(());
        }
        let lane = Py::new(py, Lane { tasks: slf.clone_ref(py), state: Mutex::default() })?;
        lock(&tasks.lanes).push(lane.clone_ref(py));
        let task = tasks.event_loop.call_method1(py, "create_task", (lane.clone_ref(py),))?;
        lane.get().lock().task = Some(task);
        Ok(())
    }
}

#[pymethods]
impl Tasks {
    /// The loop's reader callback.
    fn look(slf: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let tasks = slf.get();
        tasks.waiting.wake().clear();
        if tasks.waiting.is_cancelled() {
            return tasks.cancel(py);
        }
        if tasks.waiting.is_closed() {
            return tasks.end(py);
        }
        Self::wake_one(&slf, py)
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let busy: Vec<_> = lock(&self.lanes).iter().filter_map(|lane| lane.get().busy_task(py)).collect();
        for task in busy {
            task.call_method0(py, "cancel")?;
        }
        if self.waiting.is_closed() { self.end(py) } else { Ok(()) }
    }

    /// Lets every idle Task return and stops watching.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.event_loop.call_method1(py, "remove_reader", (self.waiting.wake().fd(),))?;
        let idle = std::mem::take(&mut *lock(&self.idle));
        lock(&self.lanes).clear();
        idle.iter().try_for_each(|lane| lane.get().wake(py))
    }
}

/// A coroutine, as its Task sees it, that handles one delivery after the other.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Lane {
    tasks: Py<Tasks>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// The future that an idle Task waits for.
    idle: Option<Py<PyAny>>,
    task: Option<Py<PyAny>>,
}

/// A coroutine under way for a delivery.
struct Running {
    message: Py<Message>,
    coroutine: Py<PyAny>,
    context: Context,
    /// The error that ended the last attempt: the coroutine is `failed`'s, not the handler's.
    error: Option<PyErr>,
    /// Set once the handler has waited, if handlers have a timeout.
    timer: Option<Py<PyAny>>,
    has_timed_out: bool,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let idle = self.lock().idle.take();
        let Some(future) = idle else { return Ok(()) };
        if !future.call_method0(py, "done")?.is_truthy(py)? {
            future.call_method1(py, "set_result", (py.None(),))?;
        }
        Ok(())
    }

    fn busy_task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let state = self.lock();
        state.running.is_some().then(|| state.task.as_ref().map(|task| task.clone_ref(py)))?
    }

    /// Handles deliveries until one waits, the turn is over, or there are none. The answer goes to the Task:
    /// a future to wait for, None to give way; no answer ends the Task.
    fn advance(
        slf: &Py<Self>,
        py: Python<'_>,
        mut under_way: Option<(Running, Step)>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let lane = slf.get();
        let tasks = lane.tasks.get();
        let began = Instant::now();
        let mut handled = 0;
        loop {
            if let Some((running, step)) = under_way.take() {
                match Self::after(slf, py, running, step)? {
                    After::Waits(future) => {
                        // The others need not wait for this one.
                        Tasks::wake_one(&lane.tasks, py)?;
                        return Ok(Some(future));
                    }
                    After::Goes(running, step) => {
                        under_way = Some((running, step));
                        continue;
                    }
                    After::Ended => handled += 1,
                }
            }
            let turn_is_over = handled >= TURN_DELIVERIES || (handled > 0 && began.elapsed() >= TURN);
            if turn_is_over && !tasks.waiting.is_empty() {
                return Ok(Some(py.None()));
            }
            let Some(delivery) = tasks.waiting.next() else {
                return if tasks.waiting.is_closed() { Ok(None) } else { Self::rest(slf, py).map(Some) };
            };
            under_way = tasks.begin(py, Message::new(delivery))?;
            handled += usize::from(under_way.is_none());
        }
    }

    /// Waits for the next delivery.
    fn rest(slf: &Py<Self>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let lane = slf.get();
        let tasks = lane.tasks.get();
        let future = tasks.event_loop.call_method0(py, "create_future")?;
        // How a coroutine tells its Task that the future it yields is to be waited for.
        future.setattr(py, "_asyncio_future_blocking", true)?;
        lane.lock().idle = Some(future.clone_ref(py));
        lock(&tasks.idle).push(slf.clone_ref(py));
        Ok(future)
    }

    fn after(slf: &Py<Self>, py: Python<'_>, mut running: Running, step: Step) -> PyResult<After> {
        match step {
            Step::Waits(future) => {
                Self::set_timer(slf, py, &mut running)?;
                slf.get().lock().running = Some(running);
                Ok(After::Waits(future))
            }
            Step::Done(value) => {
                running.stop_timer(py)?;
                let value = value.bind(py);
                match &running.error {
                    None => returned(running.message.get().delivery(), value)?,
                    Some(error) => exhaust(py, running.message.get(), error, Some(value))?,
                }
                Ok(After::Ended)
            }
            Step::Failed(error) => {
                running.stop_timer(py)?;
                slf.get().failed(py, running, error)
            }
        }
    }

    fn failed(&self, py: Python<'_>, running: Running, mut error: PyErr) -> PyResult<After> {
        let tasks = self.tasks.get();
        let message = running.message.get();
        if let Some(first) = &running.error {
            // `failed` itself raised; the message must not suffer from it.
            error.write_unraisable(py, None);
            exhaust(py, message, first, None)?;
            return Ok(After::Ended);
        }
        if error.is_instance_of::<CancelledError>(py) {
            if !running.has_timed_out && tasks.waiting.is_cancelled() {
                message.delivery().hand_back();
                return Ok(After::Ended);
            }
            if running.has_timed_out {
                self.uncancel(py)?;
                error = tasks.timeout_error();
            } else if self.is_cancelling(py)? {
                // Somebody ends the Task itself, as asyncio.run() does: no attempt to speak of.
                message.delivery().hand_back();
                return Err(error);
            }
        }
        match raised(py, &tasks.name, message, &error)? {
            Verdict::Settled => Ok(After::Ended),
            Verdict::Exhausted => tasks.ask_failed(py, running.message, error),
        }
    }

    /// A handler that waits can be ended; one that never waits gives nobody the chance.
    fn set_timer(slf: &Py<Self>, py: Python<'_>, running: &mut Running) -> PyResult<()> {
        let tasks = slf.get().tasks.get();
        let wanted = tasks.timeout.filter(|_| running.timer.is_none() && running.error.is_none());
        if let Some(limit) = wanted {
            let callback = slf.getattr(py, "time_out")?;
            let timer = tasks.event_loop.call_method1(py, "call_later", (limit.as_secs_f64(), callback))?;
            running.timer = Some(timer);
        }
        Ok(())
    }

    fn uncancel(&self, py: Python<'_>) -> PyResult<()> {
        let task = self.lock().task.as_ref().map(|task| task.clone_ref(py));
        task.map_or(Ok(()), |task| task.call_method0(py, "uncancel").map(drop))
    }

    fn is_cancelling(&self, py: Python<'_>) -> PyResult<bool> {
        let task = self.lock().task.as_ref().map(|task| task.clone_ref(py));
        task.map_or(Ok(false), |task| task.call_method0(py, "cancelling")?.is_truthy(py))
    }
}

/// What follows a step.
enum After {
    Waits(Py<PyAny>),
    Goes(Running, Step),
    Ended,
}

impl Tasks {
    /// Calls the handler and takes its first step; `None` when it is over already.
    fn begin(&self, py: Python<'_>, message: Message) -> PyResult<Option<(Running, Step)>> {
        let message = Py::new(py, message)?;
        self.start_coroutine(py, message, &self.handle, None)
    }

    fn ask_failed(&self, py: Python<'_>, message: Py<Message>, error: PyErr) -> PyResult<After> {
        let goes = self.start_coroutine(py, message, &self.failed, Some(error))?;
        Ok(goes.map_or(After::Ended, |(running, step)| After::Goes(running, step)))
    }

    fn start_coroutine(
        &self,
        py: Python<'_>,
        message: Py<Message>,
        function: &Py<PyAny>,
        error: Option<PyErr>,
    ) -> PyResult<Option<(Running, Step)>> {
        let context = Context::copy(py)?;
        let mut coroutine = py.None();
        let step = context.run(py, || {
            let answer = match &error {
                None => function.call1(py, (&message,)),
                Some(error) => function.call1(py, (&message, error.value(py))),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(raised) => return Ok(Step::Failed(raised)),
            };
            let Some(steps) = as_coroutine(answer.bind(py))? else { return Ok(Step::Done(answer)) };
            let step = resume(py, &steps);
            coroutine = steps;
            Ok(step)
        })?;
        Ok(Some((Running { message, coroutine, context, error, timer: None, has_timed_out: false }, step)))
    }

    fn timeout_error(&self) -> PyErr {
        let limit = self.timeout.unwrap_or_default();
        pyo3::exceptions::PyTimeoutError::new_err(format!("the handler ran longer than {limit:?}"))
    }
}

impl Running {
    fn stop_timer(&mut self, py: Python<'_>) -> PyResult<()> {
        let timer = self.timer.take();
        timer.map_or(Ok(()), |timer| timer.call_method0(py, "cancel").map(drop))
    }
}

#[pymethods]
impl Lane {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: Py<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let running = slf.get().lock().running.take();
        let under_way = running
            .map(|running| {
                let step = running.context.run(py, || Ok(resume(py, &running.coroutine)))?;
                Ok::<_, PyErr>((running, step))
            })
            .transpose()?;
        Self::advance(&slf, py, under_way)
    }

    fn send(slf: Py<Self>, py: Python<'_>, value: Py<PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let _ = value;
        Self::__next__(slf, py)
    }

    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw(
        slf: Py<Self>,
        py: Python<'_>,
        error: Py<PyAny>,
        value: Option<Py<PyAny>>,
        traceback: Option<Py<PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let _ = (value, traceback);
        let running = slf.get().lock().running.take();
        let Some(running) = running else { return Err(PyErr::from_value(error.into_bound(py))) };
        let step = running.context.run(py, || Ok(interrupt(py, &running.coroutine, error)))?;
        Self::advance(&slf, py, Some((running, step)))
    }

    fn close(&self) {
        // A loop that is closed with a handler under way: its delivery is handed back by being dropped.
        self.lock().running = None;
    }

    /// The timer's callback.
    fn time_out(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        let Some(running) = &mut state.running else { return Ok(()) };
        running.has_timed_out = true;
        let task = state.task.as_ref().map(|task| task.clone_ref(py));
        drop(state);
        task.map_or(Ok(()), |task| task.call_method0(py, "cancel").map(drop))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
