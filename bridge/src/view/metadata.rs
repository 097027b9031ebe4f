//! The metadata of a message that comes from a stream.

use pyo3::prelude::*;

/// The place of a message in its stream, and among the consumer's deliveries.
#[pyclass(frozen, get_all, module = "nats_consumer._native")]
#[derive(Clone)]
pub(crate) struct SequencePair {
    stream: u64,
    consumer: u64,
}

/// The metadata of a delivery, as the server reports it.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Metadata {
    #[pyo3(get)]
    sequence: SequencePair,
    #[pyo3(get)]
    num_delivered: u64,
    #[pyo3(get)]
    num_pending: u64,
    nanoseconds: i64,
    #[pyo3(get)]
    stream: String,
    #[pyo3(get)]
    consumer: String,
    #[pyo3(get)]
    domain: Option<String>,
}

impl From<&nats_consumer::Metadata<'_>> for Metadata {
    fn from(metadata: &nats_consumer::Metadata<'_>) -> Self {
        Self {
            sequence: SequencePair { stream: metadata.stream_sequence, consumer: metadata.consumer_sequence },
            num_delivered: metadata.delivered,
            num_pending: metadata.pending,
            nanoseconds: metadata.timestamp,
            stream: metadata.stream.to_owned(),
            consumer: metadata.consumer.to_owned(),
            domain: metadata.domain.map(str::to_owned),
        }
    }
}

#[pymethods]
impl Metadata {
    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let datetime = py.import("datetime")?;
        let utc = datetime.getattr("timezone")?.getattr("utc")?;
        let epoch = datetime.getattr("datetime")?.call1((1970, 1, 1, 0, 0, 0, 0, utc))?;
        // By whole microseconds: a float of seconds is not exact.
        let since = datetime.getattr("timedelta")?.call1((0, 0, self.nanoseconds / 1000))?;
        epoch.call_method1("__add__", (since,))
    }

    fn __repr__(&self) -> String {
        let SequencePair { stream: message, consumer: delivery } = self.sequence;
        let Self { stream, consumer, num_delivered: attempt, num_pending: pending, .. } = self;
        format!(
            "<Metadata: message {message} of stream {stream}, delivery {delivery} of consumer {consumer}, \
             attempt {attempt}, {pending} pending>"
        )
    }
}

#[pymethods]
impl SequencePair {
    fn __repr__(&self) -> String {
        format!("SequencePair(stream={}, consumer={})", self.stream, self.consumer)
    }
}
