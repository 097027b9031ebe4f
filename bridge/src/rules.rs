//! The engine's decisions without a delivery, for a model of a server in a project's tests. Nothing is decided here.

use std::time::{Duration, SystemTime};

use nats_consumer as engine;
use nats_consumer::Outcome;
use nats_consumer::dead_letters::letter_of;
use nats_consumer::replay::outgoing;
use nats_consumer::route::Routes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::dead_letters::StoredLetter;
use crate::deliver::judge;
use crate::deliver::outcome::{outcome_of, to_python as to_outcome};
use crate::host::error::to_python;
use crate::options::ConsumerOptions;

/// A server's default limit for a message: <https://docs.nats.io/running-a-nats-service/configuration>.
const MAX_PAYLOAD: usize = 1 << 20;

/// A message to store: subject, payload, headers.
type Draft<'py> = (String, Bound<'py, PyBytes>, Bound<'py, PyDict>);

/// A stored message as a model of a server keeps it.
#[derive(FromPyObject)]
pub(crate) struct Kept {
    subject: String,
    data: Vec<u8>,
    headers: Option<std::collections::HashMap<String, String>>,
    stream: String,
    sequence: u64,
    nanoseconds: u64,
}

impl Kept {
    fn stored(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.nanoseconds)
    }

    fn lines(&self) -> Vec<(&str, &str)> {
        let headers = self.headers.iter().flatten();
        let mut lines: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        lines.sort_unstable();
        lines
    }

    /// The message as the engine delivers it for the time number `delivered`.
    fn message(&self, consumer: &str, delivered: u64) -> engine::Message {
        let builder = engine::Message::builder(self.subject.as_str())
            .payload(self.data.clone())
            .stream(self.stream.as_str())
            .consumer(consumer)
            .sequence(self.sequence)
            .attempt(delivered)
            .stored_at(self.stored());
        self.lines().iter().fold(builder, |builder, (name, value)| builder.header(name, value)).build()
    }
}

/// The decisions about the messages of one consumer.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Rules {
    options: engine::ConsumerOptions,
    filters: Routes<()>,
}

#[pymethods]
impl Rules {
    #[new]
    fn new(options: ConsumerOptions) -> PyResult<Self> {
        let options = options.into_options()?;
        let patterns = options.filter_subjects.iter().map(|text| Ok((engine::Pattern::parse(text)?, ())));
        let filters: Result<Routes<()>, engine::route::PatternError> = patterns.collect();
        let filters = filters.map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
        Ok(Self { options, filters })
    }

    /// Whether the consumer gets messages of the subject.
    fn takes(&self, subject: &str) -> bool {
        self.filters.find(subject).is_some()
    }

    /// Returns the outcome that follows the handler's answer. Raises `TypeError` for work that is not finished.
    fn answered<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        to_outcome(value.py(), &judge::answered(value)?)
    }

    /// Returns the outcome that follows an attempt which failed with `error`; None for the final word.
    fn failed<'py>(
        &self,
        py: Python<'py>,
        attempt: u64,
        error: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if judge::is_for_good(error) {
            return Ok(None);
        }
        self.options.after_failure(attempt).map(|outcome| to_outcome(py, &outcome)).transpose()
    }

    /// Returns the outcome that follows a failure which says nothing about the message.
    fn failed_in_common<'py>(&self, py: Python<'py>, attempt: u64) -> PyResult<Bound<'py, PyAny>> {
        to_outcome(py, &Outcome::Retry { after: Some(self.options.retry.delay(attempt)) })
    }

    /// Returns the final word: the answer of `failed`, or the engine's own.
    fn final_word<'py>(&self, answer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = answer.py();
        to_outcome(py, &judge::final_word(py, Some(answer), || self.options.final_word()))
    }

    /// The error of a handler that ran longer than handler_timeout.
    fn timed_out(&self, py: Python<'_>) -> Py<PyAny> {
        let limit = self.options.handler_timeout.unwrap_or_default();
        judge::timeout_error(limit).into_value(py).into_any()
    }

    /// The outcome as it is carried out at this attempt.
    fn carried_out<'py>(&self, attempt: u64, outcome: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let given = outcome_of(outcome)?.unwrap_or(Outcome::Ack);
        to_outcome(outcome.py(), &self.options.carried_out(attempt, given))
    }

    /// The messages that a dead letter is stored as, the letter last.
    #[pyo3(signature = (message, delivered, reason, error=None))]
    fn dead_letter<'py>(
        &self,
        py: Python<'py>,
        message: Kept,
        delivered: u64,
        reason: String,
        error: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Draft<'py>>> {
        let message = message.message(&self.options.durable, delivered);
        let error = error.map(judge::describe);
        let copies = engine::copies(&self.options, message, reason, error, MAX_PAYLOAD);
        copies.iter().map(|copy| draft(py, copy)).collect()
    }
}

/// The identity of a stored message at its publisher.
#[pyfunction]
pub(crate) fn identity_of(message: Kept) -> PyResult<String> {
    engine::identity(&message.message("", 1)).map_err(|error| to_python(&error))
}

/// The dead letter that a stored message is.
#[pyfunction]
pub(crate) fn read_letter(message: Kept) -> StoredLetter {
    let (lines, stored) = (message.lines(), message.stored());
    let payload = message.data.clone().into();
    let letter = letter_of(message.stream.clone(), message.sequence, stored, &lines, payload);
    StoredLetter { letter }
}

/// The message that a replay of the dead letter publishes.
#[pyfunction]
pub(crate) fn replayed<'py>(py: Python<'py>, letter: &StoredLetter) -> PyResult<Draft<'py>> {
    let payload = letter.letter.payload.clone().unwrap_or_default();
    let outgoing = outgoing(&letter.letter, payload, MAX_PAYLOAD).map_err(|error| to_python(&error))?;
    draft(py, &outgoing)
}

fn draft<'py>(py: Python<'py>, message: &engine::Outgoing) -> PyResult<Draft<'py>> {
    let headers = PyDict::new(py);
    for (name, values) in message.headers().iter() {
        if let Some(value) = values.first() {
            headers.set_item::<&str, _>(name.as_ref(), value.as_str())?;
        }
    }
    Ok((message.subject().to_owned(), PyBytes::new(py, message.payload()), headers))
}
