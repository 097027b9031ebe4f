//! A running consumption, as Python holds it.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{ConnectOptions, ConsumerOptions, consume_into};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::deliver::handler::Handler;
use crate::deliver::inbox::Waiting;
use crate::host::error::exceptions::ForkedProcess;
use crate::host::future::{into_asyncio, nothing};
use crate::host::runtime::runtime;
use crate::options::{ConnectSettings, ConsumerSettings, seconds};
use crate::tasks::Tasks;
use crate::threads;
use crate::threads::late::{Late, watch};

/// Connects, binds the durable and begins to fetch; handlers run after `start_tasks()` or in `serve()`.
#[pyfunction]
pub(crate) fn consume(
    py: Python<'_>,
    connect: ConnectSettings,
    consumer: ConsumerSettings,
    handle: Py<PyAny>,
    failed: Py<PyAny>,
) -> PyResult<Bound<'_, PyAny>> {
    let connect = connect.into_lasting_options()?;
    let consumer = consumer.into_options()?;
    into_asyncio(py, start(connect, consumer, handle, failed), |py, consumption| {
        Ok(Py::new(py, consumption)?.into_any())
    })
}

async fn start(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handle: Py<PyAny>,
    failed: Py<PyAny>,
) -> Result<Consumption, nats_consumer::Error> {
    let late =
        consumer.handler_timeout.map(|limit| Late::new(consumer.name.clone(), limit, consumer.concurrency));
    let waiting = Arc::new(Waiting::new(late).map_err(|error| {
        let text = "The operating system has no file descriptors left for a consumer.";
        nats_consumer::Error::new(nats_consumer::ErrorKind::Config, text).because(error)
    })?);
    let handler = Handler {
        name: consumer.name.clone(),
        handle,
        failed,
        concurrency: consumer.concurrency,
        timeout: consumer.handler_timeout,
    };
    let engine = Arc::new(consume_into(connect, consumer, waiting.clone()).await?);
    Ok(Consumption { pid: std::process::id(), engine, waiting, handler: handler.into() })
}

/// What one consumer consumes with.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Consumption {
    pid: u32,
    engine: Arc<nats_consumer::Consumption>,
    waiting: Arc<Waiting>,
    handler: Arc<Handler>,
}

#[pymethods]
impl Consumption {
    #[getter]
    fn is_running(&self) -> bool {
        self.engine.is_running()
    }

    #[getter]
    fn is_connected(&self) -> bool {
        self.engine.is_connected()
    }

    #[getter]
    fn durable(&self) -> &str {
        self.engine.durable()
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        for (name, value) in self.engine.counters().fields() {
            counters.set_item(name, value)?;
        }
        Ok(counters)
    }

    /// Runs `async def` handlers in Tasks of the running loop.
    fn start_tasks(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        Tasks::start(py, self.handler.clone(), self.waiting.clone())
    }

    /// Runs plain `def` handlers in the calling thread until nothing will come any more.
    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        threads::serve(py, &self.handler, &self.waiting)
    }

    /// Runs `failed` in the calling thread for handlers that outlast their timeout, until nothing will come
    /// any more. Their threads are watched from now on.
    fn serve_late(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        let Some(late) = self.waiting.late() else { return Ok(()) };
        runtime().spawn(watch(self.waiting.clone()));
        threads::serve_late(py, &self.handler, late)
    }

    /// Resolves when the consumption has been drained or stopped.
    fn finished<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine.clone();
        let waiting = async move {
            engine.finished().await;
            Ok(())
        };
        into_asyncio(py, waiting, nothing)
    }

    /// Takes nothing new, hands back what has not started, lets the rest finish within `timeout` seconds.
    /// Resolves to how many were not finished.
    fn drain<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let grace = seconds("timeout", timeout)?;
        let engine = self.engine.clone();
        into_asyncio(py, async move { Ok(engine.drain(grace).await) }, |py, unfinished| {
            Ok(unfinished.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Ends at once: a drain without grace that nobody waits for.
    fn stop(&self) {
        let engine = self.engine.clone();
        runtime().spawn(async move { engine.drain(Duration::ZERO).await });
    }
}

impl Consumption {
    fn check_process(&self) -> PyResult<()> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        Err(ForkedProcess::new_err(()))
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // The engine's tasks live in the parent: dropping them here would end its consumption.
            std::mem::forget(self.engine.clone());
        }
    }
}
