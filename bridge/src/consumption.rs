//! A running consumption, as Python holds it.

use std::sync::{Arc, Once};

use nats_consumer as engine;
use nats_consumer::observe::Monitor;
use nats_consumer::{Gatherer, Inbox, consume_monitored};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::deliver::at_work::AtWork;
use crate::deliver::batch::{BatchInbox, Turn, messages_of};
use crate::deliver::handler::Handler;
use crate::deliver::inbox::DeliveryQueue;
use crate::deliver::judge::{self, Judgement};
use crate::deliver::message::Message;
use crate::deliver::stall::{Watch, Watched};
use crate::host::future::{into_asyncio, nothing, while_awaited};
use crate::host::process::Owned;
use crate::host::runtime::{end_at_once, runtime};
use crate::host::seconds::seconds;
use crate::host::signals;
use crate::monitor::{self, monitor_of};
use crate::options::{ConnectOptions, ConsumerOptions};
use crate::tasks::Tasks;
use crate::threads::late::{Late, watch};
use crate::threads::{self, thread_number};

/// Connects, binds the durable and begins to fetch; handlers run after `start_tasks()` or in `serve()`.
#[pyfunction]
#[pyo3(signature = (connect, consumer, handle, failed, log, keeps_time=false))]
pub(crate) fn consume(
    py: Python<'_>,
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handle: Py<PyAny>,
    failed: Py<PyAny>,
    log: Py<PyAny>,
    keeps_time: bool,
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
        keeps_time,
    };
    let monitor = monitor_of(py, &consumer)?;
    into_asyncio(py, start(connect, consumer, handler, monitor), |py, consumption| {
        Ok(Py::new(py, consumption)?.into_any())
    })
}

async fn start(
    connect: engine::ConnectOptions,
    consumer: engine::ConsumerOptions,
    handler: Handler,
    monitor: Arc<Monitor>,
) -> Result<Consumption, nats_consumer::Error> {
    let late = consumer
        .handler_timeout
        .map(|limit| Arc::new(Late::new(consumer.name.clone(), limit, consumer.concurrency)));
    let waiting = Arc::new(DeliveryQueue::new().map_err(|error| {
        let text = "The operating system has no file descriptors left for a consumer.";
        nats_consumer::Error::new(nats_consumer::ErrorKind::Config, text).because(error)
    })?);
    let gatherer = consumer.batching.map(|limits| Arc::new(Gatherer::new(limits)));
    let inbox: Arc<dyn Inbox> = match &gatherer {
        None => waiting.clone(),
        Some(gatherer) => Arc::new(BatchInbox { gatherer: gatherer.clone(), queue: waiting.clone() }),
    };
    let engine = Arc::new(consume_monitored(connect, consumer, inbox, monitor).await?);
    signals::follow(&engine);
    Ok(Consumption {
        engine: Owned::new(engine),
        waiting,
        gatherer,
        handler: handler.into(),
        late,
        watched: Once::new(),
    })
}

/// A running consumption, owned by Python.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Consumption {
    engine: Owned<Arc<engine::Consumption>>,
    waiting: Arc<DeliveryQueue>,
    /// The place where deliveries wait, if the consumer handles batches.
    gatherer: Option<Arc<Gatherer>>,
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
            let (engine, gatherer) = (Arc::downgrade(engine), self.gatherer.clone());
            runtime().spawn(Watch { engine, waiting, gatherer, handler, watched: watched.into() }.run());
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

    /// Its state, in one word.
    #[getter]
    fn state(&self) -> &'static str {
        self.engine.peek().status().state.name()
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

    /// Runs plain `def` handlers in the calling thread until nothing will come any more. Calls `rest` whenever none has
    /// come for a second.
    fn serve(&self, py: Python<'_>, rest: &Bound<'_, PyAny>) -> PyResult<()> {
        self.watch(self.engine.get()?, Watched::Threads);
        if let Some(gatherer) = &self.gatherer {
            return threads::batches::serve(py, &self.handler, gatherer, &self.waiting, rest);
        }
        threads::serve(py, &self.handler, &self.waiting, self.late.as_deref(), rest)
    }

    /// Begins to give batches to the running loop, which looks whenever the descriptor that this returns is readable.
    fn start_batches(&self, py: Python<'_>) -> PyResult<i32> {
        let engine = self.engine.get()?;
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        monitor::follow(&self.waiting);
        self.watch(engine, Watched::Loop { event_loop: event_loop.unbind(), thread: thread_number(py)? });
        Ok(self.waiting.wake().fd())
    }

    /// The loop shows that it runs. Whether what runs has to be cancelled.
    fn look(&self) -> bool {
        monitor::looked(self.waiting.wake());
        self.waiting.is_cancelled()
    }

    /// The next batch for the loop; None when nothing will come any more.
    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.engine.get()?;
        let gatherer = self.gatherer.clone();
        let next = async move {
            match gatherer {
                Some(gatherer) => Ok(gatherer.next().await),
                None => Ok(None),
            }
        };
        into_asyncio(py, next, |py, batch: Option<Vec<nats_consumer::Delivery>>| match batch {
            Some(batch) => Ok(messages_of(py, batch, false)?.into_pyobject(py)?.into_any().unbind()),
            None => Ok(py.None()),
        })
    }

    /// A call begins with these messages of a batch, in a thread; None if it may take any time.
    fn begin_turn(&self, messages: Vec<PyRef<'_, Message>>) -> Option<Turn> {
        let attempts = messages.iter().filter_map(|message| message.timed_attempt()).collect();
        self.handler.timeout.map(|limit| Turn::begin(&self.handler.name, limit, attempts))
    }

    /// Settles a message of a batch by what its handler returned for it. An error means that the attempt failed.
    fn returned(&self, message: &Message, value: &Bound<'_, PyAny>) -> PyResult<()> {
        judge::returned(message.delivery(), value)
    }

    /// The handler of a message has ended, and middleware around it goes on. Whether in time: then its word counts.
    fn handler_ended(&self, message: &Message) -> bool {
        match (&self.late, message.timed_attempt()) {
            (Some(late), Some(attempt)) => late.end_handler(&attempt),
            _ => true,
        }
    }

    /// Settles a message that failed with `error`, where Python judges: in a batch, or within middleware. Whether that was
    /// its last attempt: ask `failed`, then `exhaust`.
    #[pyo3(signature = (message, error, is_late=false))]
    fn raised(
        &self,
        py: Python<'_>,
        message: Py<Message>,
        error: Bound<'_, PyAny>,
        is_late: bool,
    ) -> PyResult<bool> {
        if is_late {
            message.get().delivery().note_late();
        }
        match judge::raised(py, &self.handler, &message, PyErr::from_value(error))? {
            Judgement::Settled => Ok(false),
            Judgement::Exhausted(_) => Ok(true),
        }
    }

    /// Gives a message its final treatment, which `failed` may have answered.
    #[pyo3(signature = (message, error, answer=None))]
    fn exhaust(
        &self,
        py: Python<'_>,
        message: &Message,
        error: Bound<'_, PyAny>,
        answer: Option<Bound<'_, PyAny>>,
    ) {
        judge::exhaust(py, message, &PyErr::from_value(error), answer.as_ref());
    }

    /// A message of a batch comes again, because its surroundings failed with an error of this class.
    fn failed_in_common(&self, message: &Message, kind: &str, is_late: bool) {
        if is_late {
            message.delivery().note_late();
        }
        message.delivery().fail_without_evidence(kind);
    }

    /// Hands a message of a batch back that nobody has handled.
    fn hand_back(&self, message: &Message) {
        message.delivery().hand_back();
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
        while_awaited(py, waiting, nothing)
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
