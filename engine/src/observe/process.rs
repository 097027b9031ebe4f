//! The numbers of the process: what it uses, whether it goes on, and what holds it up.

use std::fs;
use std::time::Duration;

use crate::observe::families::*;
use crate::observe::meter::Durations;
use crate::observe::page::{Moment, Page, Series, nanoseconds};

/// The only worker of a process that was started by hand.
const WORKER_NUMBER: &str = "0";

/// Ticks a second in which Linux counts the time of processes, on every platform that we build for.
const TICKS: u64 = 100;

/// The versions of what runs in the process.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Versions<'a> {
    pub python: &'a str,
    pub django: &'a str,
}

/// The numbers of this process that its page has.
#[derive(Debug)]
pub(crate) struct Process {
    page: Page,
    heartbeat: Series,
    memory: Series,
    cpu: Series,
    fds: Series,
    start: Series,
}

impl Process {
    pub(crate) fn new(page: &Page, versions: Versions<'_>) -> Self {
        let pid = std::process::id().to_string();
        let labels = [WORKER_NUMBER, &pid, env!("CARGO_PKG_VERSION"), versions.python, versions.django];
        page.series(&WORKER, &labels);
        let series = |family: &Family| page.series(family, &[WORKER_NUMBER]);
        Self {
            page: page.clone(),
            heartbeat: series(&HEARTBEAT_SECONDS),
            memory: series(&MEMORY_BYTES),
            cpu: series(&CPU_SECONDS),
            fds: series(&OPEN_FDS),
            start: series(&START_SECONDS),
        }
    }

    /// Says that the engine's runtime goes on. If another process reads the numbers, it looks what this one uses.
    pub(crate) fn beat(&self) {
        self.page.beat();
        self.heartbeat.set_moment(self.page.ago(Duration::ZERO));
        if self.page.is_shared() && self.page.is_seen() {
            self.look();
        }
    }

    /// Looks at what the process uses; what the system does not tell stays as it was.
    pub(crate) fn look(&self) {
        let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        if let Some(bytes) = resident(&read("status")) {
            self.memory.set(bytes as f64);
        }
        if let Some((ticks, started)) = times(&read("stat")) {
            let nanoseconds = ticks.saturating_mul(1_000_000_000 / TICKS);
            self.cpu.raise_to(nanoseconds);
            if let Some(boot) = boot(&fs::read_to_string("/proc/stat").unwrap_or_default()) {
                self.start.set(boot as f64 + started as f64 / TICKS as f64);
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Without the one that lists them.
            self.fds.set(files.count().saturating_sub(1) as f64);
        }
    }
}

/// The resident memory in bytes, as `/proc/self/status` has it.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The ticks that the process ran, and those from the boot until its start, as `/proc/self/stat` has them.
fn times(stat: &str) -> Option<(u64, u64)> {
    // The name of the program comes first, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
    Some((number(11)? + number(12)?, number(19)?))
}

/// When the machine started, in seconds since 1970, as `/proc/stat` has it.
fn boot(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Numbers that only the program around the engine can measure.
#[derive(Debug)]
pub struct Host {
    page: Page,
    /// How long a thread waited for the interpreter.
    pub interpreter_wait: Durations,
    interpreter_stall: Series,
    /// How long the event loop took to look.
    pub loop_lag: Durations,
    loop_stall: Series,
    log_dropped: Series,
}

impl Host {
    /// In this page.
    #[must_use]
    pub fn new(page: &Page) -> Self {
        let series = |family: &Family| page.series(family, &[WORKER_NUMBER]);
        let durations = |family: &Family| Durations::new(page, family, &[WORKER_NUMBER]);
        let host = Self {
            page: page.clone(),
            interpreter_wait: durations(&GIL_WAIT_SECONDS),
            interpreter_stall: series(&GIL_STALL_SECONDS),
            loop_lag: durations(&LOOP_LAG_SECONDS),
            loop_stall: series(&LOOP_STALL_SECONDS),
            log_dropped: series(&LOG_DROPPED),
        };
        host.has_interpreter();
        host.loop_stands_for(Duration::ZERO);
        host
    }

    /// A thread begins to wait for the interpreter.
    pub fn wants_interpreter(&self) {
        self.interpreter_stall.set_moment(self.page.ago(Duration::ZERO));
    }

    /// The thread has it.
    pub fn has_interpreter(&self) {
        self.interpreter_stall.set_moment(Moment::None);
    }

    /// Sets how long the event loop has not looked.
    pub fn loop_stands_for(&self, time: Duration) {
        self.loop_stall.set(nanoseconds(time) as f64 / 1e9);
    }

    /// A log record was dropped.
    pub fn dropped_record(&self) {
        self.log_dropped.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_tells_of_a_process() {
        assert_eq!(resident("Name:\tpython\nVmRSS:\t   1024 kB\nThreads:\t3\n"), Some(1024 * 1024));
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 12345 1 1 1";
        assert_eq!(times(stat), Some((300, 12345)));
        assert_eq!(boot("cpu 1 2\nbtime 1764000000\n"), Some(1_764_000_000));
    }

    #[test]
    fn what_is_not_told_is_nothing() {
        assert_eq!((resident(""), times(""), boot("")), (None, None, None));
        assert_eq!(times("42 (a) S 1"), None);
    }

    #[test]
    fn a_process_has_used_something() {
        let page = Page::default();
        let process = Process::new(&page, Versions::default());
        process.look();
        let readings = page.view().readings();
        let memory = readings.iter().find(|it| it.family.name == MEMORY_BYTES.name).unwrap();
        assert!(f64::from_bits(memory.cells[0]) > 100_000.0);
    }
}
