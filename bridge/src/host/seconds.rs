//! Durations, as Python gives them.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The longest duration: beyond it a clock or a count of nanoseconds overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Seconds of Python as a duration, at most 100 years; `option` names them in the error.
pub(crate) fn seconds(option: &str, value: f64) -> PyResult<Duration> {
    let seconds = if value.is_finite() { value.min(LONGEST.as_secs_f64()) } else { value };
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{option} must be a number of seconds, not {value}")))
}
