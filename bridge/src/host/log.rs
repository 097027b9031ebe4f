//! The engine's `tracing` events as records for Python's `logging`.
//!
//! They are queued, and a Python thread takes them in batches: no tokio thread ever attaches to Python for
//! a line of log.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::host::call::detached;
use crate::host::interpreter;
use crate::host::lock::lock;
use crate::host::process::PerProcess;
use crate::host::seconds::seconds;

/// Most records kept while nobody takes them; then the oldest are dropped.
const CAPACITY: usize = 4096;

/// Records that wait to be taken.
#[derive(Default)]
struct Records {
    entries: Mutex<VecDeque<Entry>>,
    arrived: Condvar,
    /// Counts the calls of [`wake_logs`].
    wakes: AtomicU64,
}

impl Records {
    fn of_this_process() -> &'static Self {
        static RECORDS: PerProcess<Records> = PerProcess::new();
        RECORDS.get_or(Self::default)
    }
}

/// Level, logger and text, as `logging` has them, and fields.
type Record = (u8, String, String, Fields);

/// Fields of an event, by name.
type Fields = BTreeMap<&'static str, Value>;

#[derive(IntoPyObject)]
pub(crate) enum Value {
    Bool(bool),
    Whole(i64),
    Counted(u64),
    Number(f64),
    Text(String),
}

/// Makes level and text, when Python takes the record.
type Describe = Box<dyn FnOnce(Python<'_>) -> PyResult<(u8, String)> + Send>;

enum Entry {
    Ready(Record),
    /// A record to come, with its logger.
    Deferred(String, Describe),
}

impl Entry {
    fn record(self, py: Python<'_>) -> Option<Record> {
        match self {
            Self::Ready(record) => Some(record),
            Self::Deferred(logger, describe) => match describe(py) {
                Ok((level, text)) => Some((level, logger, visible(&text), Fields::new())),
                Err(error) => {
                    error.write_unraisable(py, None);
                    None
                }
            },
        }
    }
}

/// A record whose text needs Python; it is made when the record is taken.
pub(crate) fn later(
    target: &str,
    describe: impl FnOnce(Python<'_>) -> PyResult<(u8, String)> + Send + 'static,
) {
    push(Entry::Deferred(target.replace("::", "."), Box::new(describe)));
}

/// Waits for records, at most `timeout` seconds, and takes all that are there.
#[pyfunction]
pub(crate) fn take_logs(py: Python<'_>, timeout: f64) -> PyResult<Vec<Record>> {
    let limit = seconds("timeout", timeout)?;
    let entries = detached(py, || {
        let entries = wait(limit);
        interpreter::wants();
        entries
    });
    interpreter::has();
    Ok(entries.into_iter().filter_map(|entry| entry.record(py)).collect())
}

/// Has who waits in `take_logs` return, with or without records.
#[pyfunction]
pub(crate) fn wake_logs() {
    let records = Records::of_this_process();
    // Under the lock, or a wake could come between the look at the count and the wait.
    let entries = lock(&records.entries);
    records.wakes.fetch_add(1, Relaxed);
    drop(entries);
    records.arrived.notify_all();
}

fn wait(limit: Duration) -> Vec<Entry> {
    let records = Records::of_this_process();
    let entries = lock(&records.entries);
    let wakes = records.wakes.load(Relaxed);
    let goes_on = |entries: &mut VecDeque<_>| entries.is_empty() && records.wakes.load(Relaxed) == wakes;
    let waiting = records.arrived.wait_timeout_while(entries, limit, goes_on);
    let (mut entries, _) = waiting.unwrap_or_else(PoisonError::into_inner);
    entries.drain(..).collect()
}

/// Queues the engine's events from now on.
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
        let (text, values) = line.finish();
        push(Entry::Ready((level, logger, text, values)));
    }
}

fn push(entry: Entry) {
    let records = Records::of_this_process();
    let mut entries = lock(&records.entries);
    let oldest = if entries.len() >= CAPACITY { entries.pop_front() } else { None };
    entries.push_back(entry);
    drop(entries);
    if oldest.is_some() {
        interpreter::dropped_record();
    }
    drop(oldest);
    records.arrived.notify_one();
}

/// A line: `consumer: message (field=value, …)`.
#[derive(Default)]
struct Line {
    consumer: String,
    message: String,
    fields: String,
    values: Fields,
}

impl Line {
    fn finish(mut self) -> (String, Fields) {
        let values = std::mem::take(&mut self.values);
        (self.text(), values)
    }

    fn note(&mut self, field: &Field, value: Value) {
        self.values.insert(field.name(), value);
    }

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
        self.note(field, Value::Text(visible(value)));
        match field.name() {
            "consumer" => self.consumer = value.to_owned(),
            _ => self.show(field, &format_args!("{value}")),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, Value::Bool(value));
        self.show(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, Value::Whole(value));
        self.show(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, Value::Counted(value));
        self.show(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, Value::Number(value));
        self.show(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
            return;
        }
        self.note(field, Value::Text(visible(&format!("{value:?}"))));
        self.show(field, value);
    }
}

impl Line {
    fn show(&mut self, field: &Field, value: &dyn Debug) {
        let comma = if self.fields.is_empty() { "" } else { ", " };
        let _ = write!(self.fields, "{comma}{}={value:?}", field.name());
    }
}
