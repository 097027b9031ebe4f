//! A connection for publishing and for managing streams.

pub(crate) mod events;
pub(crate) mod subscription;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

use nats_consumer::Connection as Engine;
use nats_consumer::api::request_behind;
use nats_consumer::connect::Traffic;
use nats_consumer::durables::{Action, Plan, apply, plan, plan_known};
use nats_consumer::publish::{publish, request, send};
use nats_consumer::subscribe::Ordered;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::client::events::Events;
use crate::client::subscription::{Limits, Pull, Subscription};
use crate::host::error::to_python;
use crate::host::future::{begun, into_asyncio, nothing};
use crate::host::process::Owned;
use crate::host::seconds::seconds;
use crate::options::{ConnectOptions, ConsumerOptions};
use crate::publish::outgoing::outgoing;
use crate::publish::pub_ack::pub_ack;
use crate::view::msg::{ANSWERS, Msg};

/// Time limit for the last messages when a connection is closed.
const CLOSE_SECONDS: f64 = 2.0;

type Headers = Option<HashMap<String, String>>;

/// Connects; resolves to a `Connection`.
#[pyfunction]
pub(crate) fn connect(py: Python<'_>, options: ConnectOptions) -> PyResult<Bound<'_, PyAny>> {
    let options = options.into_options()?;
    let opening = async move {
        let engine = Engine::open(&options).await?;
        Ok(Connection { engine: Owned::new(engine), subscriptions: AtomicU64::new(ANSWERS) })
    };
    into_asyncio(py, opening, |py, connection| Ok(Py::new(py, connection)?.into_any()))
}

/// A connection to NATS.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Connection {
    engine: Owned<Engine>,
    subscriptions: AtomicU64,
}

#[pymethods]
impl Connection {
    #[getter]
    fn is_connected(&self) -> bool {
        self.engine.peek().is_up()
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.engine.peek().is_closed()
    }

    #[getter]
    fn connected_url(&self) -> String {
        self.engine.peek().server()
    }

    #[getter]
    fn named_servers(&self) -> Vec<String> {
        self.engine.peek().named_servers()
    }

    #[getter]
    fn discovered_servers(&self) -> Vec<String> {
        self.engine.peek().discovered_servers()
    }

    #[getter]
    fn api_prefix(&self) -> &str {
        self.engine.peek().api_prefix()
    }

    #[getter]
    fn max_payload(&self) -> usize {
        self.engine.peek().max_payload()
    }

    #[getter]
    fn client_id(&self) -> u64 {
        self.engine.peek().client().server_info().client_id
    }

    #[getter]
    fn server_version(&self) -> String {
        self.engine.peek().client().server_info().version
    }

    /// Messages in and out, bytes of their payloads in and out, connections made.
    #[getter]
    fn statistics(&self) -> (u64, u64, u64, u64, u64) {
        let engine = self.engine.peek();
        let Traffic { messages_in, bytes_in, messages_out, bytes_out, .. } = engine.traffic();
        let connects = engine.client().statistics().connects.load(Relaxed);
        (messages_in, messages_out, bytes_in, bytes_out, connects)
    }

    fn new_inbox(&self) -> String {
        self.engine.peek().client().new_inbox()
    }

    fn events(&self) -> Events {
        Events::new(self.engine.peek().events())
    }

    /// Resolves to a `Subscription`.
    fn subscribe<'py>(
        &self,
        py: Python<'py>,
        subject: String,
        queue: Option<String>,
        limits: Limits,
        answers_flow: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opening = Subscription::open(self.engine()?, self.sid(), subject, queue, limits, answers_flow);
        into_asyncio(py, opening, |py, subscription| Ok(Py::new(py, subscription)?.into_any()))
    }

    /// Resolves to a `Subscription`. `config` is JSON.
    fn subscribe_in_order<'py>(
        &self,
        py: Python<'py>,
        prefix: String,
        stream: String,
        config: &[u8],
        heartbeat: f64,
        limits: Limits,
    ) -> PyResult<Bound<'py, PyAny>> {
        let config = Ordered::read_config(config).map_err(|error| to_python(&error))?;
        let heartbeat = seconds("idle_heartbeat", heartbeat)?;
        let Limits { messages: max_messages, bytes: max_bytes } = limits;
        let ordered = Ordered { prefix, stream, config, heartbeat, max_messages, max_bytes };
        let opening = Subscription::open_in_order(self.engine()?, self.sid(), ordered);
        into_asyncio(py, opening, |py, subscription| Ok(Py::new(py, subscription)?.into_any()))
    }

    /// Resolves to a `Pull`.
    fn pull<'py>(
        &self,
        py: Python<'py>,
        prefix: String,
        stream: String,
        consumer: String,
        limits: Limits,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opening = Pull::open(self.engine()?, self.sid(), prefix, stream, consumer, limits);
        into_asyncio(py, opening, |py, pull| Ok(Py::new(py, pull)?.into_any()))
    }

    /// Resolves to the seconds a round trip to the server took.
    fn rtt<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        let began = Instant::now();
        let measuring = async move { engine.flush(limit).await.map(|()| began.elapsed()) };
        into_asyncio(py, measuring, |py, took| Ok(took.as_secs_f64().into_pyobject(py)?.into_any().unbind()))
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
        let outgoing = outgoing(subject, payload, headers.as_ref())?;
        begun(py, async move { send(&engine, outgoing, reply).await }, nothing)
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
        let outgoing = outgoing(subject, payload, headers.as_ref())?;
        let limit = seconds("timeout", timeout)?;
        let asking = async move {
            let answer = request(&engine, outgoing, limit).await?;
            Ok(Msg::new(answer, engine, ANSWERS))
        };
        into_asyncio(py, asking, |py, answer| Ok(Py::new(py, answer)?.into_any()))
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
        let outgoing = outgoing(subject, payload, headers.as_ref())?;
        let limit = seconds("timeout", timeout)?;
        begun(py, async move { publish(&engine, outgoing, limit).await }, pub_ack)
    }

    #[pyo3(signature = (subject, payload, timeout, prefix=None))]
    fn api<'py>(
        &self,
        py: Python<'py>,
        subject: String,
        payload: Vec<u8>,
        timeout: f64,
        prefix: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let limit = seconds("timeout", timeout)?;
        let asking = async move {
            let prefix = prefix.as_deref().unwrap_or(engine.api_prefix());
            request_behind(&engine, prefix, &subject, payload.into(), limit).await
        };
        into_asyncio(py, asking, |py, answer| bytes(py, &answer))
    }

    /// Resolves to the plan for a durable: its name, what happens, the changes as (field, from, to), the reason of a
    /// refusal, whether messages are skipped, whether its filter matches nothing, and the durables that it may replace.
    fn plan_durable<'py>(&self, py: Python<'py>, options: ConsumerOptions) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let options = options.into_options()?;
        let planning = async move { plan(&engine, &options).await };
        into_asyncio(py, planning, |py, plan| Ok(planned(&plan).into_pyobject(py)?.into_any().unbind()))
    }

    /// Creates a durable, or changes it to fit; resolves to its name.
    fn apply_durable<'py>(&self, py: Python<'py>, options: ConsumerOptions) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let options = options.into_options()?;
        let applying = async move { apply(&engine, &options).await };
        into_asyncio(py, applying, |py, name| Ok(name.into_pyobject(py)?.into_any().unbind()))
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
        let limit = seconds("timeout", CLOSE_SECONDS)?;
        let closing = async move {
            engine.close(limit).await;
            Ok(())
        };
        into_asyncio(py, closing, nothing)
    }
}

impl Connection {
    /// The number of the next subscription.
    fn sid(&self) -> u64 {
        self.subscriptions.fetch_add(1, Relaxed) + 1
    }

    /// The engine, of which a clone is another handle.
    fn engine(&self) -> PyResult<Engine> {
        self.engine.get().cloned()
    }
}

/// The changes of a durable whose state, and that of its stream, the caller has as JSON: as (field, from, to), and the
/// reason if it cannot be consumed.
#[pyfunction]
pub(crate) fn plan_known_durable(
    options: ConsumerOptions,
    durable: &[u8],
    stream: &[u8],
) -> PyResult<(Changes, Option<String>)> {
    let action = plan_known(&options.into_options()?, durable, stream).map_err(|error| to_python(&error))?;
    let plan = planned_action(&action);
    Ok((plan.1, plan.2))
}

type Changes = Vec<(&'static str, String, String)>;

type Planned = (String, &'static str, Changes, Option<String>, bool, bool, Vec<String>);

fn planned(plan: &Plan) -> Planned {
    let (action, changes, reason) = planned_action(&plan.action);
    (plan.durable.clone(), action, changes, reason, plan.skips, plan.unmatched, plan.replaces.clone())
}

type PlannedAction = (&'static str, Changes, Option<String>);

fn planned_action(action: &Action) -> PlannedAction {
    match action {
        Action::Create => ("create", Vec::new(), None),
        Action::Change(changes) => {
            ("change", changes.iter().map(|it| (it.field, it.from(), it.to())).collect(), None)
        }
        Action::Refuse(reason) => ("refuse", Vec::new(), Some(reason.clone())),
        _ => ("keep", Vec::new(), None),
    }
}

fn bytes(py: Python<'_>, answer: &[u8]) -> PyResult<Py<PyAny>> {
    Ok(PyBytes::new(py, answer).into_any().unbind())
}
