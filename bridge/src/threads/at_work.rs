//! The messages that threads work on, to be named when no thread gets free.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use pyo3::prelude::*;

use crate::deliver::message::Message;
use crate::host::lock::lock;
use crate::host::process::PerProcess;
use crate::threads::{ConsumerLane, Visit};

/// All threads of the process that serve.
static DESKS: PerProcess<Mutex<Vec<Arc<Desk>>>> = PerProcess::new();

fn desks() -> MutexGuard<'static, Vec<Arc<Desk>>> {
    lock(DESKS.get_or(Mutex::default))
}

/// The message that a thread works on.
pub(crate) struct Desk {
    /// The number by which Python knows the thread.
    thread: u64,
    work: Mutex<Option<AtWork>>,
}

/// A message that a handler has.
pub(crate) struct AtWork {
    pub(crate) began: Instant,
    pub(crate) lane: Arc<ConsumerLane>,
    pub(crate) message: Py<Message>,
    pub(crate) thread: u64,
    /// The name of the thread meanwhile.
    name: Arc<str>,
    /// Whether the handler ran late, and this is only the report about it.
    pub(crate) is_report: bool,
}

impl AtWork {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        let (lane, name, message) = (self.lane.clone(), self.name.clone(), self.message.clone_ref(py));
        Self { lane, name, message, ..*self }
    }
}

impl Desk {
    /// A desk for a thread.
    pub(crate) fn new(thread: u64) -> Arc<Self> {
        let desk = Arc::new(Self { thread, work: Mutex::default() });
        desks().push(desk.clone());
        desk
    }

    /// The thread has ended.
    pub(crate) fn clear(self: &Arc<Self>) {
        desks().retain(|each| !Arc::ptr_eq(each, self));
    }

    /// A handler of the thread begins, or the report about one that ran late.
    pub(crate) fn begin(&self, py: Python<'_>, visit: &Visit, message: &Py<Message>, is_report: bool) {
        let (lane, name) = (visit.lane.clone(), visit.name.clone());
        let (began, thread, message) = (Instant::now(), self.thread, message.clone_ref(py));
        let work = AtWork { began, lane, message, thread, name, is_report };
        let before = lock(&self.work).replace(work);
        drop(before);
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        let ended = lock(&self.work).take();
        drop(ended);
    }
}

/// The messages that all handlers have; what began first comes first.
pub(crate) fn by_age(py: Python<'_>) -> Vec<AtWork> {
    let desks = desks().clone();
    let at_work = |desk: &Arc<Desk>| lock(&desk.work).as_ref().map(|work| work.clone_ref(py));
    let mut all: Vec<_> = desks.iter().filter_map(at_work).filter(|work| !work.is_report).collect();
    all.sort_by_key(|work| work.began);
    all
}

/// The names of the threads that work for the lane.
pub(crate) fn names_of(lane: &Arc<ConsumerLane>) -> Vec<String> {
    let desks = desks().clone();
    let name = |desk: &Arc<Desk>| {
        let work = lock(&desk.work);
        work.as_ref().filter(|work| Arc::ptr_eq(&work.lane, lane)).map(|work| work.name.to_string())
    };
    desks.iter().filter_map(name).collect()
}
