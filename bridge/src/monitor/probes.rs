//! Probes and metrics over HTTP.

use std::sync::Mutex;

use nats_consumer::observe;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::host::lock::lock;

/// Probes and metrics over HTTP.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Probes {
    server: Mutex<Option<observe::Probes>>,
    /// The task that measures the process for them.
    pulse: Option<AbortHandle>,
}

impl Probes {
    pub(super) fn new(server: observe::Probes, pulse: Option<AbortHandle>) -> Self {
        Self { server: Mutex::new(Some(server)), pulse }
    }
}

#[pymethods]
impl Probes {
    /// Their address, as `host:port`; None while the port is taken.
    #[getter]
    fn address(&self) -> Option<String> {
        lock(&self.server).as_ref()?.address().map(|address| address.to_string())
    }

    /// Answers no more.
    fn end(&self, py: Python<'_>) {
        if let Some(pulse) = &self.pulse {
            pulse.abort();
        }
        let server = lock(&self.server).take();
        py.detach(|| drop(server));
    }
}
