//! Return values that stand for work that nobody does.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::host::call::call;

/// Raises TypeError if `value` is work that nobody waits for: a coroutine, a generator, a future. Acknowledging
/// would lose that work.
pub(crate) fn check_finished(value: &Bound<'_, PyAny>) -> PyResult<()> {
    static CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    call(CHECK.import(value.py(), "nats_consumer.lanes.unfinished", "check_finished")?, (value,))?;
    Ok(())
}
