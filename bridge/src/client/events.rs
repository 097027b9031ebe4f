//! What happens to a connection, for the callbacks of a client.

use std::sync::Arc;

use nats_consumer::{ConnectionEvent, Error};
use pyo3::prelude::*;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::host::future::into_asyncio;

/// The happenings of a connection, one after the other.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Events {
    /// None after the connection was closed.
    happenings: Option<Arc<Mutex<Receiver<ConnectionEvent>>>>,
}

impl Events {
    pub(crate) fn new(happenings: Option<Receiver<ConnectionEvent>>) -> Self {
        Self { happenings: happenings.map(|happenings| Arc::new(Mutex::new(happenings))) }
    }
}

#[pymethods]
impl Events {
    /// Resolves to (what, text): "disconnected", "reconnected", "lame_duck", "error", "slow_consumer", and
    /// at last "closed".
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let happenings = self.happenings.clone();
        let listening = async move {
            match happenings {
                Some(happenings) => Ok::<_, Error>(next(&mut *happenings.lock().await).await),
                None => Ok(("closed", String::new())),
            }
        };
        into_asyncio(py, listening, |py, event| Ok(event.into_pyobject(py)?.into_any().unbind()))
    }
}

async fn next(happenings: &mut Receiver<ConnectionEvent>) -> (&'static str, String) {
    loop {
        let (what, text) = match happenings.recv().await {
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
