//! A stream read in order, each message once: over a consumer that is recreated behind the last message that
//! came, when a message is missing, when the server went silent, and after a lost connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::{BURST, Buffer, Buffered, Interest, Order, Statuses, Subscription};
use crate::connect::{Connection, LINK_CHECK_TIMEOUT, Link};
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::{API_TIMEOUT, nanoseconds, request_behind};
use crate::jetstream::headers::{is_readable, readable_lines};
use crate::jetstream::info::Sequences;
use crate::jetstream::status::is_status;
use crate::jetstream::stored::{self, Stored};
use crate::jitter::jittered;
use crate::message::{Message, Metadata};
use crate::observe::target::CONNECTION;

/// Pause before the consumer is asked for again.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// How often in a row the server may refuse to recreate the consumer. While it starts it refuses what it does not know
/// yet.
const REFUSALS: u32 = 10;

/// How often the first consumer is asked for, if the connection is lost meanwhile.
const OPENINGS: u32 = 5;

/// Number of heartbeats that may be missing.
const MISSING_HEARTBEATS: u32 = 2;

/// A stream to read in order.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Prefix of the API's subjects: [`api::PREFIX`](crate::jetstream::api::PREFIX), or that of a domain.
    pub prefix: String,
    /// The stream.
    pub stream: String,
    /// Filters and the beginning, as a consumer's configuration in the server's words.
    pub config: Map<String, Value>,
    /// How often the server says that it is alive.
    pub heartbeat: Duration,
    /// Messages that may wait to be taken; when there are more, the rest is read again later.
    pub max_messages: usize,
    /// Bytes that may wait to be taken.
    pub max_bytes: usize,
}

/// Subscribes to a stream in order.
///
/// # Errors
/// [`ErrorKind::StreamNotFound`], [`ErrorKind::Api`] when the server refuses the consumer,
/// [`ErrorKind::Timeout`], [`ErrorKind::Disconnected`], [`ErrorKind::Closed`].
pub async fn subscribe_in_order(connection: &Connection, ordered: Ordered) -> Result<Subscription> {
    let interest = Interest {
        subject: ordered.stream.clone(),
        queue: None,
        max_messages: ordered.max_messages,
        max_bytes: ordered.max_bytes,
        statuses: Statuses::Answered,
    };
    let buffer = Arc::new(Buffer::new(connection, interest));
    let (orders, listening) = mpsc::unbounded_channel();
    let mut reader = Reader {
        buffer: buffer.clone(),
        ordered,
        cursor: Cursor::default(),
        source: None,
        was_cut: false,
        refusals: 0,
        limit: None,
    };
    reader.begin().await?;
    tokio::spawn(reader.read(listening));
    Ok(Subscription { buffer, orders })
}

/// How far the stream was read.
#[derive(Debug, Default)]
struct Cursor {
    /// The place in the stream of the last message; without one, the place before the first. None while that
    /// is not known.
    stream: Option<u64>,
    /// The last delivery of the present consumer.
    delivery: u64,
    /// Everything that was there came once: from then on each message counts, not the last of its subject.
    is_caught_up: bool,
}

impl Cursor {
    /// Whether the delivery is the next one of its consumer; then it is the last.
    fn follows(&mut self, metadata: &Metadata<'_>) -> bool {
        let follows = metadata.consumer_sequence == self.delivery + 1;
        if follows {
            self.delivery += 1;
        }
        follows
    }

    /// Whether the message did not come before; then it is the last.
    fn is_new(&self, metadata: &Metadata<'_>) -> bool {
        self.stream.is_none_or(|last| metadata.stream_sequence > last)
    }
}

/// One consumer of the server's, as long as it lasts.
#[derive(Debug)]
struct Source {
    subscriber: Subscriber,
    consumer: String,
    /// The connection it was made over.
    generation: u64,
    heard: Instant,
}

#[derive(Deserialize)]
struct Made {
    name: String,
    delivered: Sequences,
}

impl Source {
    async fn open(connection: &Connection, ordered: &Ordered, cursor: &mut Cursor) -> Result<Self> {
        // Looked at first: a connection that is made meanwhile has to be noticed.
        let generation = connection.link().borrow().generation;
        let inbox = connection.client().new_inbox();
        let subscriber = connection
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| Error::new(ErrorKind::Closed, "The connection is closed.").because(error))?;
        let config = ordered.config_behind(cursor, &inbox);
        let body = json!({ "stream_name": ordered.stream, "config": config }).to_string();
        let subject = format!("CONSUMER.CREATE.{}", ordered.stream);
        let answer = request_behind(connection, &ordered.prefix, &subject, body.into(), API_TIMEOUT).await?;
        let made: Made = serde_json::from_slice(&answer).map_err(|error| {
            let text = format!("JetStream answered {subject} with something that is not a consumer.");
            Error::new(ErrorKind::Api { code: 500, err_code: 0 }, text).because(error)
        })?;
        cursor.delivery = 0;
        // What begins with the newest message still begins there when the consumer is recreated.
        if cursor.stream.is_none() && made.delivered.consumer_seq == 0 && !ordered.is_last_per_subject() {
            cursor.stream = Some(made.delivered.stream_seq);
        }
        Ok(Self { subscriber, consumer: made.name, generation, heard: Instant::now() })
    }
}

impl Ordered {
    /// A consumer's configuration in JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for anything but a JSON object.
    pub fn read_config(json: &[u8]) -> Result<Map<String, Value>> {
        serde_json::from_slice(json).map_err(|error| {
            let text = format!("The configuration of a consumer must be a JSON object: {error}.");
            Error::new(ErrorKind::Config, text).because(error)
        })
    }

    fn config_behind(&self, cursor: &Cursor, inbox: &str) -> Map<String, Value> {
        let mut config = self.config.clone();
        let own = [
            ("deliver_subject", json!(inbox)),
            ("ack_policy", json!("none")),
            ("max_deliver", json!(1)),
            ("flow_control", json!(true)),
            ("idle_heartbeat", json!(nanoseconds(self.heartbeat))),
            ("mem_storage", json!(true)),
            ("num_replicas", json!(1)),
        ];
        config.extend(own.map(|(name, value)| (name.to_owned(), value)));
        if let Some(last) = cursor.stream.filter(|_| !self.begins_again(cursor)) {
            config.remove("opt_start_time");
            config.insert("deliver_policy".into(), json!("by_start_sequence"));
            config.insert("opt_start_seq".into(), json!(last + 1));
        }
        config
    }

    /// Whether it is read from its beginning: the last of each subject are found again, and those that came before are left
    /// out on arrival.
    fn begins_again(&self, cursor: &Cursor) -> bool {
        self.is_last_per_subject() && !cursor.is_caught_up
    }

    /// The place before its first message, where its configuration says so.
    fn beginning(&self) -> Option<u64> {
        match self.config.get("deliver_policy").and_then(Value::as_str) {
            None | Some("all") => Some(0),
            Some("by_start_sequence") => Some(self.config.get("opt_start_seq")?.as_u64()?.saturating_sub(1)),
            Some(_) => None,
        }
    }

    /// The subjects that it is about.
    fn filters(&self) -> Vec<&str> {
        let several = self.config.get("filter_subjects").and_then(Value::as_array);
        let several = several.into_iter().flatten().filter_map(Value::as_str);
        let one = self.config.get("filter_subject").and_then(Value::as_str);
        let filters: Vec<_> = several.chain(one).filter(|filter| !filter.is_empty()).collect();
        if filters.is_empty() { vec![">"] } else { filters }
    }

    fn is_last_per_subject(&self) -> bool {
        self.config.get("deliver_policy").is_some_and(|policy| policy == "last_per_subject")
    }
}

struct Reader {
    buffer: Arc<Buffer>,
    ordered: Ordered,
    cursor: Cursor,
    /// None when it has to be recreated.
    source: Option<Source>,
    /// The last consumer ended with its connection, which its next message may have broken.
    was_cut: bool,
    refusals: u32,
    /// Number of messages after which it ends.
    limit: Option<u64>,
}

impl Reader {
    async fn read(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let connection = self.buffer.connection.clone();
        let mut closed = pin!(connection.closed());
        while !self.is_done() {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    None | Some(Order::End | Order::Drain) => break,
                    Some(Order::EndAfter(count)) => self.limit = Some(count),
                },
                () = &mut closed => break,
                advanced = self.advance() => if let Err(error) = advanced {
                    self.buffer.waiting().failure = Some(Arc::new(error));
                    break;
                },
            }
        }
        if let Some(source) = self.source.take() {
            self.leave(source);
        }
        self.buffer.end();
    }

    fn is_done(&self) -> bool {
        self.limit.is_some_and(|limit| self.buffer.waiting().received >= limit)
    }

    /// Takes what arrives next, or makes a new consumer if there is none.
    async fn advance(&mut self) -> Result<()> {
        let Some(source) = &mut self.source else { return self.renew().await };
        let silent = source.heard + self.ordered.heartbeat * MISSING_HEARTBEATS;
        let generation = source.generation;
        let connection = &self.buffer.connection;
        let link = connection.link();
        let lost = tokio::select! {
            biased;
            Some(first) = source.subscriber.next() => {
                source.heard = Instant::now();
                let mut arrived = vec![first];
                while arrived.len() < BURST && let Some(Some(more)) = source.subscriber.next().now_or_never() {
                    arrived.push(more);
                }
                (!self.accept(arrived)).then_some("a message is missing")
            }
            () = until_reconnected(link, generation) => Some("the connection was lost"),
            () = sleep_until(silent) => {
                connection.renew_if_silent(LINK_CHECK_TIMEOUT).await;
                Some("heartbeats are missing")
            }
        };
        if let (Some(why), Some(source)) = (lost, self.source.take_if(|_| lost.is_some())) {
            self.was_cut |= self.buffer.connection.link().borrow().generation != source.generation;
            debug!(target: CONNECTION, stream = self.ordered.stream, consumer = source.consumer, "Subscribed again: {why}");
            self.leave(source);
        }
        Ok(())
    }

    /// Makes the first consumer. Its first message may break the connection before the server's answer comes.
    async fn begin(&mut self) -> Result<()> {
        let connection = self.buffer.connection.clone();
        for _ in 1..OPENINGS {
            let generation = connection.link().borrow().generation;
            let opening = Source::open(&connection, &self.ordered, &mut self.cursor);
            let opened = tokio::select! {
                opened = opening => opened,
                () = until_reconnected(connection.link(), generation) => {
                    self.cursor.stream = self.cursor.stream.or(self.ordered.beginning());
                    self.try_to_take_unreadable().await;
                    continue;
                }
            };
            self.reads_from(opened?);
            return Ok(());
        }
        let source = Source::open(&connection, &self.ordered, &mut self.cursor).await?;
        self.reads_from(source);
        Ok(())
    }

    fn reads_from(&mut self, source: Source) {
        let mut waiting = self.buffer.waiting();
        waiting.consumer = Some(source.consumer.clone());
        waiting.flow = None;
        self.refusals = 0;
        self.was_cut = false;
        self.source = Some(source);
    }

    async fn try_to_take_unreadable(&mut self) {
        if let Err(error) = self.take_unreadable().await {
            debug!(target: CONNECTION, stream = self.ordered.stream, "Unreadable messages were not looked for: {error}");
        }
    }

    async fn renew(&mut self) -> Result<()> {
        self.has_room().await;
        if self.was_cut {
            self.try_to_take_unreadable().await;
        }
        match Source::open(&self.buffer.connection, &self.ordered, &mut self.cursor).await {
            Ok(source) => {
                self.reads_from(source);
                Ok(())
            }
            Err(error) => {
                self.refusals = if error.is_temporary() { 0 } else { self.refusals + 1 };
                if self.refusals == REFUSALS {
                    return Err(error);
                }
                sleep(jittered(REOPEN_PAUSE)).await;
                Ok(())
            }
        }
    }

    /// Takes the messages that come next and have headers that cannot be parsed: each would break the connection again.
    async fn take_unreadable(&mut self) -> Result<()> {
        // Which are the last of their subjects is not known.
        let Some(last) = self.cursor.stream.filter(|_| !self.ordered.begins_again(&self.cursor)) else {
            return Ok(());
        };
        let mut next = self.stored_behind(last).await?;
        while !self.is_done()
            && let Some(stored) = next.filter(|it| !is_readable(&it.headers))
        {
            next = self.stored_behind(stored.sequence).await?;
            self.take_stored(&stored, next.is_some()).await;
        }
        Ok(())
    }

    /// Keeps a message that was read by the API, when there is room.
    async fn take_stored(&mut self, stored: &Stored, has_more: bool) {
        let headers = Some(readable_lines(&stored.headers));
        let consumer = self.buffer.waiting().consumer.clone().unwrap_or_else(|| "_".into());
        let message = Message::delivered(stored, &self.ordered.stream, &consumer, has_more, headers);
        warn!(
            target: CONNECTION,
            subject = stored.subject,
            sequence = stored.sequence,
            "A message with unreadable headers broke the connection. It is delivered without the unreadable header lines."
        );
        while self.is_too_much(&message) {
            self.has_room().await;
        }
        self.cursor.stream = Some(stored.sequence);
        self.buffer.waiting().push(message);
        self.buffer.changes.send_replace(());
    }

    /// Whether the message has to wait until others are taken. One that is too large for the whole buffer comes in when
    /// it is empty.
    fn is_too_much(&self, message: &Message) -> bool {
        let mut waiting = self.buffer.waiting();
        waiting.is_full = !waiting.messages.is_empty() && !self.buffer.has_room(&waiting, message);
        waiting.is_full
    }

    /// The message behind this place in the stream, read by the API.
    async fn stored_behind(&self, last: u64) -> Result<Option<Stored>> {
        let Ordered { prefix, stream, .. } = &self.ordered;
        let mut next: Option<Stored> = None;
        for filter in self.ordered.filters() {
            let what = json!({ "seq": last + 1, "next_by_subj": filter });
            let found = stored::get_behind(&self.buffer.connection, prefix, stream, &what).await?;
            next = next.into_iter().chain(found).min_by_key(|it| it.sequence);
        }
        Ok(next)
    }

    /// Waits until somebody has taken messages, where there were too many.
    async fn has_room(&self) {
        let mut changes = self.buffer.changes.subscribe();
        while self.buffer.waiting().is_full && changes.changed().await.is_ok() {}
    }

    /// Keeps what is in order. Returns false if something is missing.
    fn accept(&mut self, arrived: Vec<async_nats::Message>) -> bool {
        let buffer = self.buffer.clone();
        let mut waiting = buffer.waiting();
        let is_whole = arrived.into_iter().all(|message| {
            if !is_status(&message) {
                return self.accept_one(&mut waiting, Message::new(message));
            }
            buffer.put_status(&mut waiting, &message);
            let is_heartbeat = message.status == Some(StatusCode::IDLE_HEARTBEAT);
            is_heartbeat && last_delivery(&message).is_none_or(|last| last == self.cursor.delivery)
        });
        drop(waiting);
        buffer.changes.send_replace(());
        is_whole
    }

    fn accept_one(&mut self, waiting: &mut Buffered, message: Message) -> bool {
        // Only the consumer knows the inbox, so anything but a delivery is a stray.
        let Ok(metadata) = message.metadata() else { return true };
        if self.limit.is_some_and(|limit| waiting.received >= limit) {
            return true;
        }
        // A message that is too large for the whole buffer has to come in when it is empty.
        waiting.is_full = !waiting.messages.is_empty() && !self.buffer.has_room(waiting, &message);
        if waiting.is_full || !self.cursor.follows(&metadata) {
            return false;
        }
        self.cursor.is_caught_up |= metadata.pending == 0;
        if self.cursor.is_new(&metadata) {
            self.cursor.stream = Some(metadata.stream_sequence);
            waiting.push(message);
        }
        true
    }

    /// Lets the server forget the consumer at once, instead of after its `inactive_threshold`.
    fn leave(&self, source: Source) {
        let connection = self.buffer.connection.clone();
        let prefix = self.ordered.prefix.clone();
        let subject = format!("CONSUMER.DELETE.{}.{}", self.ordered.stream, source.consumer);
        tokio::spawn(async move {
            drop(source);
            let _ = request_behind(&connection, &prefix, &subject, bytes::Bytes::new(), API_TIMEOUT).await;
        });
    }
}

/// Returns when the connection was lost and is back.
async fn until_reconnected(mut link: watch::Receiver<Link>, generation: u64) {
    let is_back = link.wait_for(|link| link.is_up && link.generation != generation).await.is_ok();
    if !is_back {
        std::future::pending::<()>().await;
    }
}

/// The sequence of the last delivery, according to a heartbeat.
fn last_delivery(heartbeat: &async_nats::Message) -> Option<u64> {
    heartbeat.headers.as_ref()?.get("Nats-Last-Consumer")?.as_str().parse().ok()
}
