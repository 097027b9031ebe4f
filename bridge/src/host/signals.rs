//! Signals, heard beside Python: its own handlers run only between two steps of its main thread, which a
//! handler may hold up for as long as it likes.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;

use nats_consumer::Consumption;
use pyo3::prelude::*;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::host::lock::lock;
use crate::host::runtime::runtime;
use crate::host::seconds::seconds;

/// How long a worker may take beyond the grace of its handlers: to hand back, to disconnect, and to end its threads. With
/// the last drain, five seconds.
const ENDING: Duration = Duration::from_millis(4500);

/// How long Python may take to end the process itself at a second signal.
const SECOND_SIGNAL: Duration = Duration::from_secs(1);

/// How long the last settlements may take to be written before the process ends.
const LAST_DRAIN: Duration = Duration::from_millis(500);

static RUNNING: Mutex<Vec<Weak<Consumption>>> = Mutex::new(Vec::new());

/// Whether a signal has stopped the consumptions.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// The consumption stops taking messages at a signal.
pub(crate) fn follow(consumption: &Arc<Consumption>) {
    let mut running = lock(&RUNNING);
    running.retain(|each| each.strong_count() > 0);
    running.push(Arc::downgrade(consumption));
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
}

#[pymethods]
impl SignalWatch {
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
    let _guard = runtime().enter();
    let signals: Vec<_> = numbers
        .iter()
        .map(|number| Ok((*number, signal(SignalKind::from_raw(*number))?)))
        .collect::<PyResult<_>>()?;
    let watching = watch(Heard(signals), grace, same);
    let task = runtime().spawn(watching).abort_handle();
    Ok(SignalWatch { pid: std::process::id(), task })
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.task.abort();
        }
    }
}

/// At this signal, each consumption writes to stderr what it does. Python need not move for it.
#[pyfunction]
pub(crate) fn describe_at(number: i32) -> PyResult<()> {
    let _guard = runtime().enter();
    let mut signal = signal(SignalKind::from_raw(number))?;
    runtime().spawn(async move {
        while signal.recv().await.is_some() {
            for line in running().iter().flat_map(|consumption| consumption.describe()) {
                eprintln!("nats_consumer: {line}");
            }
        }
    });
    Ok(())
}

struct Heard(Vec<(i32, Signal)>);

impl Heard {
    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            let heard = self
                .0
                .iter_mut()
                .find_map(|(number, signal)| signal.poll_recv(context).is_ready().then_some(*number));
            heard.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The number of the next signal that is another request. A process manager often signals the process and then its
    /// group, milliseconds apart: one request.
    async fn another(&mut self, same: Duration) -> i32 {
        sleep(same).await;
        while timeout(Duration::ZERO, self.next()).await.is_ok() {}
        self.next().await
    }
}

async fn watch(mut heard: Heard, grace: Duration, same: Duration) {
    let mut first = heard.next().await;
    IS_STOPPED.store(true, Relaxed);
    for consumption in running() {
        tokio::spawn(async move { consumption.stop_taking().await });
    }
    let again = async {
        let mut number = heard.another(same).await;
        if first == libc::SIGHUP && number != libc::SIGHUP {
            // It was to begin again, and now it is to end: this is the first request for that.
            first = number;
            number = heard.another(same).await;
        }
        sleep(SECOND_SIGNAL).await;
        128 + number
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
    lock(&RUNNING).iter().filter_map(Weak::upgrade).collect()
}

/// Not through Python's logging, which may be what does not go on.
fn say(waited: Duration) {
    eprintln!(
        "nats_consumer: the process did not end within {waited:?} after the signal, so it ends now. Messages whose \
         handlers still run come again."
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
