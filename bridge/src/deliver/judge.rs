//! How an attempt ended, told to the engine: the same for event loop and threads.

use std::time::Duration;

use nats_consumer::{Delivery, Follows, Outcome};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;

use crate::deliver::handler::Handler;
use crate::deliver::message::Message;
use crate::deliver::outcome::{outcome_of, raised_outcome};
use crate::deliver::unfinished::check_finished;

/// What is left to do after an attempt.
pub(crate) enum Verdict {
    /// Nothing: the delivery is settled.
    Settled,
    /// The last attempt failed with this error: ask `failed`, then [`exhaust`].
    Exhausted(PyErr),
}

/// The handler returned `value`. An error is how its attempt failed all the same.
pub(crate) fn returned(delivery: &Delivery, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_none() {
        delivery.succeed();
        return Ok(());
    }
    match outcome_of(value)? {
        Some(outcome) => carry_out(delivery, outcome),
        None => {
            check_finished(value)?;
            delivery.succeed();
        }
    }
    Ok(())
}

/// The handler raised `error`.
pub(crate) fn raised(
    py: Python<'_>,
    handler: &Handler,
    message: &Py<Message>,
    error: PyErr,
) -> PyResult<Verdict> {
    // An outcome that cannot be read, or that the engine refuses, is an error like any other.
    match raised_outcome(error.value(py)) {
        Ok(Some(outcome)) => {
            carry_out(message.get().delivery(), outcome);
            Ok(Verdict::Settled)
        }
        Ok(None) => failed(py, handler, message, error),
        Err(refused) => failed(py, handler, message, refused),
    }
}

/// The attempt failed with `error`.
pub(crate) fn failed(
    py: Python<'_>,
    handler: &Handler,
    message: &Py<Message>,
    error: PyErr,
) -> PyResult<Verdict> {
    let follows = message.get().delivery().fail(None);
    if follows == Follows::FinalWord {
        return Ok(Verdict::Exhausted(error));
    }
    handler.log_failure(py, message, &error, &follows.to_string())?;
    Ok(Verdict::Settled)
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
    delivery.exhaust(outcome, Some(describe(error.value(py))));
}

fn carry_out(delivery: &Delivery, outcome: Outcome) {
    if outcome == Outcome::Ack {
        delivery.succeed();
    } else {
        // A handler that settled the message itself has had the final word.
        let _ = delivery.settle(outcome);
    }
}

/// The error of a handler that ran longer than its timeout.
pub(crate) fn timeout_error(limit: Duration) -> PyErr {
    PyTimeoutError::new_err(format!("timed out after {limit:?}, the consumer's handler_timeout"))
}

/// An error in one line: class and text, and those of its parts if it is a group.
pub(crate) fn describe(error: &Bound<'_, PyAny>) -> String {
    let class = error.get_type().to_string();
    let class = class.trim_start_matches("<class '").trim_end_matches("'>");
    let own = format!("{class}: {error}");
    let parts = error.getattr("exceptions").and_then(|parts| parts.extract::<Vec<Bound<'_, PyAny>>>());
    match parts {
        Ok(parts) if class.ends_with("ExceptionGroup") => {
            let parts: Vec<_> = parts.iter().map(describe).collect();
            format!("{own}: {}", parts.join("; "))
        }
        _ => own,
    }
}
