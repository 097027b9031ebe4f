//! A message of a stream, its metadata, read from its reply subject, and how a test makes one.

mod builder;
mod context;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::status::ACK_PREFIX;
use crate::jetstream::stored::Stored;
use crate::outcome::HandlerError;

pub use builder::MessageBuilder;
pub(crate) use context::Consumer;
pub use context::Context;

/// A message of a stream. Cloning is cheap: payload and headers are shared.
///
/// A handler receives one; a test makes one with [`Message::builder`].
///
/// ```
/// use nats_consumer::Message;
///
/// let message = Message::builder("orders.7.created")
///     .payload(r#"{"id": 7}"#)
///     .header("Trace", "abc")
///     .attempt(2)
///     .build();
///
/// assert_eq!(message.subject().as_str(), "orders.7.created");
/// assert_eq!(message.header("Trace"), Some("abc"));
/// assert_eq!(message.attempt(), 2);
/// ```
#[derive(Clone)]
pub struct Message {
    raw: Arc<async_nats::Message>,
    /// Only what a Rust handler receives has one.
    context: Option<Context>,
}

impl Message {
    pub(crate) fn new(message: async_nats::Message) -> Self {
        Self { raw: Arc::new(message), context: None }
    }

    /// A stored message as the consumer's first delivery would bring it, with more behind it or not. The server settles by
    /// the sequence in the stream; the other numbers of a reply subject only it knows.
    pub(crate) fn delivered(
        stored: &Stored,
        stream: &str,
        consumer: &str,
        has_more: bool,
        headers: Option<HeaderMap>,
    ) -> Self {
        let pending = u8::from(has_more);
        let time = stored.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let sequence = stored.sequence;
        Self::new(async_nats::Message {
            subject: stored.subject.as_str().into(),
            reply: Some(
                format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.{sequence}.{time}.{pending}").into(),
            ),
            length: stored.payload.len(),
            payload: stored.payload.clone().into(),
            headers,
            status: None,
            description: None,
        })
    }

    pub(crate) fn with_context(&self, context: Context) -> Self {
        Self { raw: self.raw.clone(), context: Some(context) }
    }

    /// Makes a message without a server, for the tests of a handler.
    pub fn builder(subject: impl Into<String>) -> MessageBuilder {
        MessageBuilder::new(subject.into())
    }

    /// The subject it was published to.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.raw.subject
    }

    /// The payload. It shares the buffer it was read into: copy what you keep for long.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.raw.payload
    }

    /// The headers, if there are any.
    #[must_use]
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.raw.headers.as_ref()
    }

    /// Every header line, as name and value; a name may occur several times.
    ///
    /// ```
    /// # use nats_consumer::Message;
    /// let message = Message::builder("orders.created").header("Tag", "new").header("Tag", "gift").build();
    /// assert_eq!(message.header_lines().collect::<Vec<_>>(), [("Tag", "new"), ("Tag", "gift")]);
    /// ```
    pub fn header_lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers().into_iter().flat_map(HeaderMap::iter).flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name, value.as_str()))
        })
    }

    /// The first value of the header, if there is one. Names are case-sensitive.
    ///
    /// ```
    /// # use nats_consumer::Message;
    /// let message = Message::builder("orders.created").header("Trace", "abc").build();
    /// assert_eq!(message.header("Trace"), Some("abc"));
    /// assert_eq!(message.header("Other"), None);
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()?.get(name).map(|value| value.as_str())
    }

    /// Decodes the payload as JSON.
    ///
    /// # Errors
    /// A [`HandlerError::dead_letter`]: no retry makes the payload readable. Its cause says where the payload
    /// stops being what was expected.
    ///
    /// ```
    /// # use nats_consumer::{HandlerError, Message};
    /// #[derive(serde::Deserialize)]
    /// struct Order { id: u64 }
    ///
    /// let message = Message::builder("orders.created").payload(r#"{"id": 7}"#).build();
    /// assert_eq!(message.json::<Order>()?.id, 7);
    /// # Ok::<(), HandlerError>(())
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_json::from_slice(self.payload())
            .map_err(|error| HandlerError::dead_letter(Undecodable { source: error }))
    }

    /// The number of this attempt, from 1: the server's count of deliveries, without those that are known to have been
    /// handed back before they ran. A message that comes from no consumer is at its first.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        match &self.context {
            Some(context) => context.attempt(),
            None => self.metadata().map_or(1, |metadata| metadata.delivered),
        }
    }

    /// The circumstances of this attempt: consumer, number, deadline, shutdown.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone().unwrap_or_else(|| {
            let consumer = self.metadata().map_or("", |metadata| metadata.consumer).to_owned();
            Context::new(Arc::new(Consumer::unlimited(consumer)), self.attempt(), None)
        })
    }

    /// Reply subject, where the server expects the settlement; it also encodes the [`Metadata`].
    #[must_use]
    pub fn reply(&self) -> Option<&Subject> {
        self.raw.reply.as_ref()
    }

    /// The status of a message of the server's own, such as 404 or 503, and its words.
    #[must_use]
    pub fn status(&self) -> Option<(u16, &str)> {
        let description = self.raw.description.as_deref().unwrap_or_default();
        self.raw.status.map(|status| (status.as_u16(), description))
    }

    /// Position of the message in its stream, and its number of deliveries.
    ///
    /// ```
    /// # use nats_consumer::Message;
    /// let message = Message::builder("orders.created").stream("orders").sequence(71).build();
    /// let place = message.metadata()?;
    /// assert_eq!((place.stream, place.stream_sequence), ("orders", 71));
    /// # Ok::<(), nats_consumer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the message does not come from a JetStream consumer.
    pub fn metadata(&self) -> Result<Metadata<'_>> {
        self.raw.reply.as_deref().and_then(Metadata::parse).ok_or_else(|| {
            Error::new(ErrorKind::Config, "This message does not come from a JetStream consumer.")
        })
    }

    /// Payload and headers in bytes, roughly: what the message costs in memory.
    pub(crate) fn size(&self) -> usize {
        self.raw.length
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

/// The payload is not the JSON that the handler expects.
#[derive(Debug)]
struct Undecodable {
    source: serde_json::Error,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payload is not the JSON that the handler expects")
    }
}

impl std::error::Error for Undecodable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Metadata of a delivery, which the server sends in the reply subject.
///
/// ```
/// use nats_consumer::{HandlerError, Message};
///
/// async fn audit(message: Message) -> Result<(), HandlerError> {
///     let place = message.metadata()?;
///     println!("{} of {}, stored at {:?}", place.stream_sequence, place.stream, place.stored_at());
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata<'a> {
    /// The JetStream domain, if there is one.
    pub domain: Option<&'a str>,
    /// The stream.
    pub stream: &'a str,
    /// The consumer on the server.
    pub consumer: &'a str,
    /// How often the message was delivered, this time included.
    pub delivered: u64,
    /// The message's place in the stream.
    pub stream_sequence: u64,
    /// The delivery's place among the consumer's deliveries.
    pub consumer_sequence: u64,
    /// When the message was stored, in nanoseconds since 1970 UTC.
    pub timestamp: i64,
    /// How many messages wait for the consumer behind this one.
    pub pending: u64,
}

impl<'a> Metadata<'a> {
    /// When the message was stored.
    #[must_use]
    pub fn stored_at(&self) -> SystemTime {
        let since = Duration::from_nanos(self.timestamp.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        if self.timestamp < 0 { epoch - since } else { epoch + since }
    }

    /// Parses the reply subject of a delivery.
    ///
    /// Both forms of ADR-15 are known: `$JS.ACK.` with 7 tokens behind it, or with domain and
    /// account hash before those and possibly more tokens after them. `None` for anything else.
    #[must_use]
    pub fn parse(reply: &'a str) -> Option<Self> {
        let tokens = reply.strip_prefix(ACK_PREFIX)?;
        let dots = tokens.bytes().filter(|byte| *byte == b'.').count();
        let mut tokens = Tokens(Some(tokens));
        let domain = match dots + 1 {
            7 => None,
            9.. => {
                let domain = tokens.next()?;
                tokens.next()?;
                Some(domain).filter(|domain| *domain != "_")
            }
            _ => return None,
        };
        Some(Self {
            domain,
            stream: tokens.next()?,
            consumer: tokens.next()?,
            delivered: tokens.next()?.parse().ok()?,
            stream_sequence: tokens.next()?.parse().ok()?,
            consumer_sequence: tokens.next()?.parse().ok()?,
            timestamp: tokens.next()?.parse().ok()?,
            pending: tokens.next()?.parse().ok()?,
        })
    }
}

/// The tokens between dots. Each message is read with it. `str::split` takes three times as long for tokens as
/// short as these (`cargo bench --bench message`).
struct Tokens<'a>(Option<&'a str>);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0?;
        let Some(dot) = rest.bytes().position(|byte| byte == b'.') else { return self.0.take() };
        self.0 = Some(&rest[dot + 1..]);
        Some(&rest[..dot])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARSED: Metadata<'_> = Metadata {
        domain: None,
        stream: "orders",
        consumer: "billing",
        delivered: 2,
        stream_sequence: 71,
        consumer_sequence: 93,
        timestamp: 1_700_000_000_000_000_001,
        pending: 5,
    };

    #[test]
    fn reads_the_reply_subject_of_a_delivery() {
        let reply = "$JS.ACK.orders.billing.2.71.93.1700000000000000001.5";
        assert_eq!(Metadata::parse(reply), Some(PARSED));
    }

    #[test]
    fn reads_the_longer_form_with_and_without_a_domain() {
        let reply = "$JS.ACK._.hash.orders.billing.2.71.93.1700000000000000001.5";
        assert_eq!(Metadata::parse(reply), Some(PARSED));
        let reply = "$JS.ACK.hub.hash.orders.billing.2.71.93.1700000000000000001.5.rnd";
        assert_eq!(Metadata::parse(reply), Some(Metadata { domain: Some("hub"), ..PARSED }));
    }

    fn tokens() -> impl Strategy<Value = String> {
        prop_oneof!["[a-zA-Z0-9_-]{1,12}", "[^.]{0,4}"]
    }

    proptest! {
        #[test]
        fn what_a_server_writes_is_read_in_both_forms(
            (stream, consumer) in ("[^.]{1,12}", "[^.]{1,12}"),
            (delivered, stream_sequence, consumer_sequence) in any::<(u64, u64, u64)>(),
            (timestamp, pending) in any::<(i64, u64)>(),
            domain in prop::option::of("[^._]{1,8}"),
            more in prop_oneof![Just(""), Just(".rnd"), Just(".rnd.and.more")],
        ) {
            let numbers = format!("{delivered}.{stream_sequence}.{consumer_sequence}.{timestamp}.{pending}");
            let place = format!("{stream}.{consumer}.{numbers}");
            let bare = Metadata {
                domain: None,
                stream: &stream,
                consumer: &consumer,
                delivered,
                stream_sequence,
                consumer_sequence,
                timestamp,
                pending,
            };
            let shorter = format!("$JS.ACK.{place}");
            prop_assert_eq!(Metadata::parse(&shorter), Some(bare));
            let longer = format!("$JS.ACK.{}.hash.{place}{more}", domain.as_deref().unwrap_or("_"));
            prop_assert_eq!(Metadata::parse(&longer), Some(Metadata { domain: domain.as_deref(), ..bare }));
        }

        #[test]
        fn no_reply_subject_panics(
            known in any::<bool>(),
            tokens in prop::collection::vec(prop_oneof![tokens(), any::<i128>().prop_map(|n| n.to_string())], 0..14),
        ) {
            let reply = format!("{}{}", if known { "$JS.ACK." } else { "" }, tokens.join("."));
            if let Some(place) = Metadata::parse(&reply) {
                prop_assert!(known && tokens.len() >= 7);
                prop_assert!(tokens.iter().any(|token| token == place.stream));
            }
        }
    }
}
