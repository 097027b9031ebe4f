//! A connection for publishing and for managing streams.

use std::collections::HashMap;

use nats_consumer::api::request as api_request;
use nats_consumer::publish::{publish, request, send};
use nats_consumer::{Connection as Engine, Outgoing};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::exceptions::ForkedProcess;
use crate::error::to_python;
use crate::future::{into_asyncio, nothing};
use crate::settings::{ConnectSettings, seconds};

/// How long the last words may take when a connection is closed.
const CLOSING: f64 = 2.0;

type Headers = Option<HashMap<String, String>>;

/// Connects; resolves to a `Connection`.
#[pyfunction]
pub(crate) fn connect(py: Python<'_>, options: ConnectSettings) -> PyResult<Bound<'_, PyAny>> {
    let options = options.into_options()?;
    let opening = async move {
        let engine = Engine::open(&options).await?;
        Ok(Connection { pid: std::process::id(), engine })
    };
    into_asyncio(py, opening, |py, connection| Ok(Py::new(py, connection)?.into_any()))
}

/// A connection to NATS.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Connection {
    pid: u32,
    engine: Engine,
}

#[pymethods]
impl Connection {
    #[getter]
    fn is_connected(&self) -> bool {
        self.engine.is_up()
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.engine.is_closed()
    }

    #[getter]
    fn connected_url(&self) -> String {
        self.engine.server()
    }

    #[getter]
    fn max_payload(&self) -> usize {
        self.engine.max_payload()
    }

    #[pyo3(signature = (subject, payload, reply=None, headers=None))]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        subject: &str,
        payload: &[u8],
        reply: Option<String>,
        headers: Headers,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let outgoing = outgoing(subject, payload, headers)?;
        into_asyncio(py, async move { send(&engine, outgoing, reply).await }, nothing)
    }

    #[pyo3(signature = (subject, payload, timeout, headers=None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        subject: &str,
        payload: &[u8],
        timeout: f64,
        headers: Headers,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let outgoing = outgoing(subject, payload, headers)?;
        let limit = seconds("timeout", timeout)?;
        into_asyncio(py, async move { request(&engine, outgoing, limit).await }, |py, answer| {
            bytes(py, &answer)
        })
    }

    #[pyo3(signature = (subject, payload, timeout, headers=None))]
    fn publish_stream<'py>(
        &self,
        py: Python<'py>,
        subject: &str,
        payload: &[u8],
        timeout: f64,
        headers: Headers,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let outgoing = outgoing(subject, payload, headers)?;
        let limit = seconds("timeout", timeout)?;
        into_asyncio(py, async move { publish(&engine, outgoing, limit).await }, |py, ack| {
            let ack = (ack.stream, ack.sequence, ack.duplicate, ack.domain);
            Ok(ack.into_pyobject(py)?.into_any().unbind())
        })
    }

    fn api<'py>(
        &self,
        py: Python<'py>,
        subject: String,
        payload: Vec<u8>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        let asking = async move { api_request(&engine, &subject, payload.into(), limit).await };
        into_asyncio(py, asking, |py, answer| bytes(py, &answer))
    }

    fn flush<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        into_asyncio(py, async move { engine.flush(limit).await }, nothing)
    }

    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.close(py)
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let limit = seconds("timeout", CLOSING)?;
        let closing = async move {
            engine.close(limit).await;
            Ok(())
        };
        into_asyncio(py, closing, nothing)
    }
}

impl Connection {
    /// After a fork the socket is the parent's: using it from both would garble the protocol.
    fn engine(&self) -> PyResult<Engine> {
        if self.pid == std::process::id() { Ok(self.engine.clone()) } else { Err(ForkedProcess::new_err(())) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.engine.clone());
        }
    }
}

fn outgoing(subject: &str, payload: &[u8], headers: Headers) -> PyResult<Outgoing> {
    let bare = Outgoing::to(subject, payload.to_vec());
    let headers = headers.into_iter().flatten();
    let whole = headers.fold(bare, |outgoing, (name, value)| outgoing?.header(&name, &value));
    whole.map_err(|error| to_python(&error))
}

fn bytes(py: Python<'_>, answer: &[u8]) -> PyResult<Py<PyAny>> {
    Ok(PyBytes::new(py, answer).into_any().unbind())
}
