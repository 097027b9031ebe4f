//! The metrics of one consumer: made when it is declared, so that counting is one addition to a cell.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{self, ConsumerOptions};
use crate::lock::lock;
use crate::observe::families::*;
use crate::observe::page::{Moment, Page, Series, nanoseconds};
use crate::observe::report::Report;
use crate::observe::state::Status;

/// Classes of exceptions that are told apart for one consumer.
const MOST_EXCEPTIONS: usize = 32;

/// The name of all other classes.
const OTHER: &str = "other";

/// A consumer, as its metrics name it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Name<'a> {
    pub consumer: &'a str,
    pub stream: &'a str,
    pub durable: &'a str,
    pub kind: &'a str,
    /// The handler of its messages.
    pub handler: &'a str,
    pub concurrency: usize,
}

impl<'a> Name<'a> {
    /// Of the consumer with these options, whose messages `handler` handles.
    #[must_use]
    pub fn of(options: &'a ConsumerOptions, handler: &'a str) -> Self {
        Self {
            consumer: &options.name,
            stream: &options.stream,
            durable: &options.durable,
            kind: match options.kind {
                config::Kind::Pull => "pull",
                config::Kind::Push => "push",
            },
            handler,
            concurrency: options.concurrency,
        }
    }
}

/// The end of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Ack,
    Retry,
    DeadLetter,
    Drop,
    HandedBack,
}

impl Settled {
    const NAMES: [&str; 5] = ["ack", "retry", "dead_letter", "drop", "handed_back"];
}

/// Why consuming was repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// The connection was lost and made again.
    Reconnecting,
    /// A request for messages was lost or refused.
    Request,
    Gone,
    Silent,
    Closed,
    Refused,
    Denied,
}

impl Repair {
    const NAMES: [&str; 7] = ["reconnecting", "request", "gone", "silent", "closed", "refused", "denied"];
}

/// The deliveries of one consumer in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) late: usize,
}

/// A durable's numbers at the server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lag {
    pub(crate) pending: u64,
    pub(crate) ack_pending: i64,
    pub(crate) ack_pending_limit: i64,
    pub(crate) redelivered: i64,
    pub(crate) waiting_requests: i64,
}

#[derive(Debug)]
struct Histogram {
    series: Series,
    /// In nanoseconds.
    bounds: Vec<u64>,
}

impl Histogram {
    fn new(page: &Page, family: &Family, labels: &[&str]) -> Self {
        let Kind::Histogram(bounds) = family.kind else { unreachable!("{} is not a histogram", family.name) };
        let bounds = bounds.iter().map(|bound| nanoseconds(Duration::from_secs_f64(*bound))).collect();
        Self { series: page.series(family, labels), bounds }
    }

    fn observe(&self, nanoseconds: u64) {
        let bucket = self.bounds.iter().position(|bound| nanoseconds <= *bound);
        self.series.cell(bucket.unwrap_or(self.bounds.len())).fetch_add(1, Relaxed);
        self.series.cell(self.bounds.len() + 1).fetch_add(nanoseconds, Relaxed);
    }

    /// The number of durations, and their sum in nanoseconds.
    fn so_far(&self) -> (u64, u64) {
        let cell = |number| self.series.cell(number).load(Relaxed);
        ((0..=self.bounds.len()).map(cell).sum(), cell(self.bounds.len() + 1))
    }
}

/// A histogram of durations that is not one of a consumer.
#[derive(Debug)]
pub struct Durations(Histogram);

impl Durations {
    pub(crate) fn new(page: &Page, family: &Family, labels: &[&str]) -> Self {
        Self(Histogram::new(page, family, labels))
    }

    /// One more of them.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(nanoseconds(duration));
    }
}

/// The metrics of one handler of a consumer.
#[derive(Debug)]
pub(crate) struct HandlerMeter {
    page: Page,
    consumer: String,
    name: String,
    settled: [Series; 5],
    seconds: Histogram,
    failures: Mutex<HashMap<String, Series>>,
    /// The classes of exceptions that are told apart, of all handlers of the consumer.
    exceptions: Arc<Mutex<HashSet<String>>>,
}

impl HandlerMeter {
    fn new(page: &Page, consumer: &str, name: &str, exceptions: &Arc<Mutex<HashSet<String>>>) -> Self {
        Self {
            page: page.clone(),
            consumer: consumer.to_owned(),
            name: name.to_owned(),
            settled: Settled::NAMES.map(|outcome| page.series(&SETTLED, &[consumer, name, outcome])),
            seconds: Histogram::new(page, &HANDLER_SECONDS, &[consumer, name]),
            failures: Mutex::default(),
            exceptions: exceptions.clone(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Counts the nanoseconds that an attempt ran.
    pub(crate) fn ran(&self, nanoseconds: u64) {
        self.seconds.observe(nanoseconds);
    }

    pub(crate) fn settled(&self, outcome: Settled) {
        self.settled[outcome as usize].count();
    }

    /// An attempt failed with an exception of this class.
    pub(crate) fn failed(&self, class: &str) {
        let mut failures = lock(&self.failures);
        if let Some(series) = failures.get(class) {
            return series.count();
        }
        let shown = if self.tells_apart(class) { class } else { OTHER };
        let series = self.page.series(&FAILURES, &[&self.consumer, &self.name, shown]);
        series.count();
        // Classes without limit would fill the memory.
        if shown == class {
            failures.insert(class.to_owned(), series);
        }
    }

    fn tells_apart(&self, class: &str) -> bool {
        let mut exceptions = lock(&self.exceptions);
        let is_known = exceptions.contains(class);
        is_known || (exceptions.len() < MOST_EXCEPTIONS && exceptions.insert(class.to_owned()))
    }
}

/// The metrics of one consumer.
#[derive(Debug)]
pub(crate) struct Meter {
    page: Page,
    consumer: String,
    stream: String,
    /// The beginning of its clock.
    base: Instant,
    first_deliveries: Series,
    redeliveries: Series,
    /// Of the consumer itself; then of the methods that it routes messages to.
    handlers: Mutex<Vec<Arc<HandlerMeter>>>,
    handler: Arc<HandlerMeter>,
    exceptions: Arc<Mutex<HashSet<String>>>,
    exhausted: Series,
    late: Series,
    queue_seconds: Histogram,
    in_flight: [Series; 3],
    repairs: [Series; 7],
    reconnects: Series,
    state: Series,
    lag: [Series; 5],
    oldest: Series,
    paused: Series,
    lag_age: Series,
}

impl Meter {
    /// The metrics of a consumer, in this page.
    pub(crate) fn new(page: &Page, name: &Name<'_>) -> Self {
        let Name { consumer, stream, durable, kind, handler, concurrency } = *name;
        page.series(&CONSUMER, &[consumer, stream, durable, kind]);
        page.series(&CONCURRENCY, &[consumer]).set(concurrency as f64);
        let of_consumer = |family: &Family| page.series(family, &[consumer]);
        let at_server = |family: &Family| page.series(family, &[stream, consumer]);
        let exceptions = Arc::default();
        let handler = Arc::new(HandlerMeter::new(page, consumer, handler, &exceptions));
        Self {
            page: page.clone(),
            consumer: consumer.to_owned(),
            stream: stream.to_owned(),
            base: Instant::now(),
            first_deliveries: page.series(&DELIVERIES, &[consumer, "false"]),
            redeliveries: page.series(&DELIVERIES, &[consumer, "true"]),
            handlers: Mutex::new(vec![handler.clone()]),
            handler,
            exceptions,
            exhausted: of_consumer(&EXHAUSTED),
            late: of_consumer(&LATE),
            queue_seconds: Histogram::new(page, &QUEUE_SECONDS, &[consumer]),
            in_flight: ["waiting", "running", "late"]
                .map(|state| page.series(&IN_FLIGHT, &[consumer, state])),
            repairs: Repair::NAMES.map(|reason| page.series(&REPAIRS, &[consumer, reason])),
            reconnects: of_consumer(&RECONNECTS),
            state: of_consumer(&STATE),
            lag: [&PENDING, &ACK_PENDING, &ACK_PENDING_LIMIT, &REDELIVERED, &WAITING_REQUESTS].map(at_server),
            oldest: at_server(&OLDEST_SECONDS),
            paused: at_server(&PAUSED_SECONDS),
            lag_age: at_server(&LAG_AGE_SECONDS),
        }
    }

    /// The moment on the clock of the times below, in nanoseconds; never 0.
    pub(crate) fn clock(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.base)).max(1)
    }

    /// Counts deliveries that arrived, and how many of them had been delivered before.
    pub(crate) fn arrived(&self, deliveries: u64, again: u64) {
        self.first_deliveries.add(deliveries - again);
        if again > 0 {
            self.redeliveries.add(again);
        }
    }

    /// Counts the nanoseconds from when a message was stored until its first attempt began.
    pub(crate) fn queued(&self, nanoseconds: u64) {
        self.queue_seconds.observe(nanoseconds);
    }

    /// The metrics of the consumer's own handler.
    pub(crate) fn handler(&self) -> &Arc<HandlerMeter> {
        &self.handler
    }

    /// The metrics of the method of this name.
    pub(crate) fn method(&self, name: &str) -> Arc<HandlerMeter> {
        let mut handlers = lock(&self.handlers);
        if let Some(found) = handlers.iter().find(|it| it.name == name) {
            return found.clone();
        }
        let made = Arc::new(HandlerMeter::new(&self.page, &self.consumer, name, &self.exceptions));
        handlers.push(made.clone());
        made
    }

    /// How many attempts ended, and the nanoseconds that they ran together.
    pub(crate) fn ran_so_far(&self) -> (u64, u64) {
        let handlers = lock(&self.handlers);
        let each = handlers.iter().map(|it| it.seconds.so_far());
        each.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1.wrapping_add(each.1)))
    }

    pub(crate) fn exhausted(&self) {
        self.exhausted.count();
    }

    pub(crate) fn ran_late(&self) {
        self.late.count();
    }

    pub(crate) fn repaired(&self, reason: Repair, times: u64) {
        self.repairs[reason as usize].add(times);
        if reason == Repair::Reconnecting {
            self.reconnects.add(times);
        }
    }

    pub(crate) fn holds(&self, in_flight: InFlight) {
        let InFlight { waiting, running, late } = in_flight;
        let counts = [waiting, running, late];
        self.in_flight.iter().zip(counts).for_each(|(series, count)| series.set(count as f64));
    }

    /// The consumer is in this state.
    pub(crate) fn is_in(&self, status: &Status) {
        self.state.set_all(&Report::of(status, &self.page).words());
    }

    /// The server told this now.
    pub(crate) fn lags(&self, lag: Lag, paused_for: Option<Duration>) {
        let limit = if lag.ack_pending_limit > 0 { lag.ack_pending_limit as f64 } else { f64::NAN };
        let numbers = [
            lag.pending as f64,
            lag.ack_pending as f64,
            limit,
            lag.redelivered as f64,
            lag.waiting_requests as f64,
        ];
        self.lag.iter().zip(numbers).for_each(|(series, number)| series.set(number));
        self.paused.set_moment(paused_for.map_or(Moment::None, |left| self.page.ahead(left)));
        self.lag_age.set_moment(self.page.ago(Duration::ZERO));
    }

    /// The age of the oldest message that is not settled; `Unknown` where nobody asks.
    pub(crate) fn oldest(&self, age: Oldest) {
        self.oldest.set_moment(match age {
            Oldest::Unknown => Moment::Unknown,
            Oldest::None => Moment::None,
            Oldest::Is(age) => self.page.ago(age),
        });
    }

    /// How many dead letters the stream has.
    pub(crate) fn dead_letters(&self, count: u64) {
        self.page.series(&DEAD_LETTERS, &[&self.stream]).set(count as f64);
    }

    /// Whether somebody looks at the metrics.
    pub(crate) fn is_seen(&self) -> bool {
        self.page.is_seen()
    }

    /// When somebody looked at the metrics last, as a word that differs from look to look.
    pub(crate) fn last_look(&self) -> u64 {
        self.page.last_look()
    }
}

/// The oldest message that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oldest {
    Unknown,
    None,
    Is(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name<'_> = Name {
        consumer: "Orders",
        stream: "orders",
        durable: "billing",
        kind: "pull",
        handler: "handle_message",
        concurrency: 4,
    };

    fn meter() -> Meter {
        Meter::new(&Page::default(), &NAME)
    }

    /// The values of the family's series, with their last label.
    fn values(meter: &Meter, family: &Family) -> Vec<(String, u64)> {
        let readings = meter.page.view().readings();
        let of_family = readings.into_iter().filter(|reading| reading.family.name == family.name);
        of_family.map(|reading| (reading.labels.last().unwrap().clone(), reading.cells[0])).collect()
    }

    #[test]
    fn every_series_of_a_declared_consumer_is_there_before_its_first_message() {
        let meter = meter();
        let before = meter.page.view().readings().len();
        meter.arrived(3, 1);
        meter.handler().settled(Settled::Ack);
        meter.handler().ran(5);
        meter.repaired(Repair::Silent, 1);
        assert_eq!(meter.page.view().readings().len(), before);
        assert_eq!(values(&meter, &DELIVERIES), [("false".into(), 2), ("true".into(), 1)]);
    }

    #[test]
    fn classes_of_exceptions_beyond_the_bound_are_one() {
        let meter = meter();
        for number in 0..100 {
            meter.handler().failed(&format!("Error{number}"));
        }
        meter.handler().failed("Error0");
        meter.handler().failed("Error99");
        let failures = values(&meter, &FAILURES);
        assert_eq!(failures.len(), MOST_EXCEPTIONS + 1);
        assert_eq!(failures[0], ("Error0".into(), 2));
        assert_eq!(failures[MOST_EXCEPTIONS], (OTHER.into(), 69));
    }

    #[test]
    fn classes_of_exceptions_are_bounded_for_all_methods_together() {
        let meter = meter();
        for number in 0..100 {
            meter.method(&format!("handle_{}", number % 4)).failed(&format!("Error{number}"));
        }
        meter.method("handle_1").failed("Error0");
        let failures = values(&meter, &FAILURES);
        assert_eq!(failures.iter().filter(|(class, _)| class == "Error0").count(), 2);
        assert_eq!(
            failures.iter().filter(|(class, _)| class == OTHER).map(|(_, count)| count).sum::<u64>(),
            68
        );
    }

    #[test]
    fn a_method_counts_for_itself_and_its_time_for_the_consumer() {
        let meter = meter();
        meter.handler().ran(5);
        meter.method("handle_paid").ran(7);
        meter.method("handle_paid").settled(Settled::Ack);
        let settled = |method: &str| {
            let readings = meter.page.view().readings();
            let labels = ["Orders", method, "ack"].map(str::to_owned);
            readings
                .into_iter()
                .find(|it| it.family.name == SETTLED.name && it.labels == labels)
                .map(|it| it.cells[0])
        };
        assert_eq!(
            (settled("handle_paid"), settled("handle_message"), settled("handle_sent")),
            (Some(1), Some(0), None)
        );
        assert_eq!(meter.ran_so_far(), (2, 12));
    }

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_it_fits() {
        let meter = meter();
        [0, 1_000_000, 1_000_001, u64::MAX / 2]
            .into_iter()
            .for_each(|duration| meter.handler().ran(duration));
        let readings = meter.page.view().readings();
        let cells = &readings.iter().find(|it| it.family.name == HANDLER_SECONDS.name).unwrap().cells;
        assert_eq!((cells[0], cells[1], cells[15]), (2, 1, 1));
        assert_eq!(meter.ran_so_far(), (4, 2_000_001 + u64::MAX / 2));
    }

    #[test]
    fn a_reconnect_is_a_repair_too() {
        let meter = meter();
        meter.repaired(Repair::Reconnecting, 2);
        assert_eq!(values(&meter, &RECONNECTS)[0].1, 2);
        assert_eq!(values(&meter, &REPAIRS)[0], ("reconnecting".into(), 2));
    }
}
