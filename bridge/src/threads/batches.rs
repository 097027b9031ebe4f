//! The threads' lane for consumers that handle batches.

use nats_consumer::Gatherer;
use pyo3::prelude::*;
use tokio::time::timeout;

use crate::deliver::batch::messages_of;
use crate::deliver::handler::Handler;
use crate::deliver::inbox::DeliveryQueue;
use crate::host::runtime::runtime;
use crate::threads::{IDLE, thread_number};

/// One thread's work: returns when nothing will come any more. Calls `rest` whenever the thread begins to be idle.
pub(crate) fn serve(
    py: Python<'_>,
    handler: &Handler,
    gatherer: &Gatherer,
    waiting: &DeliveryQueue,
    rest: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let thread = thread_number(py)?;
    let mut is_idle = true;
    loop {
        let next =
            async { if is_idle { Ok(gatherer.next().await) } else { timeout(IDLE, gatherer.next()).await } };
        let batch = match py.detach(|| runtime().block_on(next)) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            Err(_) => {
                rest.call0()?;
                is_idle = true;
                continue;
            }
        };
        is_idle = false;
        let _busy = waiting.is_given_to_me();
        let messages = messages_of(py, batch, handler.timeout.is_some())?;
        handler.at_work.begin(py, &messages[0], thread);
        let handled = handler.handle.call1(py, (messages,));
        handler.at_work.end(thread);
        handled?;
    }
}
