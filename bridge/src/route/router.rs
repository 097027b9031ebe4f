//! The engine's routes for handlers that are written in Python.

use nats_consumer::Pattern;
use nats_consumer::route::Routes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Finds which of several subject patterns fits a subject best.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Router(Routes<usize>);

#[pymethods]
impl Router {
    #[new]
    fn new(patterns: Vec<String>) -> PyResult<Self> {
        let parsed = patterns.iter().enumerate().map(|(index, text)| Ok((Pattern::parse(text)?, index)));
        let routes: Result<Routes<usize>, nats_consumer::route::PatternError> = parsed.collect();
        routes.map(Self).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The index of the pattern, or None when none fits.
    fn find(&self, subject: &str) -> Option<usize> {
        self.0.find(subject).copied()
    }
}
