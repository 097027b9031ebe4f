//! A message of a stream, and its metadata, read from its reply subject.

use std::sync::Arc;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::status::ACK_PREFIX;

/// A message of a stream. Cloning is cheap: payload and headers are shared.
#[derive(Clone, Debug)]
pub struct Message(Arc<async_nats::Message>);

impl Message {
    pub(crate) fn new(message: async_nats::Message) -> Self {
        Self(Arc::new(message))
    }

    /// The subject it was published to.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// The payload. It shares the buffer it was read into: copy what you keep for long.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// The headers, if there are any.
    #[must_use]
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.0.headers.as_ref()
    }

    /// Every header line, as name and value; a name may occur several times.
    pub fn header_lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers().into_iter().flat_map(HeaderMap::iter).flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name, value.as_str()))
        })
    }

    /// Where the server waits for the settlement; it also encodes the [`Metadata`].
    #[must_use]
    pub fn reply(&self) -> Option<&Subject> {
        self.0.reply.as_ref()
    }

    /// The status of a message of the server's own, such as 404 or 503, and its words.
    #[must_use]
    pub fn status(&self) -> Option<(u16, &str)> {
        let description = self.0.description.as_deref().unwrap_or_default();
        self.0.status.map(|status| (status.as_u16(), description))
    }

    /// Where the message is in its stream and how often it was delivered.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the message does not come from a JetStream consumer.
    pub fn metadata(&self) -> Result<Metadata<'_>> {
        self.0.reply.as_deref().and_then(Metadata::parse).ok_or_else(|| {
            Error::new(ErrorKind::Config, "This message does not come from a JetStream consumer.")
        })
    }

    /// Payload and headers in bytes, roughly: what the message costs in memory.
    pub(crate) fn size(&self) -> usize {
        self.0.length
    }
}

/// What the server tells about a delivery, in its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What stands between dots. Every message is read so; `str::split` takes three times as long for tokens as
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
