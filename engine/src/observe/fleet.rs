//! Several worker processes as one: their pages are added up, and the numbers of those that have ended are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::observe::expose::{Format, written};
use crate::observe::families::*;
use crate::observe::page::{Clock, Page, Reading, View, nanoseconds};
use crate::observe::report::Report;
use crate::observe::state::{ConsumerState, described};

/// The silence after which a process is taken to stand still.
pub(crate) const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// The states from the best to the worst.
const BEST_FIRST: [ConsumerState; 11] = [
    ConsumerState::Consuming,
    ConsumerState::Paused,
    ConsumerState::Binding,
    ConsumerState::Starting,
    ConsumerState::Draining,
    ConsumerState::Stopped,
    ConsumerState::Stuck,
    ConsumerState::Repairing,
    ConsumerState::Unreachable,
    ConsumerState::NoStream,
    ConsumerState::Denied,
];

/// Worker processes under one supervisor. Clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    /// The supervisor's own numbers.
    page: Page,
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    pages: Vec<WorkerPage>,
    ended: Sums,
    slots: Slots,
    /// When each consumer was ready for the last time in a worker that has ended or is about to, or 0.
    seen: BTreeMap<String, u64>,
    is_draining: bool,
}

struct WorkerPage {
    view: View,
    slot: usize,
    /// Whether another process has taken its place already.
    is_leaving: bool,
}

/// Places for worker processes.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    wanted: usize,
    filled: usize,
    /// When all were filled for the last time, if they were and are not.
    left: Option<Instant>,
}

/// The readiness of a consumer, or of the slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The consumer's name; `None` for the slots.
    pub(crate) consumer: Option<String>,
    pub(crate) is_ready: bool,
    pub(crate) text: String,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl Fleet {
    /// A supervisor without workers, which has this clock in common with them.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { page: Page::small(clock), workers: Mutex::default() }))
    }

    /// A worker of this slot is about to write this page.
    pub fn adopt(&self, view: View, slot: usize) {
        lock(&self.0.workers).pages.push(WorkerPage { view, slot, is_leaving: false });
    }

    /// Another worker has taken the place of the one with this page, which ends.
    pub fn note_leaving(&self, view: &View) {
        let workers = &mut *lock(&self.0.workers);
        for page in workers.pages.iter_mut().filter(|it| it.view.is(view)) {
            page.remember(&mut workers.seen);
            page.is_leaving = true;
        }
    }

    /// The worker with this page has ended. Its counters are kept, and the page may be used again.
    pub fn retire(&self, view: &View) {
        let mut workers = lock(&self.0.workers);
        let Some(at) = workers.pages.iter().position(|it| it.view.is(view)) else { return };
        let ended = workers.pages.remove(at);
        if !ended.is_leaving {
            ended.remember(&mut workers.seen);
        }
        for reading in ended.readings() {
            if reading.family.adds_up() {
                workers.ended.add(reading, 0);
            }
        }
        view.clear();
    }

    /// Sets the number of slots, and how many of them have a worker that is ready or being replaced.
    pub fn set_slots(&self, wanted: usize, filled: usize) {
        let page = &self.0.page;
        page.series(&WORKERS_WANTED, &[]).set(wanted as f64);
        page.series(&WORKERS, &[]).set(filled as f64);
        let slots = &mut lock(&self.0.workers).slots;
        slots.left = match (slots.is_filled(), filled >= wanted) {
            (_, true) => None,
            (true, false) => Some(Instant::now()),
            (false, false) => slots.left,
        };
        (slots.wanted, slots.filled) = (wanted, filled);
    }

    /// All workers drain, and none follows: nothing is ready from now on because it was until lately.
    pub fn note_drain(&self) {
        lock(&self.0.workers).is_draining = true;
    }

    /// Counts a start of a worker.
    pub fn note_start(&self, reason: &str) {
        self.0.page.series(&WORKER_STARTS, &[reason]).count();
    }

    /// Says that the supervisor goes on.
    pub fn beat(&self) {
        self.0.page.beat();
    }

    /// How long the supervisor has said nothing.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.0.page.silence()
    }

    /// Whether each consumer is ready in one worker at least, and each slot is filled.
    pub(crate) fn readiness(&self, grace: Duration) -> Vec<Readiness> {
        let mut workers = lock(&self.0.workers);
        let mut all = workers.consumers(self.0.page.now(), grace);
        all.push(workers.slots.readiness(grace));
        all
    }

    /// All numbers as text.
    pub(crate) fn text(&self, format: Format, grace: Duration) -> String {
        let own = self.0.page.view();
        let mut workers = lock(&self.0.workers);
        let mut sums = workers.ended.clone();
        own.readings().into_iter().for_each(|reading| sums.add(reading, 0));
        for page in &workers.pages {
            page.view.look();
            page.add_to(&mut sums);
        }
        let mut readings = sums.readings();
        for Readiness { consumer, is_ready, .. } in workers.consumers(own.now(), grace) {
            let labels = consumer.into_iter().collect();
            readings.push(Reading::gauge(&READY, labels, f64::from(u8::from(is_ready))));
        }
        drop(workers);
        written(&readings, own.now(), format)
    }
}

impl WorkerPage {
    /// Its series, under the number of its slot.
    fn readings(&self) -> Vec<Reading> {
        let mut readings = self.view.readings();
        for reading in &mut readings {
            let label = reading.family.labels.iter().position(|label| *label == WORKER_LABEL);
            if let Some(label) = label.and_then(|at| reading.labels.get_mut(at)) {
                *label = self.slot.to_string();
            }
        }
        readings
    }

    fn add_to(&self, sums: &mut Sums) {
        let readings = self.readings();
        let told: BTreeMap<_, _> = readings
            .iter()
            .filter(|reading| reading.family == &LAG_AGE_SECONDS)
            .map(|reading| (reading.labels.clone(), reading.cells[0]))
            .collect();
        for reading in readings {
            if self.is_leaving && reading.family.kind == Kind::State {
                continue;
            }
            let age = told.get(&reading.labels).copied().unwrap_or_default();
            sums.add(reading, age);
        }
    }

    fn reports(&self) -> Vec<(String, Report)> {
        let readings = self.view.readings();
        let report = |reading: &Reading| Some((reading.labels.first()?.clone(), Report::read(reading)?));
        readings.iter().filter_map(report).collect()
    }

    /// Keeps when its consumers were ready.
    fn remember(&self, seen: &mut BTreeMap<String, u64>) {
        let silence = self.view.silence().unwrap_or_default();
        let last_word = self.view.now().saturating_sub(nanoseconds(silence));
        for (name, report) in self.reports() {
            let last = seen.entry(name).or_default();
            *last = (*last).max(report.last_ready(last_word));
        }
    }

    fn stands_still(&self) -> bool {
        self.view.silence().is_none_or(|silence| silence > LONGEST_SILENCE)
    }
}

/// One worker, as its supervisor sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// Whether one consumer is ready.
    pub has_begun: bool,
    /// Consumers that are not ready.
    pub unready: Vec<String>,
    /// Deliveries that were settled.
    pub settled: u64,
    /// How long its runtime has said nothing; `None` before the first word.
    pub silence: Option<Duration>,
}

impl WorkerState {
    /// Of the worker that writes this page.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let readings = view.readings();
        let mut state = Self { silence: view.silence(), ..Self::default() };
        for reading in &readings {
            if reading.family == &SETTLED {
                state.settled += reading.cells[0];
            }
            match (Report::read(reading), reading.labels.first()) {
                (Some(report), _) if report.state.is_ready() => state.has_begun = true,
                (Some(_), Some(name)) => state.unready.push(name.clone()),
                _ => {}
            }
        }
        state
    }
}

impl Workers {
    /// The readiness of each consumer at this moment, over the workers that have not been replaced.
    fn consumers(&mut self, now: u64, grace: Duration) -> Vec<Readiness> {
        let mut consumers: Vec<(String, InWorkers)> = Vec::new();
        let mut has_begun = false;
        for page in self.pages.iter().filter(|page| !page.is_leaving) {
            let stands_still = page.stands_still();
            for (name, report) in page.reports() {
                has_begun |= report.state.is_ready();
                let is_ready = !stands_still && report.is_ready(now, grace);
                entry(&mut consumers, name).add(report, is_ready, now);
            }
        }
        if has_begun {
            // The code of this worker does not have the others any more.
            self.seen.retain(|name, _| consumers.iter().any(|(known, _)| known == name));
        }
        for (name, last) in &self.seen {
            let consumer = entry(&mut consumers, name.clone());
            consumer.last_ready = consumer.last_ready.max(*last);
        }
        let grace = if self.is_draining { Duration::ZERO } else { grace };
        let readiness = |(name, state): (_, InWorkers)| state.readiness(name, now, grace);
        consumers.into_iter().map(readiness).collect()
    }
}

fn entry(consumers: &mut Vec<(String, InWorkers)>, name: String) -> &mut InWorkers {
    let at = consumers.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
        consumers.push((name, InWorkers::default()));
        consumers.len() - 1
    });
    &mut consumers[at].1
}

/// One consumer in several workers.
#[derive(Debug, Default)]
struct InWorkers {
    ready: usize,
    all: usize,
    worst: Option<(Report, Duration)>,
    /// When it was ready for the last time in a worker where it is not, or 0.
    last_ready: u64,
}

impl InWorkers {
    fn add(&mut self, report: Report, is_ready: bool, now: u64) {
        self.all += 1;
        self.ready += usize::from(is_ready);
        if !is_ready {
            self.last_ready = self.last_ready.max(report.last_ready(0));
        }
        let worst = self.worst.as_ref().map(|(worst, _)| badness(worst.state));
        if worst.is_none_or(|worst| badness(report.state) > worst) {
            let age = report.age(now);
            self.worst = Some((report, age));
        }
    }

    /// It is ready in one worker, or was until lately: another worker follows one that ended.
    fn readiness(self, consumer: String, now: u64, grace: Duration) -> Readiness {
        let Self { ready, all, worst, last_ready } = self;
        let is_in_trouble =
            worst.as_ref().is_some_and(|(it, _)| !it.state.may_pass() && !it.state.is_ending());
        let was_lately = last_ready > 0 && now.saturating_sub(last_ready) < nanoseconds(grace);
        let state =
            worst.map_or_else(|| "not running".to_owned(), |(it, age)| described(it.state, &it.reason, age));
        let text = format!("{consumer} {state}, ready in {ready} of {all} workers");
        Readiness { consumer: Some(consumer), is_ready: ready > 0 || (was_lately && !is_in_trouble), text }
    }
}

impl Slots {
    fn is_filled(&self) -> bool {
        self.wanted > 0 && self.filled >= self.wanted
    }

    fn readiness(&self, grace: Duration) -> Readiness {
        let was_lately = self.left.is_some_and(|left| left.elapsed() < grace);
        let text = format!("{} of {} workers", self.filled, self.wanted);
        Readiness { consumer: None, is_ready: self.is_filled() || was_lately, text }
    }
}

fn badness(state: ConsumerState) -> usize {
    BEST_FIRST.iter().position(|each| *each == state).unwrap_or_default()
}

/// Series of several pages, as one.
#[derive(Clone, Default)]
struct Sums(BTreeMap<(usize, Vec<String>), Entry>);

#[derive(Clone)]
struct Entry {
    family: &'static Family,
    cells: Vec<u64>,
    /// Of two readings of which one is taken, the one with the higher rank is.
    rank: u64,
}

/// How readings of one series become one.
enum Merge {
    /// Their cells are added.
    Cells,
    /// The values of their gauges are added.
    Values,
    /// The one with the highest rank is taken; the later one of two.
    Rank(u64),
}

impl Sums {
    /// Adds a reading; `told` is when the server told it, by the page's clock.
    fn add(&mut self, reading: Reading, told: u64) {
        let merge = Merge::of(&reading, told);
        let Reading { family, labels, cells } = reading;
        let rank = if let Merge::Rank(rank) = merge { rank } else { 0 };
        let key = (family.number(), labels);
        let Some(entry) = self.0.get_mut(&key) else {
            self.0.insert(key, Entry { family, cells, rank });
            return;
        };
        match merge {
            Merge::Cells => {
                entry.cells.iter_mut().zip(cells).for_each(|(sum, cell)| *sum = sum.wrapping_add(cell));
            }
            Merge::Values => {
                let value = |cells: &[u64]| Some(f64::from_bits(cells[0])).filter(|it| !it.is_nan());
                if let Some(more) = value(&cells) {
                    entry.cells = vec![(value(&entry.cells).unwrap_or_default() + more).to_bits()];
                }
            }
            Merge::Rank(rank) if rank >= entry.rank => (entry.cells, entry.rank) = (cells, rank),
            Merge::Rank(_) => {}
        }
    }

    fn readings(self) -> Vec<Reading> {
        let reading =
            |((_, labels), entry): (_, Entry)| Reading { family: entry.family, labels, cells: entry.cells };
        self.0.into_iter().map(reading).collect()
    }
}

impl Merge {
    fn of(reading: &Reading, told: u64) -> Self {
        let family = reading.family;
        match family.kind {
            _ if family.adds_up() => Self::Cells,
            Kind::State => Self::Rank(Report::read(reading).map_or(0, |it| badness(it.state) as u64 + 1)),
            _ if family == &IN_FLIGHT || family == &CONCURRENCY => Self::Values,
            _ if !reading.is_known() => Self::Rank(0),
            // Numbers of the same stream at different moments; those that are not negative are ordered as their bits.
            _ if family == &DEAD_LETTERS => Self::Rank(reading.cells[0].saturating_add(1)),
            _ => Self::Rank(told.saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use crate::observe::meter::{InFlight, Lag, Meter, Name, Settled};
    use crate::observe::monitor::tests::NAME;
    use crate::observe::outbox::Outbox;
    use crate::observe::process::{Process, Versions};
    use crate::observe::state::Machine;

    use super::*;

    /// A worker of slot 0, with its page.
    struct Worker {
        page: Page,
        view: View,
        meter: Meter,
    }

    impl Worker {
        fn of(fleet: &Fleet, slot: usize) -> Self {
            let words: &'static [AtomicU64] = Box::leak((0..1 << 12).map(|_| AtomicU64::new(0)).collect());
            Self::in_memory(fleet, slot, words)
        }

        fn in_memory(fleet: &Fleet, slot: usize, words: &'static [AtomicU64]) -> Self {
            let view = View::over(words, clock);
            fleet.adopt(view.clone(), slot);
            let page = Page::over(words, clock);
            Process::new(&page, Versions::default()).beat();
            Self { meter: Meter::new(&page, &NAME), page, view }
        }

        fn is(&self, fact: fn(&mut Machine)) {
            self.is_after(&[fact]);
        }

        fn is_after(&self, facts: &[fn(&mut Machine)]) {
            let mut machine = Machine::new(Instant::now());
            machine.starts();
            for fact in facts {
                fact(&mut machine);
                machine.conclude(Instant::now());
            }
            self.meter.is_in(machine.status());
            self.page.beat();
        }
    }

    fn clock() -> u64 {
        crate::observe::page::own_clock()
    }

    fn fleet() -> Fleet {
        Fleet::new(clock)
    }

    fn value(fleet: &Fleet, series: &str) -> Option<f64> {
        let text = fleet.text(Format::Prometheus, Duration::ZERO);
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    const ACKS: &str = r#"nats_consumer_settled_total{consumer="Orders",handler="handle",outcome="ack"}"#;

    #[test]
    fn counters_add_up_and_stay_when_a_worker_has_ended() {
        let fleet = fleet();
        let workers = [Worker::of(&fleet, 0), Worker::of(&fleet, 1)];
        workers.iter().for_each(|worker| (0..3).for_each(|_| worker.meter.handler().settled(Settled::Ack)));
        workers.iter().for_each(|worker| worker.meter.handler().ran(5));
        assert_eq!(value(&fleet, ACKS), Some(6.0));
        fleet.retire(&workers[0].view);
        assert_eq!(value(&fleet, ACKS), Some(6.0));
        let runs = r#"nats_consumer_handler_seconds_count{consumer="Orders",handler="handle"}"#;
        assert_eq!(value(&fleet, runs), Some(2.0));
        fleet.retire(&workers[0].view);
        assert_eq!(value(&fleet, ACKS), Some(6.0), "once only");
    }

    #[test]
    fn a_page_that_is_used_again_counts_once() {
        let fleet = fleet();
        let words: &'static [AtomicU64] = Box::leak((0..1 << 12).map(|_| AtomicU64::new(0)).collect());
        let first = Worker::in_memory(&fleet, 0, words);
        first.meter.handler().settled(Settled::Ack);
        fleet.retire(&first.view);
        fleet.adopt(View::over(words, clock), 0);
        assert_eq!(value(&fleet, ACKS), Some(1.0), "before the next one writes");
        fleet.retire(&first.view);
        let second = Worker::in_memory(&fleet, 0, words);
        second.meter.handler().settled(Settled::Ack);
        assert_eq!(value(&fleet, ACKS), Some(2.0));
    }

    #[test]
    fn gauges_of_an_ended_worker_are_gone() {
        let fleet = fleet();
        let workers = [Worker::of(&fleet, 0), Worker::of(&fleet, 1)];
        workers.iter().for_each(|it| it.meter.holds(InFlight { waiting: 0, running: 2, late: 0 }));
        let running = r#"nats_consumer_in_flight{consumer="Orders",state="running"}"#;
        let places = r#"nats_consumer_concurrency{consumer="Orders"}"#;
        assert_eq!((value(&fleet, running), value(&fleet, places)), (Some(4.0), Some(8.0)));
        fleet.retire(&workers[1].view);
        assert_eq!((value(&fleet, running), value(&fleet, places)), (Some(2.0), Some(4.0)));
        let info = |slot: u8| format!(r#"nats_consumer_worker_heartbeat_seconds{{worker="{slot}"}}"#);
        assert!(value(&fleet, &info(0)).is_some() && value(&fleet, &info(1)).is_none());
    }

    #[test]
    fn of_the_lag_the_newest_reading_counts() {
        let fleet = fleet();
        let workers = [Worker::of(&fleet, 0), Worker::of(&fleet, 1), Worker::of(&fleet, 2)];
        let lags = |at: usize, pending| workers[at].meter.lags(Lag { pending, ..Lag::default() }, None);
        lags(1, 10);
        lags(0, 20);
        assert_eq!(value(&fleet, r#"nats_consumer_pending{stream="orders",consumer="Orders"}"#), Some(20.0));
    }

    #[test]
    fn of_an_outbox_the_worker_that_relays_it_knows_the_rows() {
        let fleet = fleet();
        let workers = [Worker::of(&fleet, 0), Worker::of(&fleet, 1), Worker::of(&fleet, 2)];
        let outboxes = workers.each_ref().map(|it| Outbox::new(&it.page, "default"));
        let shown = |family: &Family| value(&fleet, &format!(r#"{}{{database="default"}}"#, family.sample()));
        outboxes[0].set(9, Some(Duration::from_millis(500)), 1);
        outboxes[0].forget();
        outboxes[1].set(3, Some(Duration::from_millis(500)), 1);
        outboxes.iter().for_each(|it| it.count_published(5));
        assert_eq!((shown(&OUTBOX_ROWS), shown(&OUTBOX_STUCK)), (Some(3.0), Some(1.0)));
        assert!(shown(&OUTBOX_OLDEST_SECONDS).is_some_and(|age| age >= 0.5));
        assert_eq!(shown(&OUTBOX_PUBLISHED), Some(15.0));
        outboxes[1].set(0, None, 0);
        assert_eq!(shown(&OUTBOX_OLDEST_SECONDS), Some(0.0));
        outboxes[1].forget();
        assert_eq!((shown(&OUTBOX_ROWS), shown(&OUTBOX_OLDEST_SECONDS)), (None, None));
    }

    #[test]
    fn a_consumer_is_ready_if_it_is_in_one_worker_and_the_worst_state_is_shown() {
        let fleet = fleet();
        let workers = [Worker::of(&fleet, 0), Worker::of(&fleet, 1)];
        fleet.set_slots(2, 2);
        workers[0].is(Machine::fetches);
        workers[1].is(|it| it.meets((ConsumerState::NoStream, "the stream does not exist")));
        let all = fleet.readiness(Duration::ZERO);
        assert!(all.iter().all(|it| it.is_ready), "{all:?}");
        assert!(all[0].text.starts_with("Orders no stream: the stream does not exist (0 s)"), "{all:?}");
        assert!(all[0].text.ends_with("ready in 1 of 2 workers"));
        let state = |state: &str| format!(r#"nats_consumer_state{{consumer="Orders",state="{state}"}}"#);
        assert_eq!(value(&fleet, &state("no_stream")), Some(1.0));
        assert_eq!(value(&fleet, r#"nats_consumer_ready{consumer="Orders"}"#), Some(1.0));
        fleet.retire(&workers[0].view);
        assert!(!fleet.readiness(Duration::from_secs(3600))[0].is_ready);
    }

    #[test]
    fn a_worker_that_is_being_replaced_says_nothing_about_readiness() {
        let fleet = fleet();
        let workers = [Worker::of(&fleet, 0), Worker::of(&fleet, 0)];
        workers[0].is(Machine::drains);
        workers[1].is(Machine::fetches);
        fleet.note_leaving(&workers[0].view);
        assert!(fleet.readiness(Duration::ZERO)[0].text.starts_with("Orders consuming"));
        assert_eq!(value(&fleet, r#"nats_consumer_state{consumer="Orders",state="draining"}"#), Some(0.0));
    }

    #[test]
    fn a_consumer_whose_only_worker_is_gone_is_ready_for_the_grace_and_stays_in_the_metrics() {
        let fleet = fleet();
        let hour = Duration::from_secs(3600);
        let readiness = |grace| fleet.readiness(grace).remove(0);
        let worker = Worker::of(&fleet, 0);
        worker.is(Machine::fetches);
        fleet.retire(&worker.view);
        let gone = readiness(hour);
        assert_eq!((gone.is_ready, &*gone.text), (true, "Orders not running, ready in 0 of 0 workers"));
        assert!(!readiness(Duration::ZERO).is_ready);
        assert_eq!(value(&fleet, r#"nats_consumer_ready{consumer="Orders"}"#), Some(0.0));
        let next = Worker::of(&fleet, 0);
        next.is(|_| ());
        let starting = readiness(hour);
        assert!(starting.is_ready && starting.text.ends_with("ready in 0 of 1 workers"), "{starting:?}");
        next.is(|it| it.meets((ConsumerState::NoStream, "the stream does not exist")));
        assert!(!readiness(hour).is_ready, "trouble has no grace");
    }

    #[test]
    fn a_worker_that_drains_before_the_next_one_starts_has_the_grace_unless_all_drain() {
        let fleet = fleet();
        let hour = Duration::from_secs(3600);
        let worker = Worker::of(&fleet, 0);
        worker.is(Machine::fetches);
        worker.is_after(&[Machine::fetches, Machine::drains]);
        assert!(fleet.readiness(hour)[0].is_ready);
        assert!(!fleet.readiness(Duration::ZERO)[0].is_ready);
        fleet.note_drain();
        assert!(!fleet.readiness(hour)[0].is_ready);
        fleet.retire(&worker.view);
        assert!(!fleet.readiness(hour)[0].is_ready);
    }

    #[test]
    fn a_consumer_that_new_code_does_not_have_is_forgotten() {
        let fleet = fleet();
        let old = Worker::of(&fleet, 0);
        let removed = Name { consumer: "Removed", ..NAME };
        Meter::new(&old.page, &removed).is_in(Machine::new(Instant::now()).status());
        old.is(Machine::fetches);
        fleet.retire(&old.view);
        let names = || -> Vec<_> {
            fleet.readiness(Duration::ZERO).into_iter().filter_map(|it| it.consumer).collect()
        };
        assert_eq!(names(), ["Orders", "Removed"]);
        Worker::of(&fleet, 0).is(Machine::fetches);
        assert_eq!(names(), ["Orders"]);
    }

    #[test]
    fn empty_slots_are_not_ready_but_for_the_grace() {
        let fleet = fleet();
        let is_ready = |grace| fleet.readiness(Duration::from_secs(grace))[0].is_ready;
        fleet.set_slots(2, 0);
        assert!(!is_ready(3600), "they were never filled");
        fleet.set_slots(2, 2);
        assert!(is_ready(0));
        fleet.set_slots(2, 1);
        assert_eq!((is_ready(0), is_ready(3600)), (false, true));
        assert_eq!(value(&fleet, "nats_consumer_workers"), Some(1.0));
        assert_eq!(value(&fleet, "nats_consumer_workers_wanted"), Some(2.0));
    }

    #[test]
    fn a_supervisor_sees_who_is_ready_and_what_was_settled() {
        let fleet = fleet();
        let worker = Worker::of(&fleet, 0);
        worker.is(|_| ());
        let state = WorkerState::of(&worker.view);
        assert_eq!((state.has_begun, &state.unready[..]), (false, &["Orders".to_owned()][..]));
        worker.is(Machine::fetches);
        worker.meter.handler().settled(Settled::Ack);
        worker.meter.handler().settled(Settled::Drop);
        let state = WorkerState::of(&worker.view);
        assert_eq!((state.has_begun, state.unready.len(), state.settled), (true, 0, 2));
        assert!(state.silence.is_some());
        fleet.retire(&worker.view);
        assert_eq!(WorkerState::of(&worker.view), WorkerState::default());
    }

    #[test]
    fn starts_are_counted_by_reason() {
        let fleet = fleet();
        ["first", "first", "crash"].iter().for_each(|reason| fleet.note_start(reason));
        assert_eq!(value(&fleet, r#"nats_consumer_worker_starts_total{reason="first"}"#), Some(2.0));
    }
}
