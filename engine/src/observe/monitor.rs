//! The state and the metrics of one consumer, from before its first start until after its
//! last end.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::ConsumerOptions;
use crate::lock::lock;
use crate::observe::expose::{Format, text};
use crate::observe::meter::{Meter, Name};
use crate::observe::page::Page;
use crate::observe::process::{Process, Versions};
use crate::observe::published::Published;
use crate::observe::state::{Machine, Status};

/// The name of a Rust handler in metrics.
pub(crate) const HANDLER: &str = "handle";

/// The state and the metrics of one consumer.
#[derive(Debug)]
pub struct Monitor {
    machine: Mutex<Machine>,
    status: watch::Sender<Status>,
    pub(crate) meter: Meter,
}

impl Monitor {
    /// Of a consumer that has not begun.
    #[must_use]
    pub fn new(page: &Page, name: &Name<'_>) -> Self {
        let machine = Machine::new(Instant::now());
        let status = watch::Sender::new(machine.status().clone());
        let meter = Meter::new(page, name);
        meter.is_in(machine.status());
        Self { machine: Mutex::new(machine), status, meter }
    }

    /// Of a consumer whose numbers only its consumption knows.
    #[must_use]
    pub fn alone(options: &ConsumerOptions) -> Arc<Self> {
        Arc::new(Self::new(&Page::default(), &Name::of(options, HANDLER)))
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Each change of the state, from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Takes note that a start is about to be tried.
    pub fn note_start(&self) {
        self.note(Machine::starts);
    }

    /// Takes note of a fact.
    pub(crate) fn note(&self, fact: impl FnOnce(&mut Machine)) {
        let mut machine = lock(&self.machine);
        fact(&mut machine);
        if machine.conclude(Instant::now()) {
            self.meter.is_in(machine.status());
            self.status.send_replace(machine.status().clone());
        }
    }
}

/// The consumers of a process, with their states and metrics. Clones are the same.
///
/// [`consume_observed`](crate::consume_observed) counts into it.
///
/// ```
/// use nats_consumer::observe::{Format, Metrics};
///
/// let metrics = Metrics::default();
/// assert!(metrics.text(Format::Prometheus).contains("nats_consumer_worker_info"));
/// assert!(metrics.statuses().is_empty());
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    page: Page,
    known: Mutex<Vec<Known>>,
    process: Process,
    published: OnceLock<Arc<Published>>,
}

/// A consumer that was declared.
struct Known {
    name: String,
    stream: String,
    durable: String,
    /// Its name in metrics, which no other has.
    label: String,
    monitor: Arc<Monitor>,
}

/// The consumer among those that were declared. A durable that is known only at the start is not the declared one.
fn find<'a>(known: &'a [Known], name: &Name<'_>) -> Option<&'a Known> {
    let of_stream = || known.iter().filter(|it| it.name == name.consumer && it.stream == name.stream);
    let exact = of_stream().find(|it| it.durable == name.durable);
    exact.or_else(|| of_stream().next().filter(|_| of_stream().count() == 1))
}

impl Default for Metrics {
    /// In memory of this process's own.
    fn default() -> Self {
        Self::in_page(Page::default(), Versions::default())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// In this page.
    #[doc(hidden)]
    #[must_use]
    pub fn in_page(page: Page, versions: Versions<'_>) -> Self {
        let process = Process::new(&page, versions);
        let (known, published) = Default::default();
        Self(Arc::new(Inner { page, known, process, published }))
    }

    /// The page that has the numbers.
    #[doc(hidden)]
    #[must_use]
    pub fn page(&self) -> &Page {
        &self.0.page
    }

    /// The numbers of what the process publishes.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.0.published.get_or_init(|| Arc::new(Published::new(&self.0.page))).clone()
    }

    /// Declares a consumer.
    #[doc(hidden)]
    pub fn declare(&self, name: &Name<'_>) -> Arc<Monitor> {
        let mut known = lock(&self.0.known);
        let exact = known.iter().find(|it| {
            (it.name.as_str(), it.stream.as_str(), it.durable.as_str())
                == (name.consumer, name.stream, name.durable)
        });
        match exact {
            Some(known) => known.monitor.clone(),
            None => self.add(&mut known, name),
        }
    }

    /// The consumer, which is declared if it was not. It keeps its numbers when it starts again.
    #[doc(hidden)]
    #[must_use]
    pub fn monitor(&self, name: &Name<'_>) -> Arc<Monitor> {
        let mut known = lock(&self.0.known);
        match find(&known, name) {
            Some(known) => known.monitor.clone(),
            None => self.add(&mut known, name),
        }
    }

    fn add(&self, known: &mut Vec<Known>, name: &Name<'_>) -> Arc<Monitor> {
        let labels = [
            name.consumer.to_owned(),
            format!("{}.{}", name.stream, name.consumer),
            format!("{}.{}.{}", name.stream, name.durable, name.consumer),
        ];
        let is_free = |label: &String| known.iter().all(|it| it.label != *label);
        let label = labels.into_iter().find(is_free).unwrap_or_else(|| name.durable.to_owned());
        let monitor = Arc::new(Monitor::new(&self.0.page, &Name { consumer: &label, ..*name }));
        known.push(Known {
            name: name.consumer.to_owned(),
            stream: name.stream.to_owned(),
            durable: name.durable.to_owned(),
            label,
            monitor: monitor.clone(),
        });
        monitor
    }

    /// Takes note that a start of a consumer of this name failed outside of the engine.
    #[doc(hidden)]
    pub fn note_failed_start(&self, consumer: &str) {
        let known = lock(&self.0.known);
        known.iter().filter(|it| it.name == consumer).for_each(|it| it.monitor.note(Machine::fails));
    }

    /// Says that the engine's runtime goes on.
    #[doc(hidden)]
    pub fn beat(&self) {
        self.0.process.beat();
    }

    /// The state of each consumer, in the order in which they were declared.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, Status)> {
        lock(&self.0.known).iter().map(|it| (it.label.clone(), it.monitor.status())).collect()
    }

    /// All numbers as text, as of now. Consumers are ready as they are at this moment, without a grace.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        self.text_with_grace(format, Duration::ZERO)
    }

    /// [`text`](Self::text), where consumers that were ready until less than `grace` ago are ready.
    #[must_use]
    pub fn text_with_grace(&self, format: Format, grace: Duration) -> String {
        let page = &self.0.page;
        page.look();
        self.0.process.look();
        text(&page.view(), format, grace)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NAME: Name<'_> = Name {
        consumer: "Orders",
        stream: "orders",
        durable: "billing",
        kind: "pull",
        handler: "handle",
        concurrency: 4,
    };

    #[test]
    fn a_consumer_that_starts_again_keeps_its_numbers() {
        let metrics = Metrics::default();
        metrics.monitor(&NAME).meter.arrived(1, 0);
        metrics.monitor(&NAME).meter.arrived(1, 0);
        let line = "nats_consumer_deliveries_total{consumer=\"Orders\",redelivered=\"false\"} 2\n";
        assert!(metrics.text(Format::Prometheus).contains(line));
        assert_eq!(metrics.statuses().len(), 1);
    }

    #[test]
    fn consumers_of_one_name_are_told_apart_by_stream_and_durable() {
        let metrics = Metrics::default();
        let elsewhere = Name { stream: "letters", ..NAME };
        let beside = Name { durable: "audit", ..NAME };
        let monitors = [NAME, elsewhere, beside].map(|name| metrics.declare(&name));
        monitors[1].note(Machine::starts);
        let labels: Vec<_> = metrics.statuses().into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, ["Orders", "letters.Orders", "orders.Orders"]);
        for (name, monitor) in [NAME, elsewhere, beside].iter().zip(&monitors) {
            assert!(Arc::ptr_eq(&metrics.monitor(name), monitor));
        }
    }

    #[test]
    fn a_durable_that_is_chosen_at_the_start_belongs_to_the_declared_consumer() {
        let metrics = Metrics::default();
        let declared = metrics.declare(&NAME);
        let started = metrics.monitor(&Name { durable: "another", ..NAME });
        assert!(Arc::ptr_eq(&declared, &started));
    }

    #[test]
    fn ready_is_told_as_of_now_or_with_the_grace() {
        let metrics = Metrics::default();
        let monitor = metrics.monitor(&NAME);
        let is_ready = |grace| {
            let text = metrics.text_with_grace(Format::OpenMetrics, Duration::from_secs(grace));
            text.contains("nats_consumer_ready{consumer=\"Orders\"} 1\n")
        };
        monitor.note(Machine::starts);
        assert!(!is_ready(3600));
        monitor.note(Machine::fetches);
        assert!(is_ready(0));
        monitor.note(|machine| machine.links(false, false));
        assert_eq!((is_ready(0), is_ready(3600)), (false, true));
    }

    #[test]
    fn a_look_at_the_numbers_is_noticed() {
        let metrics = Metrics::default();
        let monitor = metrics.monitor(&NAME);
        assert!(!monitor.meter.is_seen());
        let _ = metrics.text(Format::Prometheus);
        assert!(monitor.meter.is_seen());
    }
}
