//! Plain `def` handlers, where blocking is fine, in threads of the process.
//!
//! The threads are Python's own; each takes deliveries with the GIL released while it waits. Each delivery has a
//! context of its own, as in the event loop's lanes.

pub(crate) mod at_work;
pub(crate) mod lane;
pub(crate) mod late;
pub(crate) mod pool;
pub(crate) mod seat;

use std::sync::{Arc, OnceLock};

use nats_consumer::{Delivery, Follows};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tracing::warn;

use crate::deliver::batch::messages_of;
use crate::deliver::handler::Handler;
use crate::deliver::judge::{Judgement, describe, exhaust, failed, raised, returned, timeout_error};
use crate::deliver::message::Message;
use crate::host::call::call;
use crate::host::context::Context;
use crate::host::process::PerProcess;
use crate::threads::at_work::Desk;
use crate::threads::lane::Lane;
use crate::threads::late::Late;
use crate::threads::pool::{Pool, Seat, Turn};
use crate::threads::seat::ThreadSeat;

/// A consumer's way to the threads. Its work is known when its handlers may run.
pub(crate) type ConsumerLane = Lane<OnceLock<Work>>;
pub(crate) type ConsumerPool = Pool<OnceLock<Work>>;
pub(crate) type ConsumerSeat = Seat<OnceLock<Work>>;

/// The work of a thread for one consumer.
pub(crate) struct Work {
    pub(crate) handler: Arc<Handler>,
    pub(crate) late: Option<Arc<Late>>,
    /// The context that each delivery gets a copy of.
    pub(crate) context: Context,
    /// Called in a thread that begins to work for the consumer; returns the thread's name.
    pub(crate) enter: Py<PyAny>,
}

/// The pool of this process.
pub(crate) fn pool() -> Arc<ConsumerPool> {
    static POOL: PerProcess<Arc<ConsumerPool>> = PerProcess::new();
    POOL.get_or(|| Arc::new(Pool::new())).clone()
}

/// Begins to run the handlers of the lane, in at most `most` threads for all lanes.
pub(crate) fn open(py: Python<'_>, lane: &Arc<ConsumerLane>, work: Work, most: usize) -> PyResult<()> {
    let has_errands = work.late.is_some();
    if lane.work.set(work).is_err() {
        return Ok(());
    }
    let pool = pool();
    pool.limit(most);
    pool.open(lane);
    if has_errands && let Some(seat) = pool.new_runner() {
        start_thread(py, seat)?;
    }
    start_if_needed(py, &pool)
}

/// Starts a thread if none is idle.
fn start_if_needed(py: Python<'_>, pool: &ConsumerPool) -> PyResult<()> {
    pool.new_seat().map_or(Ok(()), |seat| start_thread(py, seat))
}

/// The same from one of the threads: if it fails, those that there are go on.
fn grow(py: Python<'_>, pool: &ConsumerPool) {
    if let Err(error) = start_if_needed(py, pool) {
        warn!(
            target: "nats_consumer::worker",
            "No more threads can be started for `def` handlers ({error}), so fewer of them run at once.",
        );
    }
}

fn start_thread(py: Python<'_>, seat: Arc<ConsumerSeat>) -> PyResult<()> {
    let start = || {
        let seat = Py::new(py, ThreadSeat::new(seat.clone()))?;
        py.import("nats_consumer.lanes.handler_threads")?.call_method1("start", (seat,)).map(drop)
    };
    start().inspect_err(|_| pool().never_came(&seat))
}

/// A thread works for one consumer.
pub(crate) struct Visit {
    lane: Arc<ConsumerLane>,
    /// The name of the thread meanwhile.
    name: Arc<str>,
}

impl Visit {
    fn begin(py: Python<'_>, lane: Arc<ConsumerLane>) -> PyResult<Self> {
        let name: String = call(lane.work()?.enter.bind(py), ())?.extract()?;
        Ok(Self { lane, name: name.into() })
    }

    fn work(
        &self,
        py: Python<'_>,
        seat: &ConsumerSeat,
        desk: &Desk,
        turn: Turn<OnceLock<Work>>,
    ) -> PyResult<()> {
        let worked = match turn {
            Turn::Batch(_, batch) => self.handle_batch(py, desk, batch),
            Turn::Errand(_) => self.report_late(py, desk),
            _ => self.handle_hand(py, seat, desk),
        };
        desk.end();
        worked
    }

    /// Handles the deliveries in the hand of the thread.
    fn handle_hand(&self, py: Python<'_>, seat: &ConsumerSeat, desk: &Desk) -> PyResult<()> {
        let (pool, work) = (pool(), self.lane.work()?);
        while let Some(delivery) = pool.next_of(seat) {
            if self.lane.is_recalled() {
                delivery.hand_back();
                continue;
            }
            let begin = |message: &Py<Message>| desk.begin(py, self, message, false);
            match &work.late {
                None => attempt(py, work, delivery, begin)?,
                Some(late) => timed_attempt(py, work, late, &self.name, delivery, begin)?,
            }
        }
        Ok(())
    }

    /// Handles a batch that waited for the thread.
    fn handle_batch(&self, py: Python<'_>, desk: &Desk, mut batch: Vec<Delivery>) -> PyResult<()> {
        batch.retain(Delivery::may_start);
        if self.lane.is_recalled() {
            batch.drain(..).for_each(|delivery| delivery.hand_back());
        }
        if batch.is_empty() {
            return Ok(());
        }
        let work = self.lane.work()?;
        let messages = messages_of(py, batch, work.handler.timeout.is_some())?;
        desk.begin(py, self, &messages[0], false);
        work.context.copy(py)?.run(py, || call(work.handler.handle.bind(py), (messages,)).map(drop))
    }

    /// Reports a handler that ran late, and asks `failed` about it after its last attempt: its own thread is busy.
    fn report_late(&self, py: Python<'_>, desk: &Desk) -> PyResult<()> {
        let work = self.lane.work()?;
        let judged = work.late.as_ref().and_then(|late| Some((late, late.next_judged()?)));
        let Some((late, (run, follows))) = judged else { return Ok(()) };
        let message = Py::new(py, Message::last(run.attempt()))?;
        desk.begin(py, self, &message, true);
        let error = timeout_error(late.limit());
        let thread = run.thread();
        let report = format!(
            "{follows}. The handler still runs in the thread {thread}, because a thread cannot be stopped. Its result \
             is ignored"
        );
        // The handler may still run in its own context, which only one thread can enter.
        run.context().copy(py)?.run(py, || {
            work.handler.log_failure(py, &message, &error, &report)?;
            if follows == Follows::FinalWord {
                give_up(py, &work.handler, &message, &error);
            }
            Ok(())
        })
    }
}

impl ConsumerLane {
    fn work(&self) -> PyResult<&Work> {
        self.work
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("the handlers of the consumer were not started"))
    }
}

fn attempt(py: Python<'_>, work: &Work, delivery: Delivery, begin: impl Fn(&Py<Message>)) -> PyResult<()> {
    let message = Py::new(py, Message::new(delivery))?;
    begin(&message);
    work.context.copy(py)?.run(py, || {
        let answer = work.handler.call(py, &message, None);
        judge(py, &work.handler, &message, answer)
    })
}

fn timed_attempt(
    py: Python<'_>,
    work: &Work,
    late: &Late,
    thread: &Arc<str>,
    delivery: Delivery,
    begin: impl Fn(&Py<Message>),
) -> PyResult<()> {
    let context = Arc::new(work.context.copy(py)?);
    let run = late.begin(delivery, thread, &context);
    let message = Py::new(py, Message::timed(run.attempt()))?;
    begin(&message);
    context.run(py, || {
        let answer = work.handler.call(py, &message, None);
        if late.end(&run) {
            return judge(py, &work.handler, &message, answer);
        }
        let said = match answer {
            Ok(_) => "returned".into(),
            Err(error) => format!("raised {}", describe(error.value(py))),
        };
        late.ignore(&run, &said);
        Ok(())
    })
}

/// The number by which Python knows the calling thread.
pub(crate) fn thread_number(py: Python<'_>) -> PyResult<u64> {
    py.import("threading")?.call_method0("get_ident")?.extract()
}

fn judge(
    py: Python<'_>,
    handler: &Handler,
    message: &Py<Message>,
    answer: PyResult<Py<PyAny>>,
) -> PyResult<()> {
    let verdict = match answer {
        Ok(value) => match returned(message.get().delivery(), value.bind(py)) {
            Ok(()) => return Ok(()),
            Err(error) => failed(py, handler, message, error)?,
        },
        Err(error) => raised(py, handler, message, error)?,
    };
    if let Judgement::Exhausted(error) = verdict {
        give_up(py, handler, message, &error);
    }
    Ok(())
}

/// Asks `failed` for the final word.
fn give_up(py: Python<'_>, handler: &Handler, message: &Py<Message>, error: &PyErr) {
    match handler.call(py, message, Some(error)) {
        Ok(answer) => exhaust(py, message.get(), error, Some(answer.bind(py))),
        Err(second) => {
            // `failed` itself raised; the message must not suffer from it.
            second.write_unraisable(py, None);
            exhaust(py, message.get(), error, None);
        }
    }
}
