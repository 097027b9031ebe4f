//! Events of a connection, for the callbacks of a client.

use std::sync::Arc;

use nats_consumer::{ConnectionEvent, Error};
use pyo3::prelude::*;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::host::future::while_awaited;
use crate::host::process::Owned;

/// The events of a connection, one after the other.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Events {
    /// None after the connection was closed.
    events: Owned<Option<Arc<Mutex<Receiver<ConnectionEvent>>>>>,
}

impl Events {
    pub(crate) fn new(events: Option<Receiver<ConnectionEvent>>) -> Self {
        Self { events: Owned::new(events.map(|events| Arc::new(Mutex::new(events)))) }
    }
}

#[pymethods]
impl Events {
    /// Resolves to (what, text): "disconnected", "reconnected", "lame_duck", "error", "slow_consumer", and
    /// at last "closed".
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let events = self.events.get()?.clone();
        let listening = async move {
            match events {
                Some(events) => Ok::<_, Error>(next(&mut *events.lock().await).await),
                None => Ok(("closed", String::new())),
            }
        };
        while_awaited(py, listening, |py, event| Ok(event.into_pyobject(py)?.into_any().unbind()))
    }
}

async fn next(events: &mut Receiver<ConnectionEvent>) -> (&'static str, String) {
    loop {
        let (what, text) = match events.recv().await {
            Ok(ConnectionEvent::Disconnected) => ("disconnected", String::new()),
            Ok(ConnectionEvent::Reconnected) => ("reconnected", String::new()),
            Ok(ConnectionEvent::LameDuck) => ("lame_duck", String::new()),
            Ok(ConnectionEvent::Error(text)) => ("error", text),
            Ok(ConnectionEvent::SlowConsumer(subject)) => ("slow_consumer", subject),
            Err(RecvError::Closed) => ("closed", String::new()),
            // The listener is far behind; the events that are left still count. Other events have no name in Python.
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
        };
        return (what, text);
    }
}
