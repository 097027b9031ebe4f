//! The threads' lane: plain `def` handlers, where blocking is fine.
//!
//! The threads are Python's own; each takes deliveries with the GIL released while it waits. Each delivery has a
//! context of its own, as in the event loop's lanes.

pub(crate) mod batches;
pub(crate) mod late;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nats_consumer::{Delivery, Follows};
use pyo3::prelude::*;

use crate::deliver::handler::Handler;
use crate::deliver::inbox::{DeliveryQueue, Filled};
use crate::deliver::judge::{Judgement, describe, exhaust, failed, raised, returned, timeout_error};
use crate::deliver::message::Message;
use crate::host::context::Context;
use crate::threads::late::Late;

/// A thread may take several deliveries at once if handlers are this fast.
const FAST_HANDLER: Duration = Duration::from_micros(200);
const MOST_AT_ONCE: usize = 16;

/// A thread without deliveries rests after this time. Longer than most pauses under load, shorter than a database
/// misses a connection.
const IDLE: Duration = Duration::from_secs(1);

/// One thread's work: returns when nothing will come any more. Calls `rest` whenever the thread begins to be idle.
pub(crate) fn serve(
    py: Python<'_>,
    handler: &Handler,
    waiting: &DeliveryQueue,
    late: Option<&Late>,
    rest: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let (name, thread) = (name(py)?, thread_number(py)?);
    let hand = waiting.new_hand();
    let mut most = 1;
    let mut patience = None;
    loop {
        let count = match py.detach(|| waiting.fill(&hand, most, patience)) {
            Filled::With(count) => count,
            Filled::Idle => {
                rest.call0()?;
                patience = None;
                continue;
            }
            Filled::Over => return Ok(()),
        };
        patience = Some(IDLE);
        let _busy = waiting.is_given_to_me();
        let began = Instant::now();
        while let Some(delivery) = waiting.next_of(&hand) {
            if waiting.is_recalled() {
                delivery.hand_back();
                continue;
            }
            let begin = |message: &Py<Message>| handler.at_work.begin(py, message, thread);
            let attempted = match late {
                None => attempt(py, handler, delivery, begin),
                Some(late) => timed_attempt(py, handler, late, &name, delivery, begin),
            };
            handler.at_work.end(thread);
            attempted?;
        }
        let each = began.elapsed() / u32::try_from(count).unwrap_or(1).max(1);
        most = if each < FAST_HANDLER { (most * 2).min(MOST_AT_ONCE) } else { 1 };
    }
}

/// The work of one more thread, where handlers have a timeout: reports those that ran late, and asks `failed` about
/// those that had the last attempt. Their own threads are busy.
pub(crate) fn serve_late(py: Python<'_>, handler: &Handler, late: &Late) -> PyResult<()> {
    while let Some((run, follows)) = py.detach(|| late.next_judged()) {
        let message = Py::new(py, Message::last(run.attempt()))?;
        let error = timeout_error(late.limit());
        let thread = run.thread();
        let report = format!(
            "{follows}. Its handler still runs in the thread {thread}, which cannot be ended: what it does from now on \
             is ignored"
        );
        // The handler may still run in its own context, which only one thread can enter.
        run.context().copy(py)?.run(py, || {
            handler.log_failure(py, &message, &error, &report)?;
            if follows == Follows::FinalWord {
                give_up(py, handler, &message, &error);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn attempt(
    py: Python<'_>,
    handler: &Handler,
    delivery: Delivery,
    begin: impl Fn(&Py<Message>),
) -> PyResult<()> {
    let message = Py::new(py, Message::new(delivery))?;
    begin(&message);
    Context::of_caller(py)?.run(py, || {
        let answer = handler.call(py, &message, None);
        judge(py, handler, &message, answer)
    })
}

fn timed_attempt(
    py: Python<'_>,
    handler: &Handler,
    late: &Late,
    thread: &Arc<str>,
    delivery: Delivery,
    begin: impl Fn(&Py<Message>),
) -> PyResult<()> {
    let context = Arc::new(Context::of_caller(py)?);
    let run = late.begin(delivery, thread, &context);
    let message = Py::new(py, Message::timed(run.attempt()))?;
    begin(&message);
    context.run(py, || {
        let answer = handler.call(py, &message, None);
        if late.end(&run) {
            return judge(py, handler, &message, answer);
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

fn name(py: Python<'_>) -> PyResult<Arc<str>> {
    let thread = py.import("threading")?.call_method0("current_thread")?;
    Ok(thread.getattr("name")?.extract::<String>()?.into())
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
