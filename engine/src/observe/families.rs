//! The one table of metrics: names, kinds, labels and what they mean. The documentation is compared with it.

/// The meaning of a series' cells, and how they are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number of events.
    Counter,
    /// Nanoseconds that add up, shown as seconds.
    Time,
    /// A number that rises and falls; not shown before it is known.
    Gauge,
    /// The moment when something began, shown as the seconds since.
    Age,
    /// The moment when something ends, shown as the seconds left.
    Left,
    /// The number of durations up to each bound, in seconds, and beyond the last one; then their sum in nanoseconds.
    Histogram(&'static [f64]),
    /// The words of a [status](crate::observe::Status), shown as one sample for each state.
    State,
    /// 1: what counts is the labels.
    Info,
}

/// A family of series that differ in their labels.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Family {
    /// Its name, without the suffixes that the formats add to samples.
    pub name: &'static str,
    /// The meaning of its cells.
    pub kind: Kind,
    /// The unit, which is the end of the name too; empty for a mere number.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text: the events that it counts, or the quantity that it measures.
    pub help: &'static str,
    number: usize,
}

impl Family {
    /// Its place in the table: what a page names it by, so the table only grows at its end.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// How many cells a series has.
    pub(crate) fn cells(&self) -> usize {
        match self.kind {
            Kind::Histogram(bounds) => bounds.len() + 2,
            Kind::State => STATUS_CELLS,
            _ => 1,
        }
    }

    /// The number of labels of a series: the label of each state is added where states are shown.
    pub(crate) fn own_labels(&self) -> usize {
        self.labels.len() - usize::from(self.kind == Kind::State)
    }

    #[cfg(any(test, feature = "http"))]
    /// Whether numbers of processes add up, and stay when a process has ended.
    pub(crate) fn adds_up(&self) -> bool {
        matches!(self.kind, Kind::Counter | Kind::Time | Kind::Histogram(_))
    }

    /// The value of a cell before anything is known.
    pub(crate) fn empty(&self) -> u64 {
        if self.kind == Kind::Gauge { f64::NAN.to_bits() } else { 0 }
    }

    /// The name of its samples, as a query has it; a histogram's have one more suffix.
    #[must_use]
    pub fn sample(&self) -> String {
        match self.kind {
            Kind::Counter | Kind::Time => format!("{}_total", self.name),
            Kind::Info => format!("{}_info", self.name),
            _ => self.name.to_owned(),
        }
    }
}

/// The words of a status: state, beginning, when it was ready for the last time, and 64 bytes of reason.
pub(crate) const STATUS_CELLS: usize = 3 + 8;

#[cfg(any(test, feature = "http"))]
/// The label of series that each process has for itself.
pub(crate) const WORKER_LABEL: &str = "worker";

/// How long handlers run, in seconds.
const RUNNING: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// How long messages wait, in seconds.
const WAITING: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// How long a process waits for itself, in seconds.
const HELD_UP: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

macro_rules! families {
    ($($constant:ident $name:literal $kind:ident $(($bounds:ident))? $unit:literal [$($label:literal),*] $help:literal;)+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { $($constant),+ }

        $(
            #[doc = $help]
            pub(crate) const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind $(($bounds))?,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                number: Number::$constant as usize,
            };
        )+

        /// Every family, in the order in which they are shown. A new one comes last.
        pub const FAMILIES: &[Family] = &[$($constant),+];
    };
}

families! {
    CONSUMER "nats_consumer" Info "" ["consumer", "stream", "durable", "kind"]
        "A consumer and what it consumes.";
    STATE "nats_consumer_state" State "" ["consumer", "state"]
        "1 for the state that the consumer is in, 0 for the others.";
    READY "nats_consumer_ready" Gauge "" ["consumer"]
        "Whether the consumer is ready, as /readyz sees it.";
    DELIVERIES "nats_consumer_deliveries" Counter "" ["consumer", "redelivered"]
        "Deliveries that arrived.";
    SETTLED "nats_consumer_settled" Counter "" ["consumer", "handler", "outcome"]
        "Deliveries that were settled, by outcome.";
    FAILURES "nats_consumer_failures" Counter "" ["consumer", "handler", "exception"]
        "Attempts that failed, by class of exception: 32 classes per consumer, then other.";
    EXHAUSTED "nats_consumer_exhausted" Counter "" ["consumer"]
        "Messages whose last attempt failed.";
    LATE "nats_consumer_late" Counter "" ["consumer"]
        "Attempts that ran longer than handler_timeout.";
    HANDLER_SECONDS "nats_consumer_handler_seconds" Histogram(RUNNING) "seconds" ["consumer", "handler"]
        "How long attempts ran.";
    QUEUE_SECONDS "nats_consumer_queue_seconds" Histogram(WAITING) "seconds" ["consumer"]
        "Time from when a message was stored until its first attempt began, by the clocks of server and worker.";
    IN_FLIGHT "nats_consumer_in_flight" Gauge "" ["consumer", "state"]
        "Deliveries in this process: waiting for a handler, running, or late beyond handler_timeout.";
    CONCURRENCY "nats_consumer_concurrency" Gauge "" ["consumer"]
        "How many handlers may run at once.";
    REPAIRS "nats_consumer_repairs" Counter "" ["consumer", "reason"]
        "How often consuming had stopped and was repaired.";
    RECONNECTS "nats_consumer_reconnects" Counter "" ["consumer"]
        "How often the connection was lost and made again.";
    PENDING "nats_consumer_pending" Gauge "" ["stream", "consumer"]
        "Messages that were never delivered.";
    ACK_PENDING "nats_consumer_ack_pending" Gauge "" ["stream", "consumer"]
        "Deliveries that are not settled, retries that wait included.";
    ACK_PENDING_LIMIT "nats_consumer_ack_pending_limit" Gauge "" ["stream", "consumer"]
        "How many deliveries may be unsettled: max_ack_pending of the durable. Absent without a limit.";
    REDELIVERED "nats_consumer_redelivered" Gauge "" ["stream", "consumer"]
        "Unsettled messages that were delivered more than once.";
    WAITING_REQUESTS "nats_consumer_waiting_requests" Gauge "" ["stream", "consumer"]
        "Pull requests of all workers that wait at the server.";
    OLDEST_SECONDS "nats_consumer_oldest_seconds" Age "seconds" ["stream", "consumer"]
        "Age of the oldest message that is not settled, 0 if there is none. Absent if it is not asked for.";
    PAUSED_SECONDS "nats_consumer_paused_seconds" Left "seconds" ["stream", "consumer"]
        "How long the durable is still paused, 0 if it is not.";
    LAG_AGE_SECONDS "nats_consumer_lag_age_seconds" Age "seconds" ["stream", "consumer"]
        "Time since the server last reported these numbers.";
    DEAD_LETTERS "nats_consumer_dead_letters" Gauge "" ["stream"]
        "Dead letters of the stream.";
    WORKER "nats_consumer_worker" Info "" ["worker", "pid", "version", "python", "django"]
        "A worker process.";
    HEARTBEAT_SECONDS "nats_consumer_worker_heartbeat_seconds" Age "seconds" ["worker"]
        "Time since the engine's runtime last reported.";
    GIL_WAIT_SECONDS "nats_consumer_gil_wait_seconds" Histogram(HELD_UP) "seconds" ["worker"]
        "Time that a thread waited for the GIL, measured twice a second.";
    GIL_STALL_SECONDS "nats_consumer_gil_stall_seconds" Age "seconds" ["worker"]
        "Time that a thread has waited for the GIL so far, 0 if none waits.";
    LOOP_LAG_SECONDS "nats_consumer_event_loop_lag_seconds" Histogram(HELD_UP) "seconds" ["worker"]
        "Delay of the event loop after a wake-up, measured at least twice a second. Consumers with async handlers only.";
    LOOP_STALL_SECONDS "nats_consumer_event_loop_stall_seconds" Gauge "seconds" ["worker"]
        "Current delay of the event loop after a wake-up, 0 if there is none.";
    LOG_DROPPED "nats_consumer_log_records_dropped" Counter "" ["worker"]
        "Log records of the engine that were dropped because Python did not take them.";
    MEMORY_BYTES "process_resident_memory_bytes" Gauge "bytes" ["worker"]
        "Resident memory.";
    CPU_SECONDS "process_cpu_seconds" Time "seconds" ["worker"]
        "CPU time of user and system.";
    OPEN_FDS "process_open_fds" Gauge "" ["worker"]
        "Open file descriptors.";
    START_SECONDS "process_start_time_seconds" Gauge "seconds" ["worker"]
        "When the process started, in seconds since 1970.";
    WORKERS "nats_consumer_workers" Gauge "" []
        "Worker processes that are ready.";
    WORKERS_WANTED "nats_consumer_workers_wanted" Gauge "" []
        "Worker processes that are configured.";
    WORKER_STARTS "nats_consumer_worker_starts" Counter "" ["reason"]
        "Worker processes that were started, by reason.";
    OUTBOX_ROWS "nats_consumer_outbox_rows" Gauge "" ["database"]
        "Rows of the outbox that wait to be published.";
    OUTBOX_OLDEST_SECONDS "nats_consumer_outbox_oldest_seconds" Age "seconds" ["database"]
        "Age of the oldest row of the outbox, 0 if there is none.";
    OUTBOX_STUCK "nats_consumer_outbox_stuck" Gauge "" ["database"]
        "Rows of the outbox that a stream has refused. All rows of their keys wait.";
    OUTBOX_PUBLISHED "nats_consumer_outbox_published" Counter "" ["database"]
        "Rows of the outbox that a stream has stored.";
    PUBLISHED "nats_consumer_published" Counter "" ["stream", "result"]
        "Messages that this process published, by result: 64 streams, then other. Without a confirmation, stream is empty.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_a_name_of_its_own_and_knows_its_place() {
        let names: std::collections::HashSet<_> = FAMILIES.iter().map(Family::sample).collect();
        assert_eq!(names.len(), FAMILIES.len());
        assert!(FAMILIES.iter().enumerate().all(|(number, family)| family.number() == number));
    }

    #[test]
    fn names_units_and_bounds_are_as_openmetrics_wants_them() {
        for family in FAMILIES {
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(family.name.chars().all(is_plain), "{}", family.name);
            assert!(family.name.ends_with(family.unit), "{}", family.name);
            assert!(!family.name.ends_with("_total") && !family.name.ends_with("_info"), "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
            if let Kind::Histogram(bounds) = family.kind {
                assert!(bounds.is_sorted(), "{}", family.name);
            }
        }
    }
}
