//! Subscriptions, as Python holds them: one future for all messages that wait, not one for each.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::pull::{PullFrom, Puller};
use nats_consumer::subscribe::{
    Interest, Ordered, Statuses, Subscription as Engine, subscribe, subscribe_in_order,
};
use nats_consumer::{Connection, Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::host::error::to_python;
use crate::host::future::{nothing, while_awaited};
use crate::host::process::Owned;
use crate::host::seconds::seconds;
use crate::view::msg::Msg;

/// How much may wait in a subscription.
#[derive(FromPyObject)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// A subscription to a subject.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Subscription {
    engine: Owned<Engine>,
    connection: Connection,
    sid: u64,
}

impl Subscription {
    pub(crate) async fn open(
        connection: Connection,
        sid: u64,
        subject: String,
        queue: Option<String>,
        limits: Limits,
        answers_flow: bool,
    ) -> Result<Self, Error> {
        let interest = Interest {
            subject,
            queue,
            max_messages: limits.messages,
            max_bytes: limits.bytes,
            statuses: if answers_flow { Statuses::Answered } else { Statuses::Included },
        };
        Ok(Self { engine: Owned::new(subscribe(&connection, interest).await?), connection, sid })
    }

    pub(crate) async fn open_in_order(
        connection: Connection,
        sid: u64,
        ordered: Ordered,
    ) -> Result<Self, Error> {
        Ok(Self { engine: Owned::new(subscribe_in_order(&connection, ordered).await?), connection, sid })
    }
}

#[pymethods]
impl Subscription {
    /// Resolves when there is something to take or the subscription has ended; raises RequestTimeout.
    #[pyo3(signature = (timeout=None))]
    fn ready<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let limit = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
        let engine = self.engine.get()?.clone();
        while_awaited(py, async move { ready(&engine, limit).await }, nothing)
    }

    fn take<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyList>> {
        take(py, self.engine.get()?, &self.connection, self.sid, most)
    }

    #[pyo3(signature = (after=None))]
    fn unsubscribe(&self, after: Option<u64>) -> PyResult<()> {
        self.engine.get()?.unsubscribe(after);
        Ok(())
    }

    fn drain(&self) -> PyResult<()> {
        self.engine.get()?.drain();
        Ok(())
    }

    #[getter]
    fn has_ended(&self) -> bool {
        self.engine.peek().has_ended()
    }

    /// The exception that ended it, if nobody asked it to end.
    #[getter]
    fn failure(&self) -> Option<PyErr> {
        self.engine.peek().failure().map(|error| to_python(&error))
    }

    /// The consumer behind a subscription in order.
    #[getter]
    fn consumer(&self) -> Option<String> {
        self.engine.peek().consumer()
    }

    #[getter]
    fn sid(&self) -> u64 {
        self.sid
    }

    #[getter]
    fn pending(&self) -> (usize, usize) {
        self.engine.peek().pending()
    }

    #[getter]
    fn received(&self) -> u64 {
        self.engine.peek().received()
    }
}

/// A consumer that is asked for messages.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Pull {
    engine: Owned<Arc<Puller>>,
    connection: Connection,
    sid: u64,
}

impl Pull {
    pub(crate) async fn open(
        connection: Connection,
        sid: u64,
        prefix: String,
        stream: String,
        consumer: String,
        limits: Limits,
    ) -> Result<Self, Error> {
        let from =
            PullFrom { prefix, stream, consumer, max_messages: limits.messages, max_bytes: limits.bytes };
        let engine = Owned::new(Arc::new(Puller::open(&connection, from).await?));
        Ok(Self { engine, connection, sid })
    }
}

#[pymethods]
impl Pull {
    /// Resolves when up to `batch` messages can be taken.
    #[pyo3(signature = (batch, timeout=None, heartbeat=None))]
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        batch: usize,
        timeout: Option<f64>,
        heartbeat: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let limit = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
        let heartbeat = heartbeat.map(|heartbeat| seconds("heartbeat", heartbeat)).transpose()?;
        let engine = self.engine.get()?.clone();
        while_awaited(py, async move { engine.fetch(batch, limit, heartbeat).await }, nothing)
    }

    fn take<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyList>> {
        take(py, self.engine.get()?.subscription(), &self.connection, self.sid, most)
    }

    fn unsubscribe(&self) -> PyResult<()> {
        self.engine.get()?.subscription().unsubscribe(None);
        Ok(())
    }

    #[getter]
    fn has_ended(&self) -> bool {
        self.engine.peek().subscription().has_ended()
    }

    #[getter]
    fn pending(&self) -> (usize, usize) {
        self.engine.peek().subscription().pending()
    }

    #[getter]
    fn received(&self) -> u64 {
        self.engine.peek().subscription().received()
    }
}

async fn ready(engine: &Engine, limit: Option<Duration>) -> Result<(), Error> {
    let Some(limit) = limit else {
        engine.ready().await;
        return Ok(());
    };
    tokio::time::timeout(limit, engine.ready()).await.map_err(|_| {
        let text =
            format!("No message arrived within {limit:?}. Check that something publishes to the subject.");
        Error::new(ErrorKind::Timeout, text)
    })
}

fn take<'py>(
    py: Python<'py>,
    engine: &Engine,
    connection: &Connection,
    sid: u64,
    most: usize,
) -> PyResult<Bound<'py, PyList>> {
    let messages = engine.take(most).into_iter();
    let messages: PyResult<Vec<_>> =
        messages.map(|message| Py::new(py, Msg::new(message, connection.clone(), sid))).collect();
    PyList::new(py, messages?)
}
