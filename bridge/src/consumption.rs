//! A running consumption, as Python holds it.

use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Once, OnceLock};

use nats_consumer as engine;
use nats_consumer::observe::Monitor;
use nats_consumer::{Gatherer, Inbox, consume_monitored};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::deliver::batch::{BatchInbox, Turn, messages_of};
use crate::deliver::handler::Handler;
use crate::deliver::inbox::DeliveryQueue;
use crate::deliver::judge::{self, Judgement};
use crate::deliver::message::Message;
use crate::host::context::Context;
use crate::host::future::{into_asyncio, nothing, while_awaited};
use crate::host::process::Owned;
use crate::host::runtime::{end_at_once, runtime};
use crate::host::seconds::seconds;
use crate::host::signals;
use crate::monitor::{self, monitor_of};
use crate::options::{ConnectOptions, ConsumerOptions};
use crate::stall::{Watch, Watched};
use crate::tasks::Tasks;
use crate::threads::at_work;
use crate::threads::lane::Lane;
use crate::threads::late::{Late, watch};
use crate::threads::{self, ConsumerLane, Work, thread_number};

/// Connects, binds the durable and begins to fetch; handlers run after `start_tasks()`, `start_batches()` or
/// `start_threads()`: the last one if they are `in_threads`.
#[pyfunction]
#[pyo3(signature = (connect, consumer, handle, failed, log, keeps_time=false, in_threads=false))]
#[allow(clippy::too_many_arguments, reason = "they are the callables of one object in Python")]
pub(crate) fn consume(
    py: Python<'_>,
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handle: Py<PyAny>,
    failed: Py<PyAny>,
    log: Py<PyAny>,
    keeps_time: bool,
    in_threads: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let connect = connect.into_lasting_options()?;
    let consumer = consumer.into_options()?;
    let handler = Handler {
        name: consumer.name.clone(),
        handle,
        failed,
        log,
        concurrency: consumer.concurrency,
        timeout: consumer.handler_timeout,
        keeps_time,
    };
    let monitor = monitor_of(py, &consumer)?;
    into_asyncio(py, start(connect, consumer, handler, monitor, in_threads), |py, consumption| {
        Ok(Py::new(py, consumption)?.into_any())
    })
}

async fn start(
    connect: engine::ConnectOptions,
    consumer: engine::ConsumerOptions,
    handler: Handler,
    monitor: Arc<Monitor>,
    in_threads: bool,
) -> Result<Consumption, nats_consumer::Error> {
    let way = if in_threads {
        Way::Threads(Lane::new(threads::pool(), consumer.concurrency, OnceLock::new()))
    } else {
        let queue = DeliveryQueue::new().map_err(|error| {
            let text = "The operating system has no file descriptors left for a consumer.";
            nats_consumer::Error::new(nats_consumer::ErrorKind::Config, text).because(error)
        })?;
        Way::Loop(Arc::new(queue))
    };
    let late = consumer
        .handler_timeout
        .filter(|_| in_threads)
        .map(|limit| Arc::new(Late::new(consumer.name.clone(), limit, consumer.concurrency)));
    let gatherer = consumer.batching.map(|limits| Arc::new(Gatherer::new(limits)));
    let inbox: Arc<dyn Inbox> = match &gatherer {
        None => way.inbox(),
        Some(gatherer) => Arc::new(BatchInbox { gatherer: gatherer.clone(), behind: way.inbox() }),
    };
    let engine = Arc::new(consume_monitored(connect, consumer, inbox, monitor).await?);
    signals::follow(&engine);
    Ok(Consumption {
        engine: Owned::new(engine),
        way,
        gatherer,
        handler: handler.into(),
        late,
        watched: Once::new(),
        is_held_by_calls: Arc::default(),
    })
}

/// The way of deliveries to handlers.
enum Way {
    Loop(Arc<DeliveryQueue>),
    Threads(Arc<ConsumerLane>),
}

impl Way {
    fn inbox(&self) -> Arc<dyn Inbox> {
        match self {
            Self::Loop(queue) => queue.clone(),
            Self::Threads(lane) => lane.clone(),
        }
    }

    fn queue(&self) -> PyResult<&Arc<DeliveryQueue>> {
        match self {
            Self::Loop(queue) => Ok(queue),
            Self::Threads(_) => Err(PyRuntimeError::new_err("its handlers run in threads")),
        }
    }

    fn lane(&self) -> PyResult<&Arc<ConsumerLane>> {
        match self {
            Self::Threads(lane) => Ok(lane),
            Self::Loop(_) => Err(PyRuntimeError::new_err("its handlers run on an event loop")),
        }
    }
}

/// A running consumption, owned by Python.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Consumption {
    engine: Owned<Arc<engine::Consumption>>,
    way: Way,
    /// The place where deliveries wait, if the consumer handles batches.
    gatherer: Option<Arc<Gatherer>>,
    handler: Arc<Handler>,
    /// Watches the handlers in threads if they have a timeout.
    late: Option<Arc<Late>>,
    /// Its handlers are watched from the moment when they can run.
    watched: Once,
    /// Whether blocking calls hold it up that outlived their `async def` handlers.
    is_held_by_calls: Arc<AtomicBool>,
}

impl Consumption {
    fn watch(&self, engine: &Arc<engine::Consumption>, watched: Watched) {
        self.watched.call_once(|| {
            let (engine, handler) = (Arc::downgrade(engine), self.handler.clone());
            let (gatherer, watched) = (self.gatherer.clone(), watched.into());
            let is_held_by_calls = self.is_held_by_calls.clone();
            runtime().spawn(Watch { engine, gatherer, handler, watched, is_held_by_calls }.run());
        });
    }

    fn watch_loop(
        &self,
        py: Python<'_>,
        engine: &Arc<engine::Consumption>,
        event_loop: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (queue, event_loop) = (self.way.queue()?.clone(), event_loop.unbind());
        self.watch(engine, Watched::Loop { queue, event_loop, thread: thread_number(py)? });
        Ok(())
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
        Tasks::start(&event_loop, self.handler.clone(), self.way.queue()?.clone())?;
        self.watch_loop(py, engine, event_loop)
    }

    /// Runs plain `def` handlers in threads of the process, of which there are at most `most`. Each delivery gets a copy of
    /// this context. `enter` is called in a thread that begins to work for this consumer, and returns the thread's name.
    fn start_threads(&self, py: Python<'_>, enter: Py<PyAny>, most: usize) -> PyResult<()> {
        let (engine, lane) = (self.engine.get()?, self.way.lane()?);
        // Batches that run late have a timer each.
        let late = self.late.clone().filter(|_| self.gatherer.is_none());
        if let Some(late) = &late {
            runtime().spawn(watch(late.clone(), lane.clone()));
        }
        if let Some(gatherer) = &self.gatherer {
            runtime().spawn(lane.clone().fill_from(gatherer.clone()));
        }
        let work = Work { handler: self.handler.clone(), late, context: Context::of_caller(py)?, enter };
        threads::open(py, lane, work, most)?;
        self.watch(engine, Watched::Threads(lane.clone()));
        Ok(())
    }

    /// The names of the threads that run its handlers.
    fn busy_threads(&self) -> Vec<String> {
        self.way.lane().map_or_else(|_| Vec::new(), at_work::names_of)
    }

    /// Begins to give batches to the running loop, which looks whenever the descriptor that this returns is readable.
    fn start_batches(&self, py: Python<'_>) -> PyResult<i32> {
        let (engine, queue) = (self.engine.get()?, self.way.queue()?);
        monitor::follow(queue);
        self.watch_loop(py, engine, py.import("asyncio")?.call_method0("get_running_loop")?)?;
        Ok(queue.wake().fd())
    }

    /// Blocking calls that outlived their handlers hold all threads that such calls have, or hold them no more. Until
    /// then it takes nothing new, and hands back what has not started.
    fn hold_up(&self, is_held: bool) {
        self.is_held_by_calls.store(is_held, Release);
    }

    /// The loop shows that it runs. Whether what runs has to be cancelled.
    fn look(&self) -> PyResult<bool> {
        let queue = self.way.queue()?;
        monitor::looked(queue.wake());
        Ok(queue.is_cancelled())
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
