//! The way to the handlers. One process has one gate for each consumption; while a suspect runs alone, all
//! of them are shut, so that nobody else can be what ended the process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{MutexGuard as Turn, Notify};
use tokio::time::timeout;

use crate::handle::Inbox;
use crate::handle::delivery::Delivery;
use crate::lock::{lock, lock_of_process};
use crate::shared::Shared;

/// How long all other deliveries wait for the running ones to end. Then they go on.
pub(super) const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

/// How long they wait if as many run as have outlasted an earlier wait: these may be others, which end soon.
const OUTLASTING_TIMEOUT: Duration = Duration::from_millis(100);

/// The way to the handlers of one consumption.
#[derive(Debug)]
pub(crate) struct Gate {
    process: Arc<ProcessGates>,
    inbox: Arc<dyn Inbox>,
    shared: Arc<Shared>,
    /// Deliveries that came while the gate was shut.
    aside: Mutex<Vec<Delivery>>,
    /// How many deliveries are in hand that no handler has: aside, or kept by somebody.
    kept: AtomicUsize,
    /// How many deliveries the handlers still had when the last wait for them was over.
    outlasting: AtomicUsize,
    changed: Notify,
}

/// State that the gates of a process share.
#[derive(Debug, Default)]
struct ProcessGates {
    is_shut: AtomicBool,
    turn: tokio::sync::Mutex<()>,
    gates: Mutex<Vec<Weak<Gate>>>,
}

impl ProcessGates {
    /// A forked child has gates of its own: the thread that shut its parent's does not exist in the child. If a thread of
    /// the parent held the lock at the fork, each consumption of the child has its own.
    fn of_this_process() -> Arc<Self> {
        static GATES: Mutex<Option<(u32, Arc<ProcessGates>)>> = Mutex::new(None);
        let pid = std::process::id();
        let Some(mut process) = lock_of_process(&GATES) else { return Arc::default() };
        match &*process {
            Some((owner, process)) if *owner == pid => process.clone(),
            _ => process.insert((pid, Arc::default())).1.clone(),
        }
    }

    fn gates(&self) -> Vec<Arc<Gate>> {
        let mut gates = lock(&self.gates);
        gates.retain(|gate| gate.strong_count() > 0);
        gates.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Gate {
    pub(crate) fn new(shared: Arc<Shared>, inbox: Arc<dyn Inbox>) -> Arc<Self> {
        let process = ProcessGates::of_this_process();
        let gate = Arc::new(Self {
            process: process.clone(),
            inbox,
            shared,
            aside: Mutex::default(),
            kept: AtomicUsize::new(0),
            outlasting: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        lock(&process.gates).push(Arc::downgrade(&gate));
        gate
    }

    /// Gives the deliveries to the handlers; while the gate is shut, they are put aside.
    pub(crate) fn put(&self, deliveries: &mut Vec<Delivery>) {
        if self.process.is_shut.load(SeqCst) {
            let mut aside = lock(&self.aside);
            // Again, or what is put aside while the gate opens would stay there.
            if self.process.is_shut.load(SeqCst) {
                self.keep(deliveries.len());
                aside.append(deliveries);
                return;
            }
        }
        self.inbox.put(deliveries);
    }

    /// How many deliveries no handler has started.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.waiting() + self.kept.load(SeqCst)
    }

    /// Gives back what no handler has started.
    pub(crate) fn recall(&self) -> Vec<Delivery> {
        let mut waiting = self.take_aside();
        waiting.append(&mut self.inbox.recall());
        waiting
    }

    /// Tells the handlers that deliveries come again after a recall.
    pub(crate) fn reopen(&self) {
        self.inbox.reopen();
    }

    /// Shuts all gates of the process, when it is this one's turn.
    pub(crate) async fn shut_all(&self) -> Shut<'_> {
        let turn = self.process.turn.lock().await;
        self.process.is_shut.store(true, SeqCst);
        Shut { process: &self.process, _turn: turn }
    }

    /// Gives a delivery to the handlers though the gate is shut.
    pub(crate) fn let_in(&self, delivery: Delivery) {
        self.inbox.put(&mut vec![delivery]);
    }

    /// Waits until the handlers have no more than this number of deliveries.
    async fn fallen_to(&self, count: usize) {
        let places = &self.shared.places;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let kept = self.kept.load(SeqCst);
            let is_quiet = places.held() <= kept + count;
            // An arrival takes its place before it is kept, so both are looked at as of one moment.
            if self.kept.load(SeqCst) != kept {
                continue;
            }
            if is_quiet {
                return;
            }
            tokio::select! {
                () = places.fallen_to(kept + count) => {}
                () = changed => {}
            }
        }
    }

    /// How many deliveries the handlers have; those that arrive at this moment may be among them.
    fn running(&self) -> usize {
        self.shared.places.held().saturating_sub(self.kept.load(SeqCst))
    }

    /// Keeps this number of deliveries from the handlers.
    pub(crate) fn keep(&self, count: usize) {
        self.kept.fetch_add(count, SeqCst);
        self.changed.notify_waiters();
    }

    /// Releases this number of them. Call it before they are settled or given to the handlers.
    pub(crate) fn let_go(&self, count: usize) {
        self.kept.fetch_sub(count, SeqCst);
    }

    fn take_aside(&self) -> Vec<Delivery> {
        let aside = std::mem::take(&mut *lock(&self.aside));
        self.let_go(aside.len());
        aside
    }
}

/// While it lives, all gates of the process are shut.
#[derive(Debug)]
pub(crate) struct Shut<'a> {
    process: &'a ProcessGates,
    _turn: Turn<'a, ()>,
}

impl Shut<'_> {
    /// Waits until no handler of the process has anything; returns whether that came about in time. Handlers that
    /// run for hours cost all others one long wait, not one for each suspect.
    pub(crate) async fn quiet(&self) -> bool {
        let gates = self.process.gates();
        let all_but_those = async {
            for gate in &gates {
                gate.fallen_to(gate.outlasting.load(SeqCst)).await;
            }
        };
        let all = async {
            for gate in &gates {
                gate.fallen_to(0).await;
            }
        };
        let is_quiet = timeout(QUIET_TIMEOUT, all_but_those).await.is_ok()
            && timeout(OUTLASTING_TIMEOUT, all).await.is_ok();
        for gate in &gates {
            gate.outlasting.store(if is_quiet { 0 } else { gate.running() }, SeqCst);
        }
        is_quiet
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.process.is_shut.store(false, SeqCst);
        for gate in self.process.gates() {
            let mut aside = gate.take_aside();
            if !aside.is_empty() {
                gate.inbox.put(&mut aside);
            }
        }
    }
}
