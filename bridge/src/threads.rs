//! The threads' lane: plain `def` handlers, where blocking is fine.
//!
//! The threads are Python's own; each takes deliveries with the GIL released while it waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nats_consumer::Delivery;
use pyo3::prelude::*;

use crate::handler::Handler;
use crate::inbox::Waiting;
use crate::judge::{Verdict, exhaust, raised, returned};
use crate::message::Message;

/// A thread may take several deliveries at once where handlers are this fast; what it has taken, no other
/// thread can have.
const FAST: Duration = Duration::from_micros(200);
const MOST: usize = 16;

/// One thread's work: returns when nothing will come any more.
pub(crate) fn serve(py: Python<'_>, handler: &Handler, waiting: &Waiting) -> PyResult<()> {
    let mut taken = VecDeque::with_capacity(MOST);
    let mut most = 1;
    while py.detach(|| waiting.wait(most, &mut taken)) {
        let count = taken.len();
        let began = Instant::now();
        while let Some(delivery) = taken.pop_front() {
            if waiting.is_recalled() {
                delivery.hand_back();
                continue;
            }
            attempt(py, handler, delivery)?;
        }
        let each = began.elapsed() / u32::try_from(count).unwrap_or(1).max(1);
        most = if each < FAST { (most * 2).min(MOST) } else { 1 };
    }
    Ok(())
}

fn attempt(py: Python<'_>, handler: &Handler, delivery: Delivery) -> PyResult<()> {
    let message = Py::new(py, Message::new(delivery))?;
    let answer = handler.call(py, &message, None);
    answer
        .and_then(|value| returned(message.get().delivery(), value.bind(py)))
        .or_else(|error| judge(py, handler, &message, &error))
}

fn judge(py: Python<'_>, handler: &Handler, message: &Py<Message>, error: &PyErr) -> PyResult<()> {
    if let Verdict::Settled = raised(py, &handler.name, message.get(), error)? {
        return Ok(());
    }
    match handler.call(py, message, Some(error)) {
        Ok(answer) => exhaust(py, message.get(), error, Some(answer.bind(py))),
        Err(second) => {
            // `failed` itself raised; the message must not suffer from it.
            second.write_unraisable(py, None);
            exhaust(py, message.get(), error, None);
        }
    }
    Ok(())
}
