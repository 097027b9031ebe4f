//! Signals, heard beside Python: its own handlers run only between two steps of its main thread, which a
//! handler may hold up for as long as it likes.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use nats_consumer::Consumption;
use pyo3::prelude::*;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::host::hear::{Listener, hear, stand_before};
use crate::host::lock::lock;
use crate::host::process::PerProcess;
use crate::host::runtime::runtime;
use crate::host::seconds::seconds;

/// How long a worker may take beyond the grace of its handlers: to hand back, to disconnect, and to end its threads. With
/// the last drain and half a second for a busy machine, five seconds.
const ENDING: Duration = Duration::from_secs(4);

/// How long Python may take to end the process itself at a second signal.
const SECOND_SIGNAL: Duration = Duration::from_secs(1);

/// How long the last settlements may take to be written before the process ends.
const LAST_DRAIN: Duration = Duration::from_millis(500);

/// Whether a signal has stopped the consumptions.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// The consumption stops taking messages at a signal.
pub(crate) fn follow(consumption: &Arc<Consumption>) {
    let mut followed = followed();
    followed.retain(|each| each.strong_count() > 0);
    followed.push(Arc::downgrade(consumption));
}

fn followed() -> MutexGuard<'static, Vec<Weak<Consumption>>> {
    static FOLLOWED: PerProcess<Mutex<Vec<Weak<Consumption>>>> = PerProcess::new();
    lock(FOLLOWED.get_or(Mutex::default))
}

/// Whether a signal was heard: another one would end running handlers.
pub(crate) fn is_stopped() -> bool {
    IS_STOPPED.load(Relaxed)
}

/// Hears signals until it is ended.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct SignalWatch {
    pid: u32,
    task: AbortHandle,
    has_drained: Arc<AtomicBool>,
}

#[pymethods]
impl SignalWatch {
    /// Everything is drained: from now on another signal ends the process with status 0.
    fn drained(&self) {
        self.has_drained.store(true, Release);
    }

    /// Hears these signals also after Python has set other handlers for them, which still run.
    #[staticmethod]
    fn hear_again(numbers: Vec<i32>) -> PyResult<()> {
        Ok(numbers.into_iter().try_for_each(stand_before)?)
    }

    /// Makes the engine ignore the signals from now on.
    fn end(&self) {
        self.task.abort();
    }
}

/// From the first of these signals on, all consumers take nothing new and hand back what has not started, and the
/// process ends within `grace` and five seconds, whatever Python does. To be called after Python's own handlers are
/// set: they run too.
#[pyfunction]
pub(crate) fn watch_signals(numbers: Vec<i32>, grace: f64, same: f64) -> PyResult<SignalWatch> {
    let (grace, same) = (seconds("grace", grace)?, seconds("same", same)?);
    IS_STOPPED.store(false, Relaxed);
    let has_drained = Arc::new(AtomicBool::new(false));
    let task = runtime().spawn(watch(hear(numbers)?, grace, same, has_drained.clone())).abort_handle();
    Ok(SignalWatch { pid: std::process::id(), task, has_drained })
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        // That of a process which exits lasts until its end.
        let is_lasting = self.has_drained.load(Acquire);
        if self.pid == std::process::id() && !is_lasting {
            self.task.abort();
        }
    }
}

/// At this signal, each consumption writes to stderr what it does. Python need not move for it.
#[pyfunction]
pub(crate) fn describe_at(number: i32) -> PyResult<()> {
    static DESCRIBING: PerProcess<Mutex<Option<AbortHandle>>> = PerProcess::new();
    let mut signals = hear(vec![number])?;
    let describing = runtime().spawn(async move {
        loop {
            signals.next().await;
            describe();
        }
    });
    let before = lock(DESCRIBING.get_or(Mutex::default)).replace(describing.abort_handle());
    if let Some(before) = before {
        before.abort();
    }
    Ok(())
}

/// One write, so that several workers that share a stderr do not write into each other's lines.
fn describe() {
    let pid = std::process::id();
    let lines: Vec<String> = running()
        .iter()
        .flat_map(|consumption| consumption.describe())
        .map(|line| format!("nats_consumer {pid}: {line}\n"))
        .collect();
    // An error says that nobody reads it.
    let _ = std::io::stderr().write_all(lines.concat().as_bytes());
}

impl Listener {
    /// The number of the next signal that is another request. A process manager often signals the process and then its
    /// group, milliseconds apart: one request.
    async fn another(&mut self, same: Duration) -> i32 {
        sleep(same).await;
        while timeout(Duration::ZERO, self.next()).await.is_ok() {}
        self.next().await
    }
}

async fn watch(mut signals: Listener, grace: Duration, same: Duration, has_drained: Arc<AtomicBool>) {
    let mut first = signals.next().await;
    IS_STOPPED.store(true, Relaxed);
    for consumption in running() {
        tokio::spawn(async move { consumption.stop_taking().await });
    }
    let again = async {
        let mut number = signals.another(same).await;
        if first == libc::SIGHUP && number != libc::SIGHUP {
            // It was to begin again, and now it is to end: this is the first request for that.
            first = number;
            number = signals.another(same).await;
        }
        sleep(SECOND_SIGNAL).await;
        if has_drained.load(Acquire) { 0 } else { 128 + number }
    };
    let status = timeout(grace + ENDING, again).await;
    if status.is_err() {
        say(grace + ENDING);
        let drains = running().into_iter().map(|each| async move { each.drain(Duration::ZERO).await });
        let _ = timeout(LAST_DRAIN, futures_util::future::join_all(drains)).await;
    }
    // After SIGHUP it was to start again, which the process manager does for a process that failed.
    exit(status.unwrap_or(i32::from(first == libc::SIGHUP)));
}

fn running() -> Vec<Arc<Consumption>> {
    followed().iter().filter_map(Weak::upgrade).collect()
}

/// Not through Python's logging, which may be what does not go on.
fn say(waited: Duration) {
    eprintln!(
        "nats_consumer: the process did not end within {waited:?} after the signal, so it ends now. Messages whose \
         handlers still run are delivered again."
    );
}

#[allow(
    unsafe_code,
    reason = "the standard library's exit runs functions that may wait for the thread that hangs"
)]
fn exit(status: i32) -> ! {
    // SAFETY: it does not return, and runs no code of ours.
    unsafe { libc::_exit(status) }
}
