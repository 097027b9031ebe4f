//! Subscriptions: what comes is kept until somebody takes it, up to a limit.
//!
//! A task moves messages out of async-nats at once, because async-nats drops what overflows without a word.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use async_nats::{Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::connect::{Connection, ConnectionEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::status::{answer_flow_control, flow_control, is_status};
use crate::lock::lock;
use crate::message::Message;
use crate::route::{Pattern, PatternError, validate_publish_subject};

mod ordered;

pub use ordered::{Ordered, subscribe_in_order};

/// Messages moved at once.
const BURST: usize = 1024;

/// Statuses kept apart; of more, the oldest go.
const STATUSES: usize = 64;

/// A subscription to make, and the limits of its queue.
#[derive(Clone, Debug)]
pub struct Interest {
    /// A subject or a pattern.
    pub subject: String,
    /// The queue group, of which one member gets each message.
    pub queue: Option<String>,
    /// Messages that may wait; more are dropped.
    pub max_messages: usize,
    /// Bytes of payloads that may wait; more are dropped.
    pub max_bytes: usize,
    /// Treatment of status messages.
    pub statuses: Statuses,
}

/// Treatment of status messages, which the server sends with a status instead of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// Messages like others.
    Included,
    /// Kept apart, for the caller that asked for messages.
    Apart,
    /// Flow control of a push consumer is answered, after every message before it was taken.
    Answered,
}

/// An open subscription. Dropping the last clone ends it.
#[derive(Clone, Debug)]
pub struct Subscription {
    buffer: Arc<Buffer>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    End,
    EndAfter(u64),
    Drain,
}

#[derive(Debug)]
struct Buffer {
    interest: Interest,
    connection: Connection,
    runtime: Handle,
    waiting: Mutex<Buffered>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Buffered {
    messages: VecDeque<Message>,
    statuses: Vec<Message>,
    bytes: usize,
    received: u64,
    is_full: bool,
    has_ended: bool,
    failure: Option<Arc<Error>>,
    /// The server's consumer behind an ordered subscription.
    consumer: Option<String>,
    /// Flow control to answer: after how many messages were taken, and to which subject.
    flow: Option<(u64, Subject)>,
}

/// Subscribes.
///
/// # Errors
/// [`ErrorKind::Invalid`] for an invalid subject, [`ErrorKind::Closed`].
pub async fn subscribe(connection: &Connection, interest: Interest) -> Result<Subscription> {
    let unfit = |error: PatternError| Error::new(ErrorKind::Invalid, error.to_string());
    Pattern::parse(&interest.subject).map_err(unfit)?;
    interest.queue.as_deref().map_or(Ok(()), validate_publish_subject).map_err(unfit)?;
    let client = connection.client();
    let subject = interest.subject.clone();
    let subscriber = match interest.queue.clone() {
        Some(queue) => client.queue_subscribe(subject, queue).await,
        None => client.subscribe(subject).await,
    };
    let subscriber = subscriber.map_err(|error| {
        let kind = match error.kind() {
            async_nats::client::SubscribeErrorKind::Other => ErrorKind::Closed,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, format!("Cannot subscribe to the subject {:?}: {error}.", interest.subject))
            .because(error)
    })?;
    let (orders, listening) = mpsc::unbounded_channel();
    let buffer = Arc::new(Buffer::new(connection, interest));
    tokio::spawn(keep(subscriber, listening, buffer.clone()));
    Ok(Subscription { buffer, orders })
}

impl Subscription {
    /// Waits until there is something to take, or nothing will come any more.
    pub async fn ready(&self) {
        let mut changes = self.changes();
        while !self.is_ready() && changes.changed().await.is_ok() {}
    }

    /// Whether there is something to take, or nothing will come any more.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let waiting = self.buffer.waiting();
        waiting.has_ended || !waiting.messages.is_empty()
    }

    /// Up to `most` of the messages that wait.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<Message> {
        let mut waiting = self.buffer.waiting();
        let count = most.min(waiting.messages.len());
        let taken: Vec<Message> = waiting.messages.drain(..count).collect();
        waiting.bytes -= taken.iter().map(|message| message.payload().len()).sum::<usize>();
        let was_full = std::mem::take(&mut waiting.is_full);
        self.buffer.answer(&mut waiting);
        drop(waiting);
        if was_full {
            self.buffer.changes.send_replace(());
        }
        taken
    }

    /// Ends the subscription: at once, or after `after` messages since it was made.
    pub fn unsubscribe(&self, after: Option<u64>) {
        // A task that is gone has ended it already.
        let _ = self.orders.send(after.map_or(Order::End, Order::EndAfter));
        if after.is_none() {
            self.buffer.end();
        }
    }

    /// Takes nothing new; what has arrived can still be taken.
    pub fn drain(&self) {
        let _ = self.orders.send(Order::Drain);
    }

    /// Whether nothing will come any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.buffer.waiting().has_ended
    }

    /// How many messages wait, and the bytes of their payloads.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        let waiting = self.buffer.waiting();
        (waiting.messages.len(), waiting.bytes)
    }

    /// How many messages have come so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.buffer.waiting().received
    }

    /// Why it ended, where that was neither asked for nor the end of the connection.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.buffer.waiting().failure.clone()
    }

    /// The server's consumer behind an ordered subscription, which changes.
    #[must_use]
    pub fn consumer(&self) -> Option<String> {
        self.buffer.waiting().consumer.clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.buffer.changes.subscribe()
    }

    /// Takes the `wanted` ones of the statuses that were kept apart.
    pub(crate) fn take_statuses(&self, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut waiting = self.buffer.waiting();
        let (taken, left) = waiting.statuses.drain(..).partition(wanted);
        waiting.statuses = left;
        taken
    }
}

impl Buffered {
    fn push(&mut self, message: Message) {
        self.bytes += message.payload().len();
        self.received += 1;
        self.messages.push_back(message);
    }
}

impl Buffer {
    fn new(connection: &Connection, interest: Interest) -> Self {
        Self {
            interest,
            connection: connection.clone(),
            runtime: Handle::current(),
            waiting: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Buffered> {
        lock(&self.waiting)
    }

    fn end(&self) {
        self.waiting().has_ended = true;
        self.changes.send_replace(());
    }

    fn put(&self, arrived: impl Iterator<Item = async_nats::Message>) {
        let mut waiting = self.waiting();
        for message in arrived {
            self.connection.counted().received(message.payload.len());
            match (is_status(&message), self.interest.statuses) {
                (false, _) | (true, Statuses::Included) => self.put_one(&mut waiting, Message::new(message)),
                (true, Statuses::Apart) => put_apart(&mut waiting.statuses, Message::new(message)),
                (true, Statuses::Answered) => self.put_status(&mut waiting, &message),
            }
        }
        drop(waiting);
        self.changes.send_replace(());
    }

    fn put_one(&self, waiting: &mut Buffered, message: Message) {
        if !self.has_room(waiting, &message) {
            // Said once, until there is room again.
            if !std::mem::replace(&mut waiting.is_full, true) {
                self.connection.emit(ConnectionEvent::SlowConsumer(self.interest.subject.clone()));
            }
            return;
        }
        waiting.push(message);
    }

    fn has_room(&self, waiting: &Buffered, message: &Message) -> bool {
        let bytes = waiting.bytes + message.payload().len();
        waiting.messages.len() < self.interest.max_messages && bytes <= self.interest.max_bytes
    }

    fn put_status(&self, waiting: &mut Buffered, status: &async_nats::Message) {
        if let Some(subject) = flow_control(status) {
            waiting.flow = Some((waiting.received, subject));
            self.answer(waiting);
        }
    }

    fn answer(&self, waiting: &mut Buffered) {
        let taken = waiting.received - waiting.messages.len() as u64;
        if waiting.flow.as_ref().is_some_and(|(position, _)| taken >= *position)
            && let Some((_, subject)) = waiting.flow.take()
        {
            let connection = self.connection.clone();
            self.runtime.spawn(async move { answer_flow_control(&connection, subject).await });
        }
    }
}

/// Nobody may ever ask for the status of a request that was given up.
fn put_apart(statuses: &mut Vec<Message>, status: Message) {
    if statuses.len() == STATUSES {
        statuses.remove(0);
    }
    statuses.push(status);
}

async fn keep(mut subscriber: Subscriber, mut orders: mpsc::UnboundedReceiver<Order>, buffer: Arc<Buffer>) {
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                None | Some(Order::End) => {
                    let _ = subscriber.unsubscribe().await;
                    break;
                }
                Some(Order::EndAfter(count)) => {
                    let _ = subscriber.unsubscribe_after(count).await;
                }
                Some(Order::Drain) => {
                    let _ = subscriber.drain().await;
                }
            },
            message = subscriber.next() => {
                let Some(first) = message else { break };
                let more = std::iter::from_fn(|| subscriber.next().now_or_never().flatten());
                buffer.put(std::iter::once(first).chain(more.take(BURST)));
            }
            () = buffer.connection.closed() => break,
        }
    }
    buffer.end();
}
