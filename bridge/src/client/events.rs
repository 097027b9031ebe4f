//! What happens to a connection, for the callbacks of a client.

use std::sync::Arc;

use nats_consumer::{Error, Happening};
use pyo3::prelude::*;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::host::future::into_asyncio;

/// The happenings of a connection, one after the other.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Events {
    /// None after the connection was closed.
    happenings: Option<Arc<Mutex<Receiver<Happening>>>>,
}

impl Events {
    pub(crate) fn new(happenings: Option<Receiver<Happening>>) -> Self {
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

async fn next(happenings: &mut Receiver<Happening>) -> (&'static str, String) {
    loop {
        let (what, text) = match happenings.recv().await {
            Ok(Happening::Disconnected) => ("disconnected", String::new()),
            Ok(Happening::Reconnected) => ("reconnected", String::new()),
            Ok(Happening::LameDuck) => ("lame_duck", String::new()),
            Ok(Happening::Error(text)) => ("error", text),
            Ok(Happening::SlowConsumer(subject)) => ("slow_consumer", subject),
            Err(RecvError::Closed) => ("closed", String::new()),
            // Whoever listens is far behind; what is left still counts. Other events have no name in Python.
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
        };
        return (what, text);
    }
}
