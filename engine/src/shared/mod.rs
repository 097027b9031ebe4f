//! The parts of one consumption share its options, counters, places and connection.

pub(crate) mod places;
mod returned;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::{ConsumerOptions, Exhausted};
use crate::connect::Connection;
use crate::defect::Defect;
use crate::lock::lock;
use crate::message::{Consumer, Message};
use crate::observe::meter::{Meter, Repair};
use crate::observe::state::Machine;
use crate::observe::{Counters, Monitor};
use crate::shared::places::Places;
use crate::shared::returned::Returned;

/// State that all parts of one consumption read or change.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Arc<ConsumerOptions>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) places: Places,
    /// Messages arrived.
    pub(crate) arrived: Notify,
    pub(crate) defect: Defect,
    pub(crate) consumer: Arc<Consumer>,
    connection: watch::Sender<Connection>,
    runtime: tokio::runtime::Handle,
    is_over: AtomicBool,
    /// Whether nothing is to be taken for now.
    pub(crate) suspended: watch::Sender<bool>,
    /// Places of handlers that outlast their delivery.
    pub(crate) late: AtomicUsize,
    /// Whether what is lost with a connection would hold up what follows: the server allows no more beside it.
    pub(crate) runs_short: AtomicBool,
    /// How many messages waited at the server when it was asked last.
    pub(crate) backlog: AtomicU64,
    returned: Mutex<Returned>,
    without_marks_until: Mutex<Option<Instant>>,
}

impl Shared {
    /// State of a consumption whose tasks run on the current tokio runtime.
    pub(crate) fn new(
        options: Arc<ConsumerOptions>,
        connection: Connection,
        monitor: Arc<Monitor>,
    ) -> Arc<Self> {
        let defect = Defect::default();
        let consumer = Consumer {
            name: options.name.clone(),
            max_attempts: options.retry.max_attempts(),
            stop: defect.stop(),
        };
        Arc::new(Self {
            options,
            counters: Arc::default(),
            monitor,
            places: Places::new(),
            arrived: Notify::new(),
            defect,
            consumer: Arc::new(consumer),
            connection: watch::Sender::new(connection),
            runtime: tokio::runtime::Handle::current(),
            is_over: AtomicBool::new(false),
            runs_short: AtomicBool::new(false),
            suspended: watch::Sender::new(false),
            late: AtomicUsize::new(0),
            backlog: AtomicU64::new(0),
            returned: Mutex::default(),
            without_marks_until: Mutex::default(),
        })
    }

    /// A task that ends the consumption if it panics.
    pub(crate) fn watched<T>(&self, task: T) -> impl Future<Output = ()> + Send + use<T>
    where
        T: Future<Output = ()> + Send,
    {
        let watched = self.defect.watch(&self.options.name, task);
        let (defect, monitor) = (self.defect.clone(), self.monitor.clone());
        async move {
            watched.await;
            if defect.is_found() {
                monitor.note(Machine::ends);
            }
        }
    }

    /// Runs a [watched](Self::watched) task on the consumption's runtime, from any thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(self.watched(task));
    }

    /// The connection that the consumption uses now.
    pub(crate) fn connection(&self) -> Connection {
        self.connection.borrow().clone()
    }

    /// The connection that the consumption uses, and each that replaces it.
    pub(crate) fn connections(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    /// Replaces the connection.
    pub(crate) fn move_to(&self, connection: Connection) {
        self.connection.send_replace(connection);
    }

    /// Takes note of whether the link is up, also that of a connection that replaces another one.
    pub(crate) async fn follow_link(&self) -> Infallible {
        let mut connections = self.connections();
        loop {
            let mut link = connections.borrow_and_update().link();
            let following = async {
                loop {
                    let now = link.borrow_and_update().clone();
                    self.monitor.note(|machine| machine.links(now.is_up, now.is_refused));
                    if link.changed().await.is_err() {
                        self.monitor.note(|machine| machine.links(false, false));
                        std::future::pending::<Infallible>().await;
                    }
                }
            };
            tokio::select! {
                never = following => match never {},
                // The sender is part of `self`.
                _ = connections.changed() => {}
            }
        }
    }

    /// Whether the last settlements have been written.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Acquire)
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Release);
    }

    /// The numbers of the consumer.
    pub(crate) fn meter(&self) -> &Meter {
        &self.monitor.meter
    }

    /// Counts repairs.
    pub(crate) fn note_repairs(&self, reason: Repair, times: u64) {
        self.counters.repairs.fetch_add(times, Relaxed);
        self.meter().repaired(reason, times);
    }

    /// The last attempt that is ordinary; none is beyond it where the final word is NAK.
    pub(crate) fn last_attempt(&self) -> u64 {
        if self.options.exhausted == Exhausted::Retry { u64::MAX } else { self.options.retry.max_attempts() }
    }

    /// Notes that this process hands the message back at this attempt although its attempts are used up.
    pub(crate) fn note_returned(&self, message: &Message, attempt: u64) {
        if let Ok(metadata) = message.metadata() {
            lock(&self.returned).note(metadata.stream_sequence, attempt);
        }
    }

    /// Whether this process handed the message back at the attempt before; asked once for each delivery.
    pub(crate) fn forget_returned(&self, message: &Message, attempt: u64) -> bool {
        message
            .metadata()
            .is_ok_and(|metadata| lock(&self.returned).forget(metadata.stream_sequence, attempt))
    }

    /// Whether no mark is tried now, because one could not be kept.
    pub(crate) fn is_without_marks(&self) -> bool {
        lock(&self.without_marks_until).is_some_and(|until| Instant::now() < until)
    }

    /// From now on, no mark is tried for this time.
    pub(crate) fn do_without_marks(&self, time: Duration) {
        *lock(&self.without_marks_until) = Some(Instant::now() + time);
    }
}
