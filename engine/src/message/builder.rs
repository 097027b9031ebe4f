//! A message that no server sent, for the tests of a handler.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Serialize;

use crate::jetstream::status::ACK_PREFIX;
use crate::message::{Consumer, Context, Message};

/// Makes a [`Message`] without a server, for the tests of a handler. It is what the server would deliver: its
/// [`metadata`](Message::metadata) is that of sequence 1 of the stream `stream`, delivered for the first time to
/// `consumer`, unless you say otherwise.
///
/// ```
/// use nats_consumer::{Handler, HandlerError, Message, Outcome};
///
/// async fn bill(message: Message) -> Result<(), HandlerError> {
///     message.json::<u64>()?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), HandlerError> {
/// assert_eq!(bill.handle(Message::builder("orders.created").json(&7).build()).await?, Outcome::Ack);
///
/// let error = bill.handle(Message::builder("orders.created").payload("?").build()).await.unwrap_err();
/// assert!(matches!(error.outcome(), Some(Outcome::DeadLetter { .. })));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder makes a message only when it is built"]
pub struct MessageBuilder {
    subject: String,
    payload: Bytes,
    headers: HeaderMap,
    stream: String,
    consumer: String,
    sequence: u64,
    stored_at: SystemTime,
    attempt: u64,
    max_attempts: u64,
    time_limit: Option<Duration>,
    is_shutting_down: bool,
}

impl MessageBuilder {
    pub(super) fn new(subject: String) -> Self {
        Self {
            subject,
            payload: Bytes::new(),
            headers: HeaderMap::new(),
            stream: "stream".into(),
            consumer: "consumer".into(),
            sequence: 1,
            stored_at: SystemTime::now(),
            attempt: 1,
            max_attempts: u64::MAX,
            time_limit: None,
            is_shutting_down: false,
        }
    }

    /// The payload; empty unless set.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The payload as JSON.
    ///
    /// # Panics
    /// If the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let json = serde_json::to_vec(value).expect("the value can be written as JSON");
        self.payload(json)
    }

    /// Adds a header.
    ///
    /// # Panics
    /// If the name or the value cannot be that of a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("the name can be that of a header");
        let value: HeaderValue = value.parse().expect("the value can be that of a header");
        self.headers.append(name, value);
        self
    }

    /// The stream that the message comes from.
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = name.into();
        self
    }

    /// The consumer that the message comes to.
    pub fn consumer(mut self, name: impl Into<String>) -> Self {
        self.consumer = name.into();
        self
    }

    /// The message's sequence in the stream.
    pub fn sequence(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    /// When the message was stored; now unless set.
    pub fn stored_at(mut self, time: SystemTime) -> Self {
        self.stored_at = time;
        self
    }

    /// The number of the attempt, from 1.
    pub fn attempt(mut self, number: u64) -> Self {
        self.attempt = number;
        self
    }

    /// How often the message may be tried; without a limit unless set. [`Context::is_last`] follows from it.
    ///
    /// ```
    /// # use nats_consumer::Message;
    /// let message = Message::builder("orders.created").attempt(3).max_attempts(3).build();
    /// assert!(message.context().is_last());
    /// ```
    pub fn max_attempts(mut self, limit: u64) -> Self {
        self.max_attempts = limit;
        self
    }

    /// How long from now the handler may run, for [`Context::deadline`].
    ///
    /// ```
    /// # use nats_consumer::Message;
    /// # use std::time::Duration;
    /// let message = Message::builder("orders.created").time_limit(Duration::from_secs(30)).build();
    /// assert!(message.context().deadline().is_some());
    /// ```
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Makes the consumption one that has been asked to end, for [`Context::shutting_down`].
    ///
    /// ```
    /// # use nats_consumer::Message;
    /// assert!(Message::builder("orders.created").shutting_down().build().context().shutting_down());
    /// ```
    pub fn shutting_down(mut self) -> Self {
        self.is_shutting_down = true;
        self
    }

    /// Makes the message.
    #[must_use]
    pub fn build(self) -> Message {
        let reply = self.reply();
        let consumer = Consumer { max_attempts: self.max_attempts, ..Consumer::unlimited(self.consumer) };
        if self.is_shutting_down {
            consumer.stop.cancel();
        }
        let deadline = self.time_limit.and_then(|limit| Instant::now().checked_add(limit));
        let length = self.payload.len();
        let message = Message::new(async_nats::Message {
            subject: self.subject.into(),
            reply: Some(reply.into()),
            payload: self.payload,
            headers: Some(self.headers).filter(|headers| !headers.is_empty()),
            status: None,
            description: None,
            length,
        });
        message.with_context(Context::new(Arc::new(consumer), self.attempt, deadline))
    }

    /// Reply subject, as of a server.
    fn reply(&self) -> String {
        let Self { stream, consumer, attempt, sequence, .. } = self;
        let since = self.stored_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = since.as_nanos();
        format!("{ACK_PREFIX}{stream}.{consumer}.{attempt}.{sequence}.{sequence}.{nanoseconds}.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_built_reads_as_one_that_a_server_delivered() {
        let stored = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 1);
        let message = Message::builder("orders.created")
            .stream("orders")
            .consumer("billing")
            .sequence(71)
            .attempt(2)
            .max_attempts(2)
            .stored_at(stored)
            .build();
        let place = message.metadata().unwrap();
        assert_eq!((place.stream, place.consumer), ("orders", "billing"));
        assert_eq!((place.stream_sequence, place.delivered), (71, 2));
        assert_eq!(place.stored_at(), stored);
        let context = message.context();
        assert_eq!((context.consumer(), context.attempt(), context.is_last()), ("billing", 2, true));
        assert!(!context.shutting_down() && context.deadline().is_none());
    }

    #[tokio::test]
    async fn a_handler_can_be_tried_during_a_shutdown() {
        let message = Message::builder("orders.created").shutting_down().build();
        message.context().shutdown().await;
        assert!(message.context().shutting_down());
    }

    #[test]
    fn a_time_limit_without_an_end_has_no_deadline() {
        let message = Message::builder("orders.created").time_limit(Duration::MAX).build();
        assert!(message.context().deadline().is_none());
    }
}
