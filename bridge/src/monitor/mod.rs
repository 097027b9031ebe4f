//! The process as it is seen from outside: states of its consumers, metrics, and probes over HTTP.

pub(crate) mod fleet;
pub(crate) mod memory;
pub(crate) mod outbox;
pub(crate) mod probes;

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use nats_consumer as engine;
use nats_consumer::observe::{self, Format, Host, Kind, Metrics, Monitor, Name, Versions};
use pyo3::prelude::*;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::deliver::inbox::DeliveryQueue;
use crate::host::interpreter;
use crate::host::lock::lock;
use crate::host::process::PerProcess;
use crate::host::runtime::runtime;
use crate::host::seconds::seconds;
use crate::host::wake::Wake;
use crate::monitor::probes::Probes;
use crate::options::ConsumerOptions;

/// The name of a consumer's handler in metrics.
fn handler_of(options: &engine::ConsumerOptions) -> &'static str {
    if options.batching.is_some() { "handle_batch" } else { "handle_message" }
}

/// How often the event loop is asked to look.
const PULSE: Duration = Duration::from_millis(500);

/// A forked child counts for itself.
static METRICS: PerProcess<Metrics> = PerProcess::new();

/// Queues of deliveries that wait for an event loop.
static LOOPS: PerProcess<Mutex<Vec<Weak<DeliveryQueue>>>> = PerProcess::new();

pub(crate) fn metrics(py: Python<'_>) -> PyResult<Metrics> {
    metrics_in(py, || Ok(observe::Page::default()))
}

fn metrics_in(py: Python<'_>, page: impl FnOnce() -> PyResult<observe::Page>) -> PyResult<Metrics> {
    let make = || {
        let version = py.version_info();
        let python = format!("{}.{}.{}", version.major, version.minor, version.patch);
        let django: String = py.import("django")?.call_method0("get_version")?.extract()?;
        Ok(Metrics::in_page(page()?, Versions { python: &python, django: &django }))
    };
    METRICS.get_or_try(make).cloned()
}

/// The consumer's state and metrics.
pub(crate) fn monitor_of(py: Python<'_>, options: &engine::ConsumerOptions) -> PyResult<Arc<Monitor>> {
    Ok(metrics(py)?.monitor(&Name::of(options, handler_of(options))))
}

/// A consumer that is about to start.
#[pyfunction]
pub(crate) fn declare(py: Python<'_>, consumer: ConsumerOptions) -> PyResult<()> {
    let options = consumer.into_options()?;
    metrics(py)?.declare(&Name::of(&options, handler_of(&options))).note_start();
    Ok(())
}

/// A consumer of this name could not be started.
#[pyfunction]
pub(crate) fn note_failed_start(py: Python<'_>, consumer: &str) -> PyResult<()> {
    metrics(py)?.note_failed_start(consumer);
    Ok(())
}

/// Counts into the memory of this descriptor, which the parent reads. To be called before anything is counted.
#[pyfunction]
pub(crate) fn count_into(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let metrics = metrics_in(py, || Ok(memory::inherited(fd)?))?;
    runtime().spawn(observe::beat(metrics.clone()));
    measure(&metrics);
    Ok(())
}

/// Measures what holds up the process, from now on.
fn measure(metrics: &Metrics) -> AbortHandle {
    interpreter::measure(Host::new(metrics.page()));
    runtime().spawn(pulse()).abort_handle()
}

/// Every metric: name, kind, labels, and what it means.
#[pyfunction]
pub(crate) fn metric_families() -> Vec<(String, &'static str, &'static [&'static str], &'static str)> {
    let kind = |kind| match kind {
        Kind::Counter | Kind::Time => "counter",
        Kind::Histogram(_) => "histogram",
        Kind::Info => "info",
        _ => "gauge",
    };
    observe::FAMILIES.iter().map(|it| (it.sample(), kind(it.kind), it.labels, it.help)).collect()
}

/// The metrics of this process, in the text format of Prometheus.
#[pyfunction]
pub(crate) fn metrics_text(py: Python<'_>) -> PyResult<String> {
    let metrics = metrics(py)?;
    Ok(py.detach(|| metrics.text(Format::Prometheus)))
}

/// Answers `/livez`, `/readyz` and `/metrics` at `address` until it is ended. A consumer that was ready until less than
/// `grace` seconds ago is ready.
#[pyfunction]
pub(crate) fn serve_probes(py: Python<'_>, address: String, grace: f64) -> PyResult<Probes> {
    let grace = seconds("grace", grace)?;
    let metrics = metrics(py)?;
    let pulse = measure(&metrics);
    let _guard = runtime().enter();
    Ok(Probes::new(observe::Probes::start(metrics, address, grace)?, Some(pulse)))
}

/// The event loop that takes deliveries from here is measured from now on.
pub(crate) fn follow(waiting: &Arc<DeliveryQueue>) {
    let mut loops = lock(LOOPS.get_or(Mutex::default));
    loops.retain(|each| each.strong_count() > 0);
    loops.push(Arc::downgrade(waiting));
}

/// The event loop has looked at what woke it.
pub(crate) fn looked(wake: &Wake) {
    let delay = wake.clear();
    if let (Some(host), Some(delay)) = (interpreter::host(), delay) {
        host.loop_lag.observe(delay);
    }
}

/// Asks event loops to look, and measures for how long they have not.
async fn pulse() {
    loop {
        sleep(PULSE).await;
        let loops: Vec<_> = lock(LOOPS.get_or(Mutex::default)).iter().filter_map(Weak::upgrade).collect();
        let open = loops.iter().filter(|waiting| !waiting.is_closed());
        let longest = open.clone().filter_map(|waiting| waiting.wake().delay()).max();
        open.for_each(|waiting| waiting.wake().signal());
        if let Some(host) = interpreter::host() {
            // What was woken less than a pulse ago may be on its way.
            host.loop_stands_for(longest.filter(|delay| *delay >= PULSE).unwrap_or_default());
        }
    }
}
