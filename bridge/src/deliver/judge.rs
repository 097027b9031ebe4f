//! How an attempt ended, told to the engine: the same for event loop and threads.

use std::time::Duration;

use nats_consumer::{Delivery, Follows, Outcome};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::deliver::handler::Handler;
use crate::deliver::message::Message;
use crate::deliver::outcome::{outcome_of, raised_outcome};
use crate::deliver::unfinished::check_finished;
use crate::host::call::call;
use crate::host::error::exceptions::InvalidPayload;

/// The rest of the work after an attempt.
pub(crate) enum Judgement {
    /// Nothing: the delivery is settled.
    Settled,
    /// The last attempt failed with this error: ask `failed`, then [`exhaust`].
    Exhausted(PyErr),
}

/// Judges the `value` that a handler returned. An error means that the attempt failed.
pub(crate) fn returned(delivery: &Delivery, value: &Bound<'_, PyAny>) -> PyResult<()> {
    carry_out(delivery, answered(value)?);
    Ok(())
}

/// The outcome that the returned `value` stands for. An error means that the attempt failed.
pub(crate) fn answered(value: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    if let Some(outcome) = outcome_of(value)? {
        return Ok(outcome);
    }
    if !value.is_none() {
        check_finished(value)?;
    }
    Ok(Outcome::Ack)
}

/// Whether no retry can mend the error: the same payload comes again at each attempt.
pub(crate) fn is_for_good(error: &Bound<'_, PyAny>) -> bool {
    error.is_instance_of::<InvalidPayload>()
}

/// Whether the attempt failed because blocking code did not begin. That says nothing about the message.
fn is_without_evidence(error: &Bound<'_, PyAny>) -> PyResult<bool> {
    static ASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let ask = ASK.import(error.py(), "nats_consumer.lanes.evidence", "is_without_evidence")?;
    call(ask, (error,))?.is_truthy()
}

/// The handler raised `error`.
pub(crate) fn raised(
    py: Python<'_>,
    handler: &Handler,
    message: &Py<Message>,
    error: PyErr,
) -> PyResult<Judgement> {
    // An outcome that cannot be read, or that the engine refuses, is an error like any other.
    match raised_outcome(error.value(py)) {
        Ok(Some(outcome)) => {
            carry_out(message.get().delivery(), outcome);
            Ok(Judgement::Settled)
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
) -> PyResult<Judgement> {
    let class = error.get_type(py).name()?;
    let (class, delivery) = (class.to_string_lossy(), message.get().delivery());
    let follows = if is_for_good(error.value(py)) {
        delivery.fail_for_good(&class)
    } else if !delivery.is_settled() && is_without_evidence(error.value(py))? {
        Follows::Outcome(delivery.fail_without_evidence(&class))
    } else {
        delivery.fail_with(&class, None)
    };
    if follows == Follows::FinalWord {
        return Ok(Judgement::Exhausted(error));
    }
    handler.log_failure(py, message, &error, &follows.to_string())?;
    Ok(Judgement::Settled)
}

/// The final word: what `failed` answered, or the engine's own.
pub(crate) fn exhaust(py: Python<'_>, message: &Message, error: &PyErr, answer: Option<&Bound<'_, PyAny>>) {
    let delivery = message.delivery();
    let outcome = final_word(py, answer, || delivery.final_outcome());
    delivery.exhaust(outcome, Some(describe(error.value(py))));
}

/// Returns what `failed` answered, or else its `own` word.
pub(crate) fn final_word(
    py: Python<'_>,
    answer: Option<&Bound<'_, PyAny>>,
    own: impl FnOnce() -> Outcome,
) -> Outcome {
    match answer.map_or(Ok(None), outcome_of) {
        Ok(outcome) => outcome.unwrap_or_else(own),
        Err(unreadable) => {
            // It was to be something else than the configured final word, so nothing final happens.
            unreadable.write_unraisable(py, answer);
            Outcome::Retry { after: None }
        }
    }
}

fn carry_out(delivery: &Delivery, outcome: Outcome) {
    if outcome == Outcome::Ack {
        delivery.succeed();
    } else {
        // A handler that settled the message itself has had the final word.
        let _ = delivery.conclude(outcome);
    }
}

/// The error of a handler that ran longer than its timeout.
pub(crate) fn timeout_error(limit: Duration) -> PyErr {
    PyTimeoutError::new_err(timeout_text(limit))
}

/// The text of that error, as Python's `timeout_text`.
pub(crate) fn timeout_text(limit: Duration) -> String {
    format!("timed out after {} s, the consumer's handler_timeout", limit.as_secs_f64())
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
