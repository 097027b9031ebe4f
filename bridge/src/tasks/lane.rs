//! The coroutine of one Task of the pool: it handles one delivery after the other, and steps the handlers'
//! coroutines itself.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nats_consumer::Outcome;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;

use crate::deliver::awaitable::steps_of;
use crate::deliver::handler::Handler;
use crate::deliver::judge::{Judgement, exhaust, failed, raised, returned, timeout_error};
use crate::deliver::message::Message;
use crate::host::context::Context;
use crate::host::forked;
use crate::host::lock::lock;
use crate::host::panic::catch_panic;
use crate::tasks::Tasks;
use crate::tasks::rest::Rest;
use crate::tasks::step::{Step, interrupt, resume};

/// A Task gives the loop back after this number of deliveries or this time, whichever comes first, so that timers,
/// signals and other consumers get their turn.
const TURN_DELIVERIES: usize = 128;
const TURN: Duration = Duration::from_millis(5);

/// A coroutine, as its Task sees it.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Lane {
    tasks: Py<Tasks>,
    rest: Py<Rest>,
    state: Mutex<State>,
    /// A handler has changed the Task, as by cancelling it: no other handler may see that.
    is_used_up: AtomicBool,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// The message of the handler that the loop steps now.
    stepped: Option<Py<Message>>,
    task: Option<Py<PyAny>>,
    /// Called when the coroutine that runs has ended.
    at_end: Option<Py<PyAny>>,
}

/// A coroutine under way for a delivery.
struct Running {
    message: Py<Message>,
    coroutine: Py<PyAny>,
    context: Context,
    /// The error that ended the last attempt: then the coroutine is that of `failed`, not the handler's.
    error: Option<PyErr>,
    /// Made when the handler first waits, if handlers have a timeout.
    timer: Option<Py<PyAny>>,
    has_timed_out: bool,
}

/// The action after a step.
enum After {
    Waits(Py<PyAny>),
    Goes(Running, Step),
    Ended,
}

impl Lane {
    pub(crate) fn new(py: Python<'_>, tasks: Py<Tasks>) -> PyResult<Self> {
        let rest = Py::new(py, Rest::new(tasks.get().event_loop().clone_ref(py)))?;
        Ok(Self { tasks, rest, state: Mutex::default(), is_used_up: AtomicBool::new(false) })
    }

    pub(crate) fn belongs_to(&self, task: Py<PyAny>) {
        self.lock().task = Some(task);
    }

    /// The awaitable of a Task that has nothing to do.
    pub(crate) fn rest(&self) -> &Py<Rest> {
        &self.rest
    }

    /// The Task, while a handler of it waits.
    pub(crate) fn busy_task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if self.lock().running.is_some() { self.task(py) } else { None }
    }

    /// Advances; an error ends the Task, and another one takes its place.
    fn go_on(
        slf: &Py<Self>,
        py: Python<'_>,
        under_way: Option<(Running, Step)>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let answer = catch_panic(|| Self::advance(slf, py, under_way)).flatten();
        slf.get().ends_step();
        if answer.is_err() {
            Tasks::replace(&slf.get().tasks, py, slf)?;
        }
        answer
    }

    /// Handles deliveries until one waits, the turn is over, or there are none. The answer goes to the Task:
    /// a future to wait for, or None to give way; no answer ends the Task.
    fn advance(
        slf: &Py<Self>,
        py: Python<'_>,
        mut under_way: Option<(Running, Step)>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let tasks = &slf.get().tasks;
        let until = Instant::now() + TURN;
        let mut handled = 0;
        loop {
            if let Some((running, step)) = under_way.take() {
                match Self::after(slf, py, running, step)? {
                    After::Waits(future) => {
                        // The others need not wait for this one.
                        Tasks::wake_one(tasks, py)?;
                        return Ok(Some(future));
                    }
                    After::Goes(running, step) => {
                        under_way = Some((running, step));
                        continue;
                    }
                    After::Ended => handled += 1,
                }
            }
            if handled > 0 && slf.get().is_used_up.load(Relaxed) {
                Tasks::replace(tasks, py, slf)?;
                return Ok(None);
            }
            let now = Instant::now();
            let turn_is_over = handled >= TURN_DELIVERIES || (handled > 0 && now >= until);
            if turn_is_over && tasks.get().has_more() {
                return Ok(Some(py.None()));
            }
            let Some(delivery) = tasks.get().next(now) else {
                return if tasks.get().is_over() { Ok(None) } else { Ok(Some(Self::pause(slf, py))) };
            };
            let message = Py::new(py, Message::new(delivery))?;
            slf.get().steps(message.clone_ref(py));
            under_way = Some(slf.get().begin(py, message, None, Context::of_caller(py)?)?);
        }
    }

    /// Has nothing to do until [`Tasks::wake_one`] chooses it.
    fn pause(slf: &Py<Self>, py: Python<'_>) -> Py<PyAny> {
        let lane = slf.get();
        lane.tasks.get().rest(slf.clone_ref(py));
        lane.rest.clone_ref(py).into_any()
    }

    /// Calls the handler, or `failed` after an `error`, and takes the first step in the delivery's context.
    fn begin(
        &self,
        py: Python<'_>,
        message: Py<Message>,
        error: Option<PyErr>,
        context: Context,
    ) -> PyResult<(Running, Step)> {
        let handler = self.tasks.get().handler();
        let mut coroutine = py.None();
        let step = context.run(py, || {
            let answer = match handler.call(py, &message, error.as_ref()) {
                Ok(answer) => answer,
                Err(raised) => return Ok(Step::Failed(raised)),
            };
            let Some(steps) = steps_of(answer.bind(py))? else { return Ok(Step::Done(answer)) };
            let step = resume(py, &steps);
            coroutine = steps;
            Ok(step)
        })?;
        Ok((Running { message, coroutine, context, error, timer: None, has_timed_out: false }, step))
    }

    fn after(slf: &Py<Self>, py: Python<'_>, mut running: Running, step: Step) -> PyResult<After> {
        let lane = slf.get();
        if lane.tasks.get().are_elsewhere() {
            end_child(py, &step)?;
        }
        match step {
            Step::Waits(future) => {
                Self::set_timer(slf, py, &mut running)?;
                lane.lock().running = Some(running);
                Ok(After::Waits(future))
            }
            Step::Done(value) => {
                lane.call_at_end(py)?;
                lane.end_timer(py, &mut running)?;
                lane.ended_with(py, running, value.bind(py))
            }
            Step::Failed(error) => {
                lane.call_at_end(py)?;
                lane.end_timer(py, &mut running)?;
                lane.ended_by(py, running, error)
            }
        }
    }

    fn ended_with(&self, py: Python<'_>, running: Running, value: &Bound<'_, PyAny>) -> PyResult<After> {
        let message = running.message.get();
        if let Some(error) = &running.error {
            exhaust(py, message, error, Some(value));
        } else if running.has_timed_out {
            // Whatever the handler made of its cancellation.
            message.delivery().note_late();
            return self.judge(py, running, self.timeout_error(), failed);
        } else if let Err(error) = returned(message.delivery(), value) {
            return self.judge(py, running, error, failed);
        }
        Ok(After::Ended)
    }

    fn ended_by(&self, py: Python<'_>, running: Running, error: PyErr) -> PyResult<After> {
        let message = running.message.get();
        let was_cancelled = error.is_instance_of::<CancelledError>(py);
        if running.has_timed_out && running.error.is_none() {
            message.delivery().note_late();
            let timeout = self.timeout_error();
            // A cancelled call that has not started says so by its cause.
            timeout.set_cause(py, Some(error).filter(|error| !was_cancelled || error.cause(py).is_some()));
            return self.judge(py, running, timeout, failed);
        }
        if was_cancelled && self.tasks.get().is_cancelling() {
            message.delivery().hand_back();
            return Ok(After::Ended);
        }
        if was_cancelled && self.is_cancelling(py)? {
            // Somebody ends the Task itself, as asyncio.run() does. It may have been the handler, and it may
            // do so again: not without a pause.
            let _ = message.delivery().settle(Outcome::Retry { after: None });
            return Err(error);
        }
        let Some(first) = &running.error else { return self.judge(py, running, error, raised) };
        // `failed` itself raised; the message must not suffer from it.
        error.write_unraisable(py, None);
        exhaust(py, message, first, None);
        Ok(After::Ended)
    }

    /// Judges a failed attempt, and asks `failed` after the last one: both in the handler's context.
    fn judge(
        &self,
        py: Python<'_>,
        Running { message, context, .. }: Running,
        error: PyErr,
        by: fn(Python<'_>, &Handler, &Py<Message>, PyErr) -> PyResult<Judgement>,
    ) -> PyResult<After> {
        let handler = self.tasks.get().handler();
        match context.run(py, || by(py, handler, &message, error))? {
            Judgement::Settled => Ok(After::Ended),
            Judgement::Exhausted(error) => {
                let (running, step) = self.begin(py, message, Some(error), context)?;
                Ok(After::Goes(running, step))
            }
        }
    }

    /// A handler that waits can be ended; one that never waits gives nobody the chance.
    fn set_timer(slf: &Py<Self>, py: Python<'_>, running: &mut Running) -> PyResult<()> {
        let tasks = slf.get().tasks.get();
        let handler = tasks.handler();
        let is_timed = !handler.keeps_time && running.timer.is_none() && running.error.is_none();
        let wanted = handler.timeout.filter(|_| is_timed);
        if let Some(limit) = wanted {
            let callback = slf.getattr(py, "time_out")?;
            let timer = tasks.event_loop().call_method1(py, "call_later", (limit.as_secs_f64(), callback))?;
            running.timer = Some(timer);
        }
        Ok(())
    }

    fn call_at_end(&self, py: Python<'_>) -> PyResult<()> {
        let function = self.lock().at_end.take();
        function.map_or(Ok(()), |function| function.call0(py).map(drop))
    }

    fn timeout_error(&self) -> PyErr {
        timeout_error(self.tasks.get().handler().timeout.unwrap_or_default())
    }

    fn end_timer(&self, py: Python<'_>, running: &mut Running) -> PyResult<()> {
        if let Some(timer) = running.timer.take() {
            timer.call_method0(py, "cancel")?;
        }
        if !running.has_timed_out {
            return Ok(());
        }
        // Whatever the handler made of its timeout, the Task goes on to other messages.
        self.task(py).map_or(Ok(()), |task| task.call_method0(py, "uncancel").map(drop))
    }

    /// The loop steps the handler of this message now.
    fn steps(&self, message: Py<Message>) {
        let before = self.lock().stepped.replace(message);
        drop(before);
    }

    /// The loop goes on to something else.
    fn ends_step(&self) {
        let stepped = self.lock().stepped.take();
        drop(stepped);
    }

    /// The handler goes on with what it has.
    fn step_again(&self, py: Python<'_>) -> Option<Running> {
        let mut state = self.lock();
        let running = state.running.take();
        state.stepped = running.as_ref().map(|running| running.message.clone_ref(py));
        running
    }

    fn is_cancelling(&self, py: Python<'_>) -> PyResult<bool> {
        self.task(py).map_or(Ok(false), |task| task.call_method0(py, "cancelling")?.is_truthy(py))
    }

    fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lock().task.as_ref().map(|task| task.clone_ref(py))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Ends a process that a handler forked. Its loop is the parent's, so it cannot wait either.
fn end_child(py: Python<'_>, step: &Step) -> PyResult<()> {
    match step {
        Step::Done(_) => forked::end(py, None),
        Step::Failed(error) => forked::end(py, Some(error)),
        Step::Waits(_) => {
            let text = "A forked child cannot await: its event loop is the worker's.";
            forked::end(py, Some(&PyRuntimeError::new_err(text)))
        }
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
        let running = slf.get().step_again(py);
        let Some(running) = running else { return Self::go_on(&slf, py, None) };
        let step = running.context.run(py, || Ok(resume(py, &running.coroutine)))?;
        Self::go_on(&slf, py, Some((running, step)))
    }

    fn send(slf: Py<Self>, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        drop(value);
        Self::__next__(slf, py)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, *_older_arguments))]
    fn throw(
        slf: Py<Self>,
        py: Python<'_>,
        error: Py<PyAny>,
        _older_arguments: &Bound<'_, pyo3::types::PyTuple>,
    ) -> PyResult<Py<PyAny>> {
        let running = slf.get().step_again(py);
        let Some(running) = running else {
            Tasks::replace(&slf.get().tasks, py, &slf)?;
            return Err(PyErr::from_value(error.into_bound(py)));
        };
        let step = running.context.run(py, || Ok(interrupt(py, &running.coroutine, error)))?;
        Self::go_on(&slf, py, Some((running, step)))?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// A loop that is closed with a handler under way: its delivery is handed back by being dropped.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let running = self.lock().running.take();
        drop(running);
        self.call_at_end(py)
    }

    /// Has `function` called when the coroutine that runs has ended. Whether one runs.
    fn at_end(&self, function: Py<PyAny>) -> bool {
        let mut state = self.lock();
        let runs = state.running.is_some() || state.stepped.is_some();
        let before = if runs { state.at_end.replace(function) } else { Some(function) };
        drop((state, before));
        runs
    }

    /// The consumer, and the message whose handler is being stepped.
    #[getter]
    fn stepped(&self, py: Python<'_>) -> (&str, Option<Py<Message>>) {
        // Not under the lock of somebody who waits for the GIL.
        let stepped =
            self.state.try_lock().ok().and_then(|state| Some(state.stepped.as_ref()?.clone_ref(py)));
        (&self.tasks.get().handler().name, stepped)
    }

    /// The Task's word that a handler changes it: the handler is its last one.
    fn use_up(&self) {
        self.is_used_up.store(true, Relaxed);
    }

    /// The timer's callback.
    fn time_out(&self, py: Python<'_>) -> PyResult<()> {
        match &mut self.lock().running {
            Some(running) => running.has_timed_out = true,
            None => return Ok(()),
        }
        self.task(py).map_or(Ok(()), |task| task.call_method0(py, "cancel").map(drop))
    }
}
