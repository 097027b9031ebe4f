//! Publishing from anywhere in a Django process, on one kept connection.

pub(crate) mod drafts;
pub(crate) mod outgoing;
pub(crate) mod pub_ack;

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{Outgoing, Publisher as Engine};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyList, PyString};
use tokio::task::JoinHandle;

use crate::host::error::to_python;
use crate::host::future::{gathered, into_asyncio, wait_for};
use crate::host::process::Owned;
use crate::host::runtime::runtime;
use crate::host::seconds::seconds;
use crate::monitor::metrics;
use crate::options::ConnectOptions;
use crate::publish::drafts::{Drafts, noted};
use crate::publish::outgoing::outgoing;
use crate::publish::pub_ack::{PubAcks, pub_ack};
use crate::view::msg::{ANSWERS, Msg};

/// One message to publish: subject, payload, headers.
type Draft = (PyBackedStr, PyBackedBytes, Option<HashMap<String, String>>);

/// How long a nudge may look for a connection.
const NUDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is opened on first use and kept, for every thread and event loop of the process.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Publisher {
    engine: Owned<Arc<Engine>>,
}

#[pymethods]
impl Publisher {
    /// With `in_order`, it opens a new connection instead of reconnecting, so that what failed can be published again
    /// in its order.
    #[new]
    #[pyo3(signature = (options, *, in_order=false))]
    fn new(py: Python<'_>, options: ConnectOptions, in_order: bool) -> PyResult<Self> {
        let engine = Engine::new(options.into_lasting_options()?).observed(&metrics(py)?);
        let engine = if in_order { engine.in_order() } else { engine };
        Ok(Self { engine: Owned::new(Arc::new(engine)) })
    }

    /// Publishes and waits for the stream's confirmation, the GIL released.
    fn publish(&self, py: Python<'_>, draft: Draft, timeout: f64) -> PyResult<Py<PyAny>> {
        let (engine, outgoing, limit) = self.prepare(&draft, timeout)?;
        let ack = wait_for(py, async move { engine.publish(outgoing, limit).await })?;
        pub_ack(py, ack)
    }

    /// The same as an awaitable.
    fn apublish<'py>(&self, py: Python<'py>, draft: Draft, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let (engine, outgoing, limit) = self.prepare(&draft, timeout)?;
        gathered(py, async move { engine.publish(outgoing, limit).await }, pub_ack)
    }

    /// Publishes and waits for somebody's answer, the GIL released.
    fn request(&self, py: Python<'_>, draft: Draft, timeout: f64) -> PyResult<Msg> {
        let (engine, outgoing, limit) = self.prepare(&draft, timeout)?;
        let (answer, connection) = wait_for(py, async move { engine.request(outgoing, limit).await })?;
        Ok(Msg::new(answer, connection, ANSWERS))
    }

    /// The same as an awaitable.
    fn arequest<'py>(&self, py: Python<'py>, draft: Draft, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let (engine, outgoing, limit) = self.prepare(&draft, timeout)?;
        into_asyncio(py, async move { engine.request(outgoing, limit).await }, |py, (answer, connection)| {
            Ok(Py::new(py, Msg::new(answer, connection, ANSWERS))?.into_any())
        })
    }

    /// Publishes many without waiting for each. The confirmations of those that were stored, and number and exception
    /// of each of the others, with a note that says which one; both in their order.
    fn publish_many<'py>(
        &self,
        py: Python<'py>,
        drafts: &Drafts,
        timeout: f64,
    ) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        let messages = drafts.messages().to_vec();
        // By the connection's own thread: this one would wake it for every few messages.
        let mut publishing =
            Interruptible(runtime().spawn(async move { engine.publish_many(messages, limit).await }));
        let results = wait_for(py, async move {
            (&mut publishing.0).await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
        })?;
        let (stored, failed) = (PyList::empty(py), PyList::empty(py));
        let mut acks = PubAcks::new(py)?;
        for (index, (result, message)) in results.into_iter().zip(drafts.messages()).enumerate() {
            match result {
                Ok(ack) => stored.append(acks.one(ack)?)?,
                Err(error) => {
                    let subject = PyString::new(py, message.subject());
                    failed.append((index, noted(to_python(&error), index, &subject).into_value(py)))?;
                }
            }
        }
        Ok((stored, failed))
    }

    /// Sends an empty message to `subject` from another thread, if a connection can be had; never waits, and never
    /// says that it failed.
    fn nudge(&self, subject: &str) -> PyResult<()> {
        let engine = self.engine()?;
        let message = Outgoing::to(subject, Vec::new()).map_err(|error| to_python(&error))?;
        // What comes of it is logged by the connection, and the receiver also looks by itself.
        runtime().spawn(async move { engine.send(message, NUDGE_TIMEOUT).await.ok() });
        Ok(())
    }

    /// The largest message that the server takes, in bytes, if it is known without waiting.
    fn max_payload(&self) -> PyResult<Option<usize>> {
        Ok(self.engine()?.max_payload())
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

/// A task that ends when nobody waits for it any more.
struct Interruptible<T>(JoinHandle<T>);

impl<T> Drop for Interruptible<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Publisher {
    fn engine(&self) -> PyResult<Arc<Engine>> {
        self.engine.get().cloned()
    }

    fn prepare(&self, draft: &Draft, timeout: f64) -> PyResult<(Arc<Engine>, Outgoing, Duration)> {
        Ok((self.engine()?, packed(draft)?, seconds("timeout", timeout)?))
    }
}

/// Raises what publishing the draft would raise before anything is sent.
#[pyfunction]
pub(crate) fn check_draft(draft: Draft) -> PyResult<()> {
    packed(&draft).map(drop)
}

fn packed((subject, payload, headers): &Draft) -> PyResult<Outgoing> {
    outgoing(subject, payload, headers.as_ref())
}
