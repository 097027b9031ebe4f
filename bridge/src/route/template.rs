//! The engine's templates, for declarations and publishers that are written in Python.

use std::collections::HashMap;
use std::fmt::Display;

use nats_consumer::Template as Engine;
use nats_consumer::route::{Routes, TemplateError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A subject with names for some of its tokens, as a filter or a publisher gives it. `ValueError` says what is wrong
/// with one.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Template(Engine);

#[pymethods]
impl Template {
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        Engine::of_filter(text).map(Self).map_err(|error| refused(&error))
    }

    /// The pattern of its subjects: `*` for each name.
    #[getter]
    fn pattern(&self) -> &str {
        self.0.pattern().as_str()
    }

    /// Its names, from left to right.
    #[getter]
    fn names(&self) -> Vec<&str> {
        self.0.names().collect()
    }

    /// The subject with a value for each name.
    fn fill(&self, values: HashMap<String, String>) -> PyResult<String> {
        let values: Vec<_> =
            values.iter().map(|(name, value)| (name.as_str(), value as &dyn Display)).collect();
        self.0.fill(&values).map_err(|error| refused(&error))
    }
}

/// Reads the tokens of subjects that one of several templates stands for.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Tokens {
    templates: Routes<Engine>,
    names: Vec<String>,
}

#[pymethods]
impl Tokens {
    #[new]
    fn new(texts: Vec<String>, names: Vec<String>) -> PyResult<Self> {
        let parsed = texts.iter().map(|text| {
            let template = Engine::of_filter(text)?;
            Ok((template.pattern().clone(), template))
        });
        let templates: Result<Routes<Engine>, TemplateError> = parsed.collect();
        Ok(Self { templates: templates.map_err(|error| refused(&error))?, names })
    }

    /// The tokens that the names stand for, in the order of the names; None for a subject of another form. The
    /// template that fits the subject best counts.
    fn of<'s>(&self, subject: &'s str) -> Option<Vec<&'s str>> {
        let tokens = self.templates.find(subject)?.extract(subject)?;
        self.names.iter().map(|name| tokens.get(name)).collect()
    }
}

fn refused(error: &TemplateError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
