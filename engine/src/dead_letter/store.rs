//! The dead-letter stream: what no attempt could handle, kept whole, with the reason.

use std::time::Duration;

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tracing::{debug, info, warn};

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::dead_letter::format::{
    self, LARGEST_HEADERS, MESSAGE_ID, OwnHeaders, Part, RAW_HEADERS, wire_size,
};
use crate::error::{ErrorKind, Result};
use crate::jetstream::beside::create_beside;
use crate::jetstream::info::{StreamInfo, stream_info};
use crate::jetstream::stored;
use crate::message::Message;
use crate::observe::target::DEAD_LETTER;
use crate::publish::{Outgoing, PublishAck, publish_or_create};

/// How long the dead-letter stream may take to confirm a copy.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// The headers as they came, as a block.
    fn block(&self) -> Bytes {
        let raw = self.raw_headers.as_ref().and_then(|raw| STANDARD.decode(raw).ok());
        raw.map_or_else(|| format::block(self.message.headers()).into(), Bytes::from)
    }

    fn own_headers(&self, stream: &str, durable: &str) -> OwnHeaders {
        let place = self.message.metadata().ok();
        OwnHeaders {
            stream: stream.to_owned(),
            durable: durable.to_owned(),
            subject: self.message.subject().to_string(),
            sequence: place.map_or(0, |place| place.stream_sequence),
            sent: place.and_then(|place| u128::try_from(place.timestamp).ok()),
            reason: self.reason.clone(),
            error: self.error.clone(),
            deliveries: self.deliveries,
            payload_is_apart: false,
            headers_are_apart: false,
        }
    }
}

/// A message as the dead-letter stream keeps it.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
    own: OwnHeaders,
}

/// Writes the dead letters of one consumer.
#[derive(Debug)]
pub(crate) struct DeadLetterStore {
    consumer: String,
    source: String,
    durable: String,
    exists: OnceCell<()>,
}

impl DeadLetterStore {
    pub(crate) fn of(options: &ConsumerOptions) -> Self {
        let ConsumerOptions { name, stream, durable, .. } = options;
        Self {
            consumer: name.clone(),
            source: stream.clone(),
            durable: durable.clone(),
            exists: OnceCell::new(),
        }
    }

    /// Makes the stream before there is a dead letter, so that the log names what stands in the way at the start. It only
    /// looks if the worker may not manage durables.
    pub(crate) async fn prepare(&self, connection: &Connection, options: &ConsumerOptions) {
        let (name, subjects) = (format::stream_of(&self.source), format::subjects_of(&self.source));
        let error = match stream_info(connection, &name).await {
            Ok(found) if is_full(&found) => {
                warn!(
                    target: DEAD_LETTER,
                    consumer = options.name,
                    stream = name,
                    "The dead letter stream `{name}` is full, so messages that are given up come again. Replay or purge dead \
                     letters, or raise its limits."
                );
                return;
            }
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::StreamNotFound && !options.manages_durable => {
                info!(
                    target: DEAD_LETTER,
                    consumer = options.name,
                    stream = name,
                    "The dead letter stream `{name}` does not exist yet. The first dead letter creates it, because manage_durables \
                     is False. If this user may not create streams, create it with the subject `{subjects}`."
                );
                return;
            }
            Err(error) if error.kind() == ErrorKind::StreamNotFound => {
                match self.exists.get_or_try_init(|| self.create(connection)).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if error.is_temporary() {
            debug!(target: DEAD_LETTER, consumer = options.name, "The dead letter stream was not looked for: {error}");
            return;
        }
        warn!(
            target: DEAD_LETTER,
            consumer = options.name,
            stream = name,
            "The dead letter stream `{name}` does not exist, so messages that are given up are delivered again: {error} Create it with the \
             subject `{subjects}`, or remove what stands in the way."
        );
    }

    /// Stores the copy and waits until the server has confirmed it.
    pub(crate) async fn store(&self, connection: &Connection, letter: &DeadLetter) -> Result<()> {
        self.exists.get_or_try_init(|| self.create(connection)).await?;
        for copy in self.copies(letter, connection.max_payload()) {
            self.put(connection, copy).await?;
        }
        Ok(())
    }

    /// The messages that the dead letter is stored as: the copy, behind what is kept apart from it.
    fn copies(&self, letter: &DeadLetter, limit: usize) -> Vec<Outgoing> {
        let Copy { headers, payload, own } = self.fit(letter, limit);
        let bare = |subject, payload| Outgoing::with_headers(subject, HeaderMap::new(), payload);
        let mut copies = Vec::new();
        if own.payload_is_apart {
            copies.push(bare(own.apart_subject(Part::Payload), letter.message.payload().clone()));
        }
        if own.headers_are_apart {
            copies.push(bare(own.apart_subject(Part::Headers), letter.block()));
        }
        let subject = format::subject_of(&self.source, &self.durable);
        copies.push(Outgoing::with_headers(subject, headers, payload));
        copies
    }

    async fn put(&self, connection: &Connection, mut copy: Outgoing) -> Result<()> {
        loop {
            let stored = self.publish(connection, copy.clone()).await?;
            if !stored.duplicate || self.is_there(connection, &stored).await? {
                return Ok(());
            }
            // The stream remembers the id of a letter that was purged or replayed. The number is of no other letter.
            let (subject, mut headers, payload) = copy.into_parts();
            let id = headers.get(MESSAGE_ID).map(|id| format!("{}.{}", id.as_str(), stored.sequence));
            headers.insert(MESSAGE_ID, id.unwrap_or_default().as_str());
            copy = Outgoing::with_headers(subject.into_string(), headers, payload);
        }
    }

    async fn publish(&self, connection: &Connection, copy: Outgoing) -> Result<PublishAck> {
        // Somebody may have deleted the stream meanwhile.
        publish_or_create(connection, copy, STORE_TIMEOUT, self.create(connection)).await
    }

    /// Whether the message that this one is a duplicate of is still in the stream. Who may not look has to believe it.
    async fn is_there(&self, connection: &Connection, earlier: &PublishAck) -> Result<bool> {
        match stored::get(connection, &earlier.stream, &json!({ "seq": earlier.sequence })).await {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A stream without limits, unless the account wants them.
    async fn create(&self, connection: &Connection) -> Result<()> {
        let name = format::stream_of(&self.source);
        let config = json!({
            "name": name,
            "subjects": [format::subjects_of(&self.source)],
            "retention": "limits",
            "discard": "new",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
        });
        if create_beside(connection, &self.consumer, &self.source, config).await? {
            info!(target: DEAD_LETTER, consumer = self.consumer, stream = name, "The dead letter stream was created.");
        }
        Ok(())
    }

    /// The copy of a message. If the whole would be too large for the server, the payload is kept apart, without headers,
    /// as it fitted when it was published; so are headers that leave no room for those of the dead letter.
    pub(crate) fn fit(&self, letter: &DeadLetter, limit: usize) -> Copy {
        let mut own = letter.own_headers(&self.source, &self.durable);
        let mut headers = format::kept_headers(letter.message.headers());
        if let Some(raw) = &letter.raw_headers {
            headers.insert(RAW_HEADERS, raw.as_str());
        }
        own.write(&mut headers);
        if wire_size(&headers) > LARGEST_HEADERS {
            own.headers_are_apart = true;
            headers = HeaderMap::new();
            own.write(&mut headers);
        }
        let payload = letter.message.payload().clone();
        if wire_size(&headers) + payload.len() <= limit {
            return Copy { headers, payload, own };
        }
        own.payload_is_apart = true;
        own.write(&mut headers);
        Copy { headers, payload: Bytes::new(), own }
    }
}

/// Whether the stream takes nothing more.
fn is_full(stream: &StreamInfo) -> bool {
    let reached = |limit: &str, count: u64| {
        stream.config.get(limit).and_then(Value::as_u64).is_some_and(|limit| limit > 0 && count >= limit)
    };
    stream.config.get("discard").is_some_and(|discard| discard == "new")
        && (reached("max_msgs", stream.state.messages) || reached("max_bytes", stream.state.bytes))
}

/// Returns the messages that the dead letter of `message` is stored as, the letter last: what a consumer with these
/// options stores, if a server takes `limit` bytes. For a model of a server.
pub fn copies(
    options: &ConsumerOptions,
    message: Message,
    reason: String,
    error: Option<String>,
    limit: usize,
) -> Vec<Outgoing> {
    let deliveries = message.metadata().map_or(1, |place| place.delivered);
    let letter = DeadLetter { message, reason, error, raw_headers: None, deliveries };
    DeadLetterStore::of(options).copies(&letter, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters() -> DeadLetterStore {
        DeadLetterStore::of(&ConsumerOptions::pull("orders", "billing"))
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
        let copy = letters().fit(&letter(headers, b"{}"), 1_000_000).headers;
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
        let copy = letters().fit(&letter(first, b"{}"), 1_000_000).headers;
        assert_eq!(copy.get("Dlq-Reason").unwrap().as_str(), "attempts exhausted");
        assert_eq!(copy.get("Dlq-Header-Dlq-Reason").unwrap().as_str(), "no card");
        assert_eq!(copy.get("Dlq-Header-Dlq-Header-Nats-Msg-Id").unwrap().as_str(), "original");
    }

    #[test]
    fn an_error_of_several_lines_fits_into_a_header() {
        let copy = letters().fit(&letter(HeaderMap::new(), b"{}"), 1_000_000).headers;
        assert_eq!(copy.get("Dlq-Error").unwrap().as_str(), "ValueError: no  such customer");
    }

    #[test]
    fn a_payload_too_large_for_the_copy_is_kept_apart_and_pointed_at() {
        let Copy { headers: copy, payload, .. } =
            letters().fit(&letter(HeaderMap::new(), &[b'x'; 900]), 1_000);
        assert!(payload.is_empty());
        assert!(copy.get("Dlq-Payload").is_some());
        assert_eq!(copy.get("Dlq-Sequence").unwrap().as_str(), "71");
    }
}
