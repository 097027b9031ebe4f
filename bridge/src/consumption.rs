//! A running consumption, as Python holds it.

use std::sync::{Arc, Once};

use nats_consumer as engine;
use nats_consumer::consume_into;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::deliver::at_work::AtWork;
use crate::deliver::handler::Handler;
use crate::deliver::inbox::Waiting;
use crate::deliver::stall::{Watch, Watched};
use crate::host::future::{into_asyncio, nothing};
use crate::host::process::Owned;
use crate::host::runtime::{end_at_once, runtime};
use crate::host::seconds::seconds;
use crate::host::signals;
use crate::options::{ConnectOptions, ConsumerOptions};
use crate::tasks::Tasks;
use crate::threads::late::{Late, watch};
use crate::threads::{self, thread_number};

/// Connects, binds the durable and begins to fetch; handlers run after `start_tasks()` or in `serve()`.
#[pyfunction]
pub(crate) fn consume(
    py: Python<'_>,
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handle: Py<PyAny>,
    failed: Py<PyAny>,
    log: Py<PyAny>,
) -> PyResult<Bound<'_, PyAny>> {
    let connect = connect.into_lasting_options()?;
    let consumer = consumer.into_options()?;
    let handler = Handler {
        name: consumer.name.clone(),
        handle,
        failed,
        log,
        concurrency: consumer.concurrency,
        at_work: AtWork::default(),
        timeout: consumer.handler_timeout,
    };
    into_asyncio(py, start(connect, consumer, handler), |py, consumption| {
        Ok(Py::new(py, consumption)?.into_any())
    })
}

async fn start(
    connect: engine::ConnectOptions,
    consumer: engine::ConsumerOptions,
    handler: Handler,
) -> Result<Consumption, nats_consumer::Error> {
    let late = consumer
        .handler_timeout
        .map(|limit| Arc::new(Late::new(consumer.name.clone(), limit, consumer.concurrency)));
    let waiting = Arc::new(Waiting::new().map_err(|error| {
        let text = "The operating system has no file descriptors left for a consumer.";
        nats_consumer::Error::new(nats_consumer::ErrorKind::Config, text).because(error)
    })?);
    let engine = Arc::new(consume_into(connect, consumer, waiting.clone()).await?);
    signals::follow(&engine);
    Ok(Consumption {
        engine: Owned::new(engine),
        waiting,
        handler: handler.into(),
        late,
        watched: Once::new(),
    })
}

/// What one consumer consumes with.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Consumption {
    engine: Owned<Arc<engine::Consumption>>,
    waiting: Arc<Waiting>,
    handler: Arc<Handler>,
    /// Watches the threads if handlers have a timeout.
    late: Option<Arc<Late>>,
    /// Its handlers are watched from the moment when they can run.
    watched: Once,
}

impl Consumption {
    fn watch(&self, engine: &Arc<engine::Consumption>, watched: Watched) {
        self.watched.call_once(|| {
            let (waiting, handler) = (self.waiting.clone(), self.handler.clone());
            let engine = Arc::downgrade(engine);
            runtime().spawn(Watch { engine, waiting, handler, watched: watched.into() }.run());
        });
    }
}

#[pymethods]
impl Consumption {
    #[getter]
    fn is_running(&self) -> bool {
        self.engine.peek().is_running()
    }

    #[getter]
    fn is_connected(&self) -> bool {
        self.engine.peek().is_connected()
    }

    #[getter]
    fn durable(&self) -> &str {
        self.engine.peek().durable()
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        for (name, value) in self.engine.peek().counters().fields() {
            counters.set_item(name, value)?;
        }
        Ok(counters)
    }

    /// Runs `async def` handlers in Tasks of the running loop.
    fn start_tasks(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.engine.get()?;
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        Tasks::start(&event_loop, self.handler.clone(), self.waiting.clone())?;
        self.watch(engine, Watched::Loop { event_loop: event_loop.unbind(), thread: thread_number(py)? });
        Ok(())
    }

    /// Runs plain `def` handlers in the calling thread until nothing will come any more.
    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        self.watch(self.engine.get()?, Watched::Threads);
        threads::serve(py, &self.handler, &self.waiting, self.late.as_deref())
    }

    /// Runs `failed` in the calling thread for handlers that outlast their timeout, until nothing will come
    /// any more. Their threads are watched from now on.
    fn serve_late(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.get()?;
        let Some(late) = &self.late else { return Ok(()) };
        runtime().spawn(watch(late.clone(), self.waiting.clone()));
        threads::serve_late(py, &self.handler, late)
    }

    /// Resolves when the consumption has been drained or stopped.
    fn finished<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine.get()?.clone();
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
        let engine = self.engine.get()?.clone();
        into_asyncio(py, async move { Ok(engine.drain(grace).await) }, |py, unfinished| {
            Ok(unfinished.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Ends at once: a drain without grace that nobody waits for.
    fn stop(&self) {
        let Ok(engine) = self.engine.get().cloned() else { return };
        end_at_once(engine);
    }
}
