//! The parts of one consumption share its options, counters, places and connection.

pub(crate) mod places;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::config::{ConsumerOptions, Exhausted};
use crate::connect::Connection;
use crate::defect::Defect;
use crate::lock::lock;
use crate::message::{Consumer, Message};
use crate::observe::Counters;
use crate::outcome::Outcome;
use crate::shared::places::Places;

/// Handed back messages that are remembered; each that is forgotten may run as a suspect.
const MOST_RETURNED: usize = 10_000;

/// State that all parts of one consumption read or change.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Arc<ConsumerOptions>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) places: Places,
    pub(crate) defect: Defect,
    pub(crate) consumer: Arc<Consumer>,
    connection: Mutex<Connection>,
    runtime: tokio::runtime::Handle,
    is_over: AtomicBool,
    /// Whether nothing is to be taken for now.
    pub(crate) suspended: watch::Sender<bool>,
    /// How many messages waited at the server when it was asked last.
    pub(crate) backlog: AtomicU64,
    /// Stream sequences that this process handed back at or beyond their last attempt.
    returned: Mutex<HashSet<u64>>,
}

impl Shared {
    /// State of a consumption whose tasks run on the current tokio runtime.
    pub(crate) fn new(options: Arc<ConsumerOptions>, connection: Connection) -> Arc<Self> {
        let defect = Defect::default();
        let consumer = Consumer {
            name: options.name.clone(),
            max_attempts: options.retry.max_attempts(),
            stop: defect.stop(),
        };
        Arc::new(Self {
            options,
            counters: Arc::default(),
            places: Places::new(),
            defect,
            consumer: Arc::new(consumer),
            connection: Mutex::new(connection),
            runtime: tokio::runtime::Handle::current(),
            is_over: AtomicBool::new(false),
            suspended: watch::Sender::new(false),
            backlog: AtomicU64::new(0),
            returned: Mutex::default(),
        })
    }

    /// A task that ends the consumption if it panics.
    pub(crate) fn watched<T>(&self, task: T) -> impl Future<Output = ()> + Send + use<T>
    where
        T: Future<Output = ()> + Send,
    {
        self.defect.watch(&self.options.name, task)
    }

    /// Runs a [watched](Self::watched) task on the consumption's runtime, from any thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(self.watched(task));
    }

    /// The connection that the consumption uses now.
    pub(crate) fn connection(&self) -> Connection {
        lock(&self.connection).clone()
    }

    /// Replaces the connection.
    pub(crate) fn move_to(&self, connection: Connection) {
        *lock(&self.connection) = connection;
    }

    /// Whether the last settlements have been written.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Acquire)
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Release);
    }

    /// The last attempt that is ordinary; none is beyond it where the final word is NAK.
    pub(crate) fn last_attempt(&self) -> u64 {
        if self.options.exhausted == Exhausted::Retry { u64::MAX } else { self.options.retry.max_attempts() }
    }

    /// Notes that this process hands the message back although its attempts are used up.
    pub(crate) fn note_returned(&self, message: &Message) {
        let mut returned = lock(&self.returned);
        if returned.len() >= MOST_RETURNED {
            returned.clear();
        }
        returned.extend(message.metadata().map(|metadata| metadata.stream_sequence));
    }

    /// Whether this process handed the message back; asked once for each delivery.
    pub(crate) fn forget_returned(&self, message: &Message) -> bool {
        message.metadata().is_ok_and(|metadata| lock(&self.returned).remove(&metadata.stream_sequence))
    }

    /// The outcome that the options give a message whose attempts are used up.
    pub(crate) fn final_outcome(&self, reason: &str) -> Outcome {
        match self.options.exhausted {
            Exhausted::Ack => Outcome::Ack,
            Exhausted::Retry => Outcome::Retry { after: Some(self.options.retry.longest()) },
            Exhausted::Drop => Outcome::Drop { reason: reason.to_owned() },
            Exhausted::DeadLetter => Outcome::DeadLetter { reason: reason.to_owned() },
        }
    }
}
