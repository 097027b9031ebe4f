//! How an attempt ended, told to the engine: the same for event loop and threads.

use std::time::Duration;

use nats_consumer::{Delivery, Outcome};
use pyo3::exceptions::{PyTimeoutError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::deliver::awaitable::is_coroutine;
use crate::deliver::message::Message;
use crate::deliver::outcome::outcome_of;

/// What is left to do after an attempt.
pub(crate) enum Verdict {
    /// Nothing: the delivery is settled.
    Settled,
    /// The last attempt failed: ask `failed`, then [`exhaust`].
    Exhausted,
}

/// The handler returned `value`.
pub(crate) fn returned(delivery: &Delivery, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match outcome_of(value)? {
        None if !value.is_none() && is_coroutine(value)? => return Err(not_awaited()),
        None | Some(Outcome::Ack) => delivery.succeed(),
        Some(outcome) => settle(delivery, outcome),
    }
    Ok(())
}

/// Succeeding, it would lose the work that the coroutine was to do.
fn not_awaited() -> PyErr {
    PyTypeError::new_err("handle_message returned a coroutine that nobody awaits: write `return await ...`.")
}

/// The handler raised `error`.
pub(crate) fn raised(py: Python<'_>, name: &str, message: &Message, error: &PyErr) -> PyResult<Verdict> {
    let delivery = message.delivery();
    // An outcome that cannot be read is an error like any other.
    if let Ok(Some(_)) = outcome_of(error.value(py).as_any()) {
        returned(delivery, error.value(py).as_any())?;
        return Ok(Verdict::Settled);
    }
    let (verdict, follows) = fail(delivery);
    if let Verdict::Settled = verdict {
        log_failure(py, name, message, error, &follows)?;
    }
    Ok(verdict)
}

/// The attempt failed: it is tried again if it may be. Says what follows.
pub(crate) fn fail(delivery: &Delivery) -> (Verdict, String) {
    let was_settled = delivery.is_settled();
    let retry = delivery.fail();
    if was_settled {
        return (Verdict::Settled, "it had settled the message itself, so nothing follows".into());
    }
    let Some(outcome) = retry else { return (Verdict::Exhausted, "it was the last attempt".into()) };
    let follows = match &outcome {
        Outcome::Retry { after: Some(after) } => format!("the next attempt follows in {after:?}"),
        other => format!("{other:?} follows"),
    };
    settle(delivery, outcome);
    (Verdict::Settled, follows)
}

/// The final word: what `failed` answered, or the engine's own.
pub(crate) fn exhaust(py: Python<'_>, message: &Message, error: &PyErr, answer: Option<&Bound<'_, PyAny>>) {
    let delivery = message.delivery();
    let outcome = match answer.map_or(Ok(None), outcome_of) {
        Ok(outcome) => outcome.unwrap_or_else(|| delivery.final_outcome()),
        Err(unreadable) => {
            // It was to be something else than the configured final word, so nothing final happens.
            unreadable.write_unraisable(py, answer);
            Outcome::Retry { after: None }
        }
    };
    delivery.exhaust(outcome, Some(spell(py, error)));
}

fn settle(delivery: &Delivery, outcome: Outcome) {
    // A handler that settled the message itself has had the final word.
    let _ = delivery.settle(outcome);
}

/// The delivery, in a line of log.
pub(crate) fn tell(delivery: &Delivery) -> String {
    let sequence = delivery.message().metadata().map_or(0, |metadata| metadata.stream_sequence);
    format!("attempt {} at message {sequence} of {}", delivery.attempt(), delivery.message().subject())
}

/// What a handler is told that ran longer than its timeout.
pub(crate) fn timeout_error(limit: Duration) -> PyErr {
    PyTimeoutError::new_err(format!("timed out after {limit:?}, the consumer's handler_timeout"))
}

pub(crate) fn spell(py: Python<'_>, error: &PyErr) -> String {
    let class = error.get_type(py).to_string();
    let class = class.trim_start_matches("<class '").trim_end_matches("'>");
    format!("{class}: {}", error.value(py))
}

/// Every failed attempt is told in one line; the last one, by `failed`, with its traceback.
fn log_failure(py: Python<'_>, name: &str, message: &Message, error: &PyErr, follows: &str) -> PyResult<()> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let logger = LOGGER.get_or_try_init(py, || {
        let logging = py.import("logging")?;
        logging.call_method1("getLogger", ("nats_consumer.handler",)).map(Bound::unbind)
    })?;
    let text = format!("{name}: {} failed ({}); {follows}.", tell(message.delivery()), spell(py, error));
    logger.call_method1(py, "warning", ("%s", text))?;
    Ok(())
}
