//! Handlers that hold up their consumer: an event loop that does not run, or threads none of which gets free.
//!
//! It is noticed beside Python, which may be what stands still. Then the engine hands back what has not started and
//! takes nothing new, so that other workers handle it, until the consumer goes on. The line of log is put together by
//! the thread that carries the log, because it names the code that runs.

use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nats_consumer::{Consumption, Gatherer, Inbox};
use pyo3::prelude::*;
use tokio::time::sleep;
use tracing::info;

use crate::deliver::handler::Handler;
use crate::deliver::inbox::DeliveryQueue;
use crate::host::log;
use crate::host::runtime::end_at_once;
use crate::threads::lane::Held;
use crate::threads::{ConsumerLane, at_work};

const CONSUMER: &str = "nats_consumer::consumer";

/// How often it is looked whether a consumer goes on. What counts is looks and not the clock: a process that was frozen
/// has not held up anything itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The number of looks without progress that count as a stall, so that it is logged within ten seconds. No server or
/// client of NATS is patient for longer by default, and a loop that stands still for that long has missed every timer.
const STALL_LOOKS: u32 = 9;

/// The part of a consumer that has to make progress.
pub(crate) enum Watched {
    /// An event loop, and the thread that it runs in.
    Loop { queue: Arc<DeliveryQueue>, event_loop: Py<PyAny>, thread: u64 },
    /// The way of a consumer with `def` handlers to threads.
    Threads(Arc<ConsumerLane>),
}

/// A value that is another one when a consumer has made progress.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Looks(u64),
    Turns(Held),
}

/// A consumer, as the watch sees it.
pub(crate) struct Watch {
    pub(crate) engine: Weak<Consumption>,
    /// The place where deliveries wait, if the consumer handles batches.
    pub(crate) gatherer: Option<Arc<Gatherer>>,
    pub(crate) handler: Arc<Handler>,
    pub(crate) watched: Arc<Watched>,
    /// Blocking calls that outlived their `async def` handlers hold all threads that such calls have.
    pub(crate) is_held_by_calls: Arc<AtomicBool>,
}

/// Counts looks without progress.
#[derive(Debug)]
struct LookCount {
    looks: u32,
    most: u32,
}

/// The result of a look.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Nothing,
    Stall,
    /// The stall has ended; it lasted for this number of looks.
    End(u32),
}

impl LookCount {
    fn look(&mut self, goes_on: bool) -> Finding {
        if goes_on {
            let looks = std::mem::take(&mut self.looks);
            return if looks >= self.most { Finding::End(looks) } else { Finding::Nothing };
        }
        self.looks += 1;
        if self.looks == self.most { Finding::Stall } else { Finding::Nothing }
    }
}

impl Watch {
    /// Watches until nothing will come any more.
    pub(crate) async fn run(self) {
        let mut patience = LookCount { looks: 0, most: self.most_looks() };
        let mut seen = self.look().1;
        let mut was_held_by_calls = false;
        loop {
            sleep(LOOK_INTERVAL).await;
            let Some(engine) = self.engine.upgrade().filter(|_| !self.is_closed()) else { return };
            let is_held_by_calls = self.is_held_by_calls.load(Acquire);
            if is_held_by_calls && !was_held_by_calls {
                engine.suspend();
            } else if was_held_by_calls && !is_held_by_calls && patience.looks < patience.most {
                self.resume(&engine);
            }
            was_held_by_calls = is_held_by_calls;
            let (may_hold_up, progress) = self.look();
            let is_held_up = may_hold_up && (patience.looks >= patience.most || self.has_work(&engine));
            let goes_on = progress != seen || !is_held_up;
            seen = progress;
            match patience.look(goes_on) {
                Finding::Nothing => {}
                Finding::Stall => {
                    engine.suspend();
                    self.report(patience.most);
                }
                Finding::End(looks) => {
                    let seconds = (LOOK_INTERVAL * looks).as_secs();
                    info!(
                        target: CONSUMER,
                        consumer = self.handler.name,
                        "Taking messages again after a stall of {seconds} s."
                    );
                    if !is_held_by_calls {
                        self.resume(&engine);
                    }
                    if matches!(*self.watched, Watched::Threads(_)) {
                        // These handlers are slow and not stuck: it is said again if one takes much longer.
                        patience.most = patience.most.max(looks.saturating_mul(2));
                    }
                }
            }
        }
    }

    /// The number of looks without progress that count as a stall: more if `handler_timeout` allows handlers more time.
    fn most_looks(&self) -> u32 {
        match *self.watched {
            Watched::Loop { .. } => STALL_LOOKS,
            Watched::Threads(_) => {
                let limit = self.handler.timeout.map_or(0, |limit| limit.as_secs() + 1);
                u32::try_from(limit).unwrap_or(u32::MAX).max(STALL_LOOKS)
            }
        }
    }

    fn is_closed(&self) -> bool {
        match &*self.watched {
            Watched::Loop { queue, .. } => queue.is_closed(),
            Watched::Threads(lane) => lane.is_closed(),
        }
    }

    /// Whether nothing can start without progress, and the progress so far. A loop is asked to show that it runs.
    fn look(&self) -> (bool, Progress) {
        match &*self.watched {
            Watched::Loop { queue, .. } => {
                let looks = queue.wake().looks();
                queue.wake().signal();
                (true, Progress::Looks(looks))
            }
            Watched::Threads(lane) => {
                let (is_held, by) = lane.is_held();
                (is_held, Progress::Turns(by))
            }
        }
    }

    /// Whether anything waits for the handlers.
    fn has_work(&self, engine: &Consumption) -> bool {
        match &*self.watched {
            Watched::Loop { .. } => true,
            Watched::Threads(lane) => {
                let gathers = || self.gatherer.as_ref().is_some_and(|gatherer| gatherer.waiting() > 0);
                lane.has_unstarted() || gathers() || engine.has_backlog()
            }
        }
    }

    fn resume(&self, engine: &Consumption) {
        if engine.is_running() {
            engine.resume();
        }
    }

    fn report(&self, looks: u32) {
        let (handler, watched) = (self.handler.clone(), self.watched.clone());
        let engine = self.engine.clone();
        log::later(CONSUMER, move |py| {
            let stall = py.import("nats_consumer.lanes.stall")?;
            let arguments = (handler.name.as_str(), (LOOK_INTERVAL * looks).as_secs());
            match &*watched {
                Watched::Loop { event_loop, thread, .. } => {
                    let is_closed = event_loop.call_method0(py, "is_closed")?.is_truthy(py)?;
                    if let Some(engine) = engine.upgrade().filter(|_| is_closed) {
                        end_at_once(engine);
                    }
                    stall.call_method1("of_loop", (arguments, event_loop, thread))?.extract()
                }
                Watched::Threads(lane) => {
                    let running = at_work::by_age(py).into_iter();
                    let running: Vec<_> = running
                        .map(|work| {
                            let is_own = Arc::ptr_eq(&work.lane, lane);
                            let name =
                                work.lane.work.get().map(|it| it.handler.name.clone()).unwrap_or_default();
                            (name, is_own, work.message, work.thread)
                        })
                        .collect();
                    let is_full = matches!(lane.is_held(), (_, Held::ByOwn(_)));
                    stall.call_method1("of_threads", (arguments, running, is_full))?.extract()
                }
            }
        });
    }
}
