//! The threads' lane: plain `def` handlers, where blocking is fine.
//!
//! The threads are Python's own; each takes deliveries with the GIL released while it waits.

pub(crate) mod late;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nats_consumer::Delivery;
use pyo3::prelude::*;

use crate::deliver::handler::Handler;
use crate::deliver::inbox::Waiting;
use crate::deliver::judge::{Verdict, exhaust, raised, returned, spell, timeout_error};
use crate::deliver::message::Message;
use crate::host::lock::lock;
use crate::threads::late::{Hand, Late};

/// A thread may take several deliveries at once where handlers are this fast; what it has taken, no other
/// thread can have.
const FAST: Duration = Duration::from_micros(200);
const MOST: usize = 16;

/// One thread's work: returns when nothing will come any more.
pub(crate) fn serve(
    py: Python<'_>,
    handler: &Handler,
    waiting: &Waiting,
    late: Option<&Late>,
) -> PyResult<()> {
    let thread = Thread { name: name(py)?, hand: Arc::default() };
    let mut taken = VecDeque::with_capacity(MOST);
    let mut most = 1;
    while py.detach(|| waiting.wait(most, &mut taken)) {
        let count = taken.len();
        let began = Instant::now();
        std::mem::swap(&mut *lock(&thread.hand), &mut taken);
        while let Some(delivery) = thread.next() {
            if waiting.is_recalled() {
                delivery.hand_back();
                continue;
            }
            match late {
                None => attempt(py, handler, delivery)?,
                Some(late) => thread.attempt(py, handler, late, delivery)?,
            }
        }
        let each = began.elapsed() / u32::try_from(count).unwrap_or(1).max(1);
        most = if each < FAST { (most * 2).min(MOST) } else { 1 };
    }
    Ok(())
}

/// The work of one more thread, where handlers have a timeout: asks `failed` about those that ran late at
/// their last attempt, whose own threads are busy.
pub(crate) fn serve_late(py: Python<'_>, handler: &Handler, late: &Late) -> PyResult<()> {
    while let Some(run) = py.detach(|| late.next_exhausted()) {
        let message = Py::new(py, Message::last(run.attempt()))?;
        give_up(py, handler, &message, &timeout_error(late.limit()));
    }
    Ok(())
}

/// A thread whose handlers have a timeout.
struct Thread {
    name: Arc<str>,
    hand: Arc<Hand>,
}

impl Thread {
    /// The next delivery in its hand that may start.
    fn next(&self) -> Option<Delivery> {
        loop {
            let next = lock(&self.hand).pop_front()?;
            if next.may_start() {
                return Some(next);
            }
        }
    }

    fn attempt(&self, py: Python<'_>, handler: &Handler, late: &Late, delivery: Delivery) -> PyResult<()> {
        let run = late.begin(delivery, &self.name, &self.hand);
        let message = Py::new(py, Message::timed(run.attempt()))?;
        let answer = handler.call(py, &message, None);
        if late.end(&run) {
            return judge(py, handler, &message, answer);
        }
        let said = answer.map_or_else(|error| format!("raised {}", spell(py, &error)), |_| "returned".into());
        late.ignore(&run, &said);
        Ok(())
    }
}

fn name(py: Python<'_>) -> PyResult<Arc<str>> {
    let thread = py.import("threading")?.call_method0("current_thread")?;
    Ok(thread.getattr("name")?.extract::<String>()?.into())
}

fn attempt(py: Python<'_>, handler: &Handler, delivery: Delivery) -> PyResult<()> {
    let message = Py::new(py, Message::new(delivery))?;
    let answer = handler.call(py, &message, None);
    judge(py, handler, &message, answer)
}

fn judge(
    py: Python<'_>,
    handler: &Handler,
    message: &Py<Message>,
    answer: PyResult<Py<PyAny>>,
) -> PyResult<()> {
    let judged = answer.and_then(|value| returned(message.get().delivery(), value.bind(py)));
    let Err(error) = judged else { return Ok(()) };
    if let Verdict::Exhausted = raised(py, &handler.name, message.get(), &error)? {
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
