//! Publishing from anywhere in a Django process, on one kept connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{Outgoing, PublishAck, Publisher as Engine};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyList;

use crate::error::exceptions::ForkedProcess;
use crate::error::to_python;
use crate::future::{into_asyncio, wait_for};
use crate::settings::{ConnectSettings, seconds};

/// One message to publish: subject, payload, headers.
type Draft = (PyBackedStr, PyBackedBytes, Option<HashMap<String, String>>);

/// A connection that is opened on first use and kept, for every thread and event loop of the process.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Publisher {
    pid: u32,
    engine: Arc<Engine>,
}

#[pymethods]
impl Publisher {
    #[new]
    fn new(options: ConnectSettings) -> PyResult<Self> {
        let engine = Engine::new(options.into_lasting_options()?).into();
        Ok(Self { pid: std::process::id(), engine })
    }

    /// Publishes and waits for the stream's confirmation, the GIL released.
    fn publish(&self, py: Python<'_>, draft: Draft, timeout: f64) -> PyResult<Py<PyAny>> {
        let (engine, outgoing, limit) = self.prepare(&draft, timeout)?;
        let ack = wait_for(py, async move { engine.publish(outgoing, limit).await })?;
        confirmation(py, ack)
    }

    /// The same as an awaitable.
    fn apublish<'py>(&self, py: Python<'py>, draft: Draft, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let (engine, outgoing, limit) = self.prepare(&draft, timeout)?;
        into_asyncio(py, async move { engine.publish(outgoing, limit).await }, confirmation)
    }

    /// Publishes many without waiting for each; a list of confirmations and exceptions, in their order.
    fn publish_many<'py>(
        &self,
        py: Python<'py>,
        drafts: Vec<Draft>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyList>> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        let messages = drafts.iter().map(outgoing).collect::<PyResult<Vec<_>>>()?;
        let results = wait_for(py, async move { engine.publish_many(messages, limit).await })?;
        let results = results.into_iter().map(|result| match result {
            Ok(ack) => confirmation(py, ack),
            Err(error) => Ok(to_python(&error).into_value(py).into_any()),
        });
        PyList::new(py, results.collect::<PyResult<Vec<_>>>()?)
    }

    /// Closes the connection, waiting at most `timeout` seconds for what is under way.
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        wait_for(py, async move {
            engine.close(limit).await;
            Ok(())
        })
    }
}

impl Publisher {
    fn engine(&self) -> PyResult<Arc<Engine>> {
        if self.pid == std::process::id() { Ok(self.engine.clone()) } else { Err(ForkedProcess::new_err(())) }
    }

    fn prepare(&self, draft: &Draft, timeout: f64) -> PyResult<(Arc<Engine>, Outgoing, Duration)> {
        Ok((self.engine()?, outgoing(draft)?, seconds("timeout", timeout)?))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // The socket is the parent's: closing it here would close it there.
            std::mem::forget(self.engine.clone());
        }
    }
}

fn outgoing((subject, payload, headers): &Draft) -> PyResult<Outgoing> {
    let bare = Outgoing::to(subject, payload.to_vec());
    let headers = headers.iter().flatten();
    let whole = headers.fold(bare, |outgoing, (name, value)| outgoing?.header(name, value));
    whole.map_err(|error| to_python(&error))
}

/// Stream, sequence, whether it is a duplicate, domain.
fn confirmation(py: Python<'_>, ack: PublishAck) -> PyResult<Py<PyAny>> {
    let fields = (ack.stream, ack.sequence, ack.duplicate, ack.domain);
    Ok(fields.into_pyobject(py)?.into_any().unbind())
}
