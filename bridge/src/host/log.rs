//! The engine's `tracing` events as records for Python's `logging`.
//!
//! They are queued, and a Python thread takes them in batches: no tokio thread ever attaches to Python for
//! a line of log.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::host::lock::lock;
use crate::host::seconds::seconds;

/// Most records kept while nobody takes them; then the oldest are dropped.
const CAPACITY: usize = 4096;

static RECORDS: Mutex<VecDeque<Entry>> = Mutex::new(VecDeque::new());
/// Counts the calls of [`wake_logs`].
static WAKES: AtomicU64 = AtomicU64::new(0);
static ARRIVED: Condvar = Condvar::new();

/// Level, logger and text, as `logging` has them.
type Record = (u8, String, String);

/// Makes level and text, when Python takes the record.
type Telling = Box<dyn FnOnce(Python<'_>) -> PyResult<(u8, String)> + Send>;

enum Entry {
    Told(Record),
    /// By the logger.
    Untold(String, Telling),
}

impl Entry {
    fn tell(self, py: Python<'_>) -> Option<Record> {
        match self {
            Self::Told(record) => Some(record),
            Self::Untold(logger, tell) => match tell(py) {
                Ok((level, text)) => Some((level, logger, visible(&text))),
                Err(error) => {
                    error.write_unraisable(py, None);
                    None
                }
            },
        }
    }
}

/// A record whose text needs Python; it is made when the record is taken.
pub(crate) fn later(target: &str, tell: impl FnOnce(Python<'_>) -> PyResult<(u8, String)> + Send + 'static) {
    push(Entry::Untold(target.replace("::", "."), Box::new(tell)));
}

/// Waits for records, at most `timeout` seconds, and takes all that are there.
#[pyfunction]
pub(crate) fn take_logs(py: Python<'_>, timeout: f64) -> PyResult<Vec<Record>> {
    let limit = seconds("timeout", timeout)?;
    let entries = py.detach(|| wait(limit));
    Ok(entries.into_iter().filter_map(|entry| entry.tell(py)).collect())
}

/// Has who waits in `take_logs` return, with or without records.
#[pyfunction]
pub(crate) fn wake_logs() {
    // Under the lock, or a wake could come between the look at the count and the wait.
    let records = records();
    WAKES.fetch_add(1, Relaxed);
    drop(records);
    ARRIVED.notify_all();
}

fn wait(limit: Duration) -> Vec<Entry> {
    let records = records();
    let wakes = WAKES.load(Relaxed);
    let goes_on = |records: &mut VecDeque<_>| records.is_empty() && WAKES.load(Relaxed) == wakes;
    let waiting = ARRIVED.wait_timeout_while(records, limit, goes_on);
    let (mut records, _) = waiting.unwrap_or_else(PoisonError::into_inner);
    records.drain(..).collect()
}

/// From now on the engine's events are queued.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Queue);
        // Another extension of this process may have been first; then it has the events.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

struct Queue;

impl<S: Subscriber> Layer<S> for Queue {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        // async-nats logs every event at INFO; the engine says what matters in its own words.
        metadata.target().starts_with("nats_consumer") && *metadata.level() <= Level::INFO
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = match *event.metadata().level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            _ => 10,
        };
        let logger = event.metadata().target().replace("::", ".");
        push(Entry::Told((level, logger, line.text())));
    }
}

fn push(entry: Entry) {
    let mut records = records();
    let oldest = if records.len() >= CAPACITY { records.pop_front() } else { None };
    records.push_back(entry);
    drop(records);
    drop(oldest);
    ARRIVED.notify_one();
}

/// A line: `consumer: message (field=value, …)`.
#[derive(Default)]
struct Line {
    consumer: String,
    message: String,
    fields: String,
}

impl Line {
    fn text(self) -> String {
        let consumer = if self.consumer.is_empty() { String::new() } else { format!("{}: ", self.consumer) };
        let fields = if self.fields.is_empty() { String::new() } else { format!(" ({})", self.fields) };
        visible(&format!("{consumer}{}{fields}", self.message))
    }
}

/// Subjects and reasons are written by strangers, and a terminal would obey what is in them.
fn visible(text: &str) -> String {
    let write_out = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(write_out).collect()
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "consumer" => self.consumer = value.to_owned(),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
            return;
        }
        let comma = if self.fields.is_empty() { "" } else { ", " };
        let _ = write!(self.fields, "{comma}{}={value:?}", field.name());
    }
}

fn records() -> MutexGuard<'static, VecDeque<Entry>> {
    lock(&RECORDS)
}
