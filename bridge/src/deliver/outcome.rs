//! The outcomes of `nats_consumer.outcomes`, returned or raised, become the engine's.

use nats_consumer::Outcome;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::host::call::call;
use crate::host::seconds::seconds;

/// A class of `nats_consumer.outcomes`, looked up once.
macro_rules! class {
    ($py:expr, $name:literal) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import($py, "nats_consumer.outcomes", $name)?
    }};
}

/// The outcome that `value` is; `None` when it is something else. A class stands for an instance of it, as
/// with `raise`.
pub(crate) fn outcome_of(value: &Bound<'_, PyAny>) -> PyResult<Option<Outcome>> {
    let py = value.py();
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(class) = value.cast::<PyType>()
        && class.is_subclass(class!(py, "Outcome"))?
    {
        return outcome_of(&class.call0()?);
    }
    if !value.is_instance(class!(py, "Outcome"))? {
        return Ok(None);
    }
    let reason = || value.getattr("reason")?.extract::<Option<String>>().map(Option::unwrap_or_default);
    let outcome = if value.is_instance(class!(py, "Retry"))? {
        let after: Option<f64> = value.getattr("after")?.extract()?;
        Outcome::Retry { after: after.map(|after| seconds("after", after)).transpose()? }
    } else if value.is_instance(class!(py, "DeadLetter"))? {
        Outcome::DeadLetter { reason: reason()? }
    } else if value.is_instance(class!(py, "Drop"))? {
        Outcome::Drop { reason: reason()? }
    } else {
        Outcome::Ack
    };
    Ok(Some(outcome))
}

/// The outcome as Python has it.
pub(crate) fn to_python<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyAny>> {
    match outcome {
        Outcome::Retry { after } => class!(py, "Retry").call1((after.map(|after| after.as_secs_f64()),)),
        Outcome::DeadLetter { reason } => class!(py, "DeadLetter").call1((reason,)),
        Outcome::Drop { reason } => class!(py, "Drop").call1((reason,)),
        _ => class!(py, "Ack").call0(),
    }
}

/// The outcome that `error` is or contains; `None` if it is an error. Raises what makes a failure of it.
pub(crate) fn raised_outcome(error: &Bound<'_, PyBaseException>) -> PyResult<Option<Outcome>> {
    static RAISED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let raised = RAISED.import(error.py(), "nats_consumer.outcomes", "raised_outcome")?;
    outcome_of(&call(raised, (error,))?)
}
