//! The metrics of an outbox, which Python relays.

use nats_consumer::observe;
use pyo3::prelude::*;

use crate::host::seconds::seconds;
use crate::monitor::metrics;

/// The metrics of the outbox of one database, in this process's.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct OutboxMetrics(observe::Outbox);

#[pymethods]
impl OutboxMetrics {
    #[new]
    fn new(py: Python<'_>, database: &str) -> PyResult<Self> {
        Ok(Self(observe::Outbox::new(metrics(py)?.page(), database)))
    }

    /// Counts rows that a stream has stored.
    fn count_published(&self, rows: u64) {
        self.0.count_published(rows);
    }

    /// Whether somebody reads the metrics now and then.
    fn is_read(&self) -> bool {
        self.0.is_read()
    }

    /// Sets how many rows wait, the age of the oldest in seconds or None, and how many were refused.
    fn set(&self, rows: u64, oldest: Option<f64>, stuck: u64) -> PyResult<()> {
        let oldest = oldest.map(|age| seconds("oldest", age)).transpose()?;
        self.0.set(rows, oldest, stuck);
        Ok(())
    }

    /// Another process relays from now on.
    fn forget(&self) {
        self.0.forget();
    }
}
