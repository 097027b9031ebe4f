//! The dead-letter stream: what no attempt could handle, kept whole, with the reason.

use std::time::{Duration, SystemTime};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::OnceCell;
use tracing::info;

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::error::{ErrorKind, Result};
use crate::jetstream::beside::create_beside;
use crate::message::Message;
use crate::observe::target::DEAD_LETTER;
use crate::publish::{Outgoing, publish};

/// How long the dead-letter stream may take to confirm a copy.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers of the server's own make it act on the copy: refuse it, purge the stream, expire it, schedule
/// it, count it or take it for a duplicate. They are kept under this prefix.
pub(crate) const KEPT_PREFIX: &str = "Dlq-Header-";
const ACTED_ON: &str = "Nats-";

/// A stream refuses a message with more bytes of headers (error 10097, seen on nats-server 2.15.1).
pub(crate) const LARGEST_HEADERS: usize = 65_535;

/// What a dead letter's own headers begin with. Of a message that is itself a dead letter they are kept under the
/// prefix too, so that they tell of the first death still when it is restored.
const OF_A_LETTER: &str = "Dlq-";
pub(crate) const REASON: &str = "Dlq-Reason";

/// Says where the headers are that are kept apart.
pub(crate) const HEADERS_APART: &str = "Dlq-Headers-Apart";

/// An exception's text may be long, and the copy must stay small enough to be stored.
const LONGEST_VALUE: usize = 1000;

/// A message that is given up.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) message: Message,
    pub(crate) reason: String,
    pub(crate) error: Option<String>,
    /// The header block as it was stored, in base64, where it could not be parsed.
    pub(crate) raw_headers: Option<String>,
    pub(crate) deliveries: u64,
}

impl DeadLetter {
    fn sequence(&self) -> u64 {
        self.message.metadata().map_or(0, |place| place.stream_sequence)
    }

    fn apart_subject(&self, stream: &str, durable: &str, part: Part) -> String {
        let sent = self.message.metadata().ok().and_then(|place| u128::try_from(place.timestamp).ok());
        apart_subject(stream, durable, part, self.sequence(), sent.unwrap_or_default())
    }

    /// The headers as they came, as a block.
    fn block(&self) -> Bytes {
        if let Some(raw) = self.raw_headers.as_ref().and_then(|raw| STANDARD.decode(raw).ok()) {
            return raw.into();
        }
        let headers = self.message.headers().into_iter().flat_map(HeaderMap::iter);
        let lines = headers.flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| format!("{name}: {}\r\n", value.as_str()))
        });
        format!("NATS/1.0\r\n{}\r\n", lines.collect::<String>()).into()
    }
}

/// What may be too large to be kept in its dead letter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Payload,
    Headers,
}

/// Where a part is kept that is too large for its dead letter. `sent` is when its message was stored, in
/// nanoseconds: a recreated stream gives its sequences to other messages.
pub(crate) fn apart_subject(stream: &str, durable: &str, part: Part, sequence: u64, sent: u128) -> String {
    let part = match part {
        Part::Payload => "payload",
        Part::Headers => "headers",
    };
    format!("dlq.{stream}.{durable}.{part}.{sequence}.{sent}")
}

/// The dead letters of one consumer.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    source: String,
    durable: String,
    exists: OnceCell<()>,
}

impl DeadLetters {
    pub(crate) fn of(options: &ConsumerOptions) -> Self {
        Self { source: options.stream.clone(), durable: options.durable.clone(), exists: OnceCell::new() }
    }

    /// Stores the copy and waits until the server has confirmed it.
    pub(crate) async fn store(&self, connection: &Connection, letter: &DeadLetter) -> Result<()> {
        self.exists.get_or_try_init(|| self.create(connection)).await?;
        let (headers, payload) = self.fit(letter, connection.client().max_payload());
        if payload.len() < letter.message.payload().len() {
            let apart = letter.apart_subject(&self.source, &self.durable, Part::Payload);
            self.put(connection, apart, HeaderMap::new(), letter.message.payload().clone()).await?;
        }
        if headers.get(HEADERS_APART).is_some() {
            let apart = letter.apart_subject(&self.source, &self.durable, Part::Headers);
            self.put(connection, apart, HeaderMap::new(), letter.block()).await?;
        }
        self.put(connection, format!("dlq.{}.{}", self.source, self.durable), headers, payload).await
    }

    async fn put(
        &self,
        connection: &Connection,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<()> {
        let copy = Outgoing::with_headers(subject, headers, payload);
        match publish(connection, copy.clone(), STORE_TIMEOUT).await {
            // Somebody deleted the stream meanwhile.
            Err(error) if error.kind() == ErrorKind::NoStream => {
                self.create(connection).await?;
                publish(connection, copy, STORE_TIMEOUT).await?;
            }
            stored => drop(stored?),
        }
        Ok(())
    }

    /// A stream without limits, unless the account wants them.
    async fn create(&self, connection: &Connection) -> Result<()> {
        let name = format!("{}-dlq", self.source);
        let config = json!({
            "name": name,
            "subjects": [format!("dlq.{}.>", self.source)],
            "retention": "limits",
            "discard": "new",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
        });
        if create_beside(connection, &self.source, config).await? {
            info!(target: DEAD_LETTER, stream = name, "The dead letter stream was created.");
        }
        Ok(())
    }

    /// Headers and payload of the copy; where the whole would be too large for the server, the payload is
    /// kept apart, bare, as it fitted when it was published; and so are headers that leave no room for ours.
    pub(crate) fn fit(&self, letter: &DeadLetter, limit: usize) -> (HeaderMap, Bytes) {
        let mut headers = Self::kept_headers(letter);
        self.tell(letter, &mut headers);
        if wire_size(&headers) > LARGEST_HEADERS {
            headers = HeaderMap::new();
            self.tell(letter, &mut headers);
            let apart = letter.apart_subject(&self.source, &self.durable, Part::Headers);
            set(&mut headers, HEADERS_APART, &format!("too large for the dead letter; they are at {apart}"));
        }
        let payload = letter.message.payload().clone();
        if wire_size(&headers) + payload.len() <= limit {
            return (headers, payload);
        }
        let apart = letter.apart_subject(&self.source, &self.durable, Part::Payload);
        set(
            &mut headers,
            "Dlq-Payload",
            &format!("kept apart: too large with the headers; it is at {apart}"),
        );
        (headers, Bytes::new())
    }

    /// The headers of the message.
    fn kept_headers(letter: &DeadLetter) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let is_letter = letter.message.headers().is_some_and(|headers| headers.get(REASON).is_some());
        for (name, values) in letter.message.headers().into_iter().flat_map(HeaderMap::iter) {
            let kept = kept_name(name, is_letter);
            for value in values {
                headers.append(kept.clone(), value.clone());
            }
        }
        if let Some(raw) = &letter.raw_headers {
            headers.insert("Dlq-Headers", raw.as_str());
        }
        headers
    }

    /// The headers that a dead letter has of its own.
    fn tell(&self, letter: &DeadLetter, headers: &mut HeaderMap) {
        let place = letter.message.metadata().ok();
        let sequence = letter.sequence();
        set(headers, REASON, &letter.reason);
        if let Some(error) = &letter.error {
            set(headers, "Dlq-Error", error);
        }
        headers.insert("Dlq-Subject", whole(letter.message.subject()));
        set(headers, "Dlq-Stream", &self.source);
        set(headers, "Dlq-Sequence", &sequence.to_string());
        set(headers, "Dlq-Consumer", &self.durable);
        set(headers, "Dlq-Deliveries", &letter.deliveries.to_string());
        set(headers, "Dlq-Time", &humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        // A repeat after a crash between storing and ending is stored once. The time tells a message from
        // the one that had its sequence before the stream was recreated.
        let time = place.map_or(0, |place| place.timestamp);
        set(headers, "Nats-Msg-Id", &format!("dlq.{}.{}.{sequence}.{time}", self.source, self.durable));
    }
}

fn kept_name(name: &HeaderName, is_letter: bool) -> HeaderName {
    let text: &str = name.as_ref();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let is_renamed = begins(ACTED_ON) || is_letter && begins(OF_A_LETTER);
    let renamed = is_renamed.then(|| format!("{KEPT_PREFIX}{text}").parse().ok()).flatten();
    renamed.unwrap_or_else(|| name.clone())
}

/// Reasons may be exception texts, so they are made fit for a header: one line of bounded length.
fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let line: String =
        value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_VALUE).collect();
    headers.insert(name, line.parse().unwrap_or_else(|_| HeaderValue::new()));
}

/// A subject as it is, however long: a message is replayed to it.
fn whole(subject: &str) -> HeaderValue {
    subject.parse().unwrap_or_else(|_| HeaderValue::new())
}

/// Bytes of the headers on the wire: `NATS/1.0`, a line each, and the line ends.
pub(crate) fn wire_size(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| name.len() + value.as_str().len() + 4)
    });
    12 + lines.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters() -> DeadLetters {
        DeadLetters::of(&ConsumerOptions::pull("orders", "billing"))
    }

    fn letter(headers: HeaderMap, payload: &'static [u8]) -> DeadLetter {
        let message = Message::new(async_nats::Message {
            subject: "orders.created".into(),
            reply: Some("$JS.ACK.orders.billing.4.71.93.1700000000000000001.5".into()),
            payload: payload.into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: payload.len(),
        });
        let error = Some("ValueError: no\r\nsuch customer".into());
        DeadLetter { message, reason: "attempts exhausted".into(), error, raw_headers: None, deliveries: 4 }
    }

    #[test]
    fn headers_that_the_server_acts_on_are_kept_under_another_name() {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "original");
        headers.insert("nats-rollup", "all");
        headers.insert("Trace", "abc");
        let (copy, _) = letters().fit(&letter(headers, b"{}"), 1_000_000);
        assert_eq!(copy.get("Dlq-Header-Nats-Msg-Id").unwrap().as_str(), "original");
        assert_eq!(copy.get("Dlq-Header-nats-rollup").unwrap().as_str(), "all");
        assert!(copy.get("nats-rollup").is_none());
        assert_eq!(copy.get("Trace").unwrap().as_str(), "abc");
        assert_eq!(copy.get("Nats-Msg-Id").unwrap().as_str(), "dlq.orders.billing.71.1700000000000000001");
    }

    #[test]
    fn a_dead_letter_of_a_dead_letter_keeps_the_words_on_the_first_death() {
        let mut first = HeaderMap::new();
        first.insert("Dlq-Reason", "no card");
        first.insert("Dlq-Header-Nats-Msg-Id", "original");
        let (copy, _) = letters().fit(&letter(first, b"{}"), 1_000_000);
        assert_eq!(copy.get("Dlq-Reason").unwrap().as_str(), "attempts exhausted");
        assert_eq!(copy.get("Dlq-Header-Dlq-Reason").unwrap().as_str(), "no card");
        assert_eq!(copy.get("Dlq-Header-Dlq-Header-Nats-Msg-Id").unwrap().as_str(), "original");
    }

    #[test]
    fn an_error_of_several_lines_fits_into_a_header() {
        let (copy, _) = letters().fit(&letter(HeaderMap::new(), b"{}"), 1_000_000);
        assert_eq!(copy.get("Dlq-Error").unwrap().as_str(), "ValueError: no  such customer");
    }

    #[test]
    fn a_payload_too_large_for_the_copy_is_kept_apart_and_pointed_at() {
        let (copy, payload) = letters().fit(&letter(HeaderMap::new(), &[b'x'; 900]), 1_000);
        assert!(payload.is_empty());
        assert!(copy.get("Dlq-Payload").is_some());
        assert_eq!(copy.get("Dlq-Sequence").unwrap().as_str(), "71");
    }
}
