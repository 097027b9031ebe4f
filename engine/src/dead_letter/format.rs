//! The shape of a dead letter: its stream, its subjects and its headers, for writing, reading and replay.

use std::time::SystemTime;

use async_nats::{HeaderMap, HeaderName, HeaderValue};

/// Prefix of the headers that a dead letter has of its own. If its message is itself a dead letter, their first values
/// are kept behind [`KEPT_HEADER`], so that a restored one still tells of the first death.
const OWN_PREFIX: &str = "Dlq-";

/// Prefix of headers that make the server act on a message: refuse it, purge the stream, expire it, schedule it, count
/// it or take it for a duplicate.
const SERVER_PREFIX: &str = "Nats-";

/// Prefix under which headers are kept that may not be in force in the copy.
pub(crate) const KEPT_HEADER: &str = "Dlq-Header-";

pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(crate) const REASON: &str = "Dlq-Reason";
const ERROR: &str = "Dlq-Error";
const SUBJECT: &str = "Dlq-Subject";
const STREAM: &str = "Dlq-Stream";
const SEQUENCE: &str = "Dlq-Sequence";
const CONSUMER: &str = "Dlq-Consumer";
const DELIVERIES: &str = "Dlq-Deliveries";
const TIME: &str = "Dlq-Time";

/// Says where the payload is, if it is kept apart.
const PAYLOAD_APART: &str = "Dlq-Payload";
/// Says where the headers are, if they are kept apart.
const HEADERS_APART: &str = "Dlq-Headers-Apart";

/// Headers that could not be parsed, as a block in base64.
pub(crate) const RAW_HEADERS: &str = "Dlq-Headers";

/// The id of a dead letter that was itself replayed, as a message of its stream.
pub(crate) const LETTER_ID: &str = "Dlq-Letter-Id";
/// The id of a replayed message when it was published first.
pub(crate) const ORIGINAL_ID: &str = "Dlq-Original-Msg-Id";
/// Stream, sequence and time of a replayed message that was published without an id.
pub(crate) const ORIGINAL_PLACE: &str = "Dlq-Original-Place";
/// The number of replays of a message.
pub(crate) const REPLAYS: &str = "Dlq-Replays";

/// Headers that a dead letter has of its own, beside those of its message.
const OWN: [&str; 12] = [
    REASON,
    ERROR,
    SUBJECT,
    STREAM,
    SEQUENCE,
    CONSUMER,
    DELIVERIES,
    TIME,
    PAYLOAD_APART,
    HEADERS_APART,
    LETTER_ID,
    MESSAGE_ID,
];

/// Bytes of headers above which a stream refuses a message (error 10097, seen on nats-server 2.15.1).
pub(crate) const LARGEST_HEADERS: usize = 65_535;

/// Longest value of an own header in characters: an exception's text may be longer, and the copy has to be stored.
const LONGEST_VALUE: usize = 1000;

/// The stream that keeps the dead letters of `stream`.
pub(crate) fn stream_of(stream: &str) -> String {
    format!("{stream}-dlq")
}

/// The subjects of that stream.
pub(crate) fn subjects_of(stream: &str) -> String {
    format!("dlq.{stream}.>")
}

/// The subject of all dead letters of a durable; `*` stands for any durable.
pub(crate) fn subject_of(stream: &str, durable: &str) -> String {
    format!("dlq.{stream}.{durable}")
}

/// The durable whose dead letter is stored at `subject`; `None` for a part that is kept apart.
pub(crate) fn durable_of<'a>(stream: &str, subject: &'a str) -> Option<&'a str> {
    let durable = subject.strip_prefix("dlq.")?.strip_prefix(stream)?.strip_prefix('.')?;
    (!durable.contains('.')).then_some(durable)
}

/// A part of a message that may be too large for its dead letter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Payload,
    Headers,
}

/// The headers that a dead letter has of its own: what is known of its message and its death.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnHeaders {
    pub(crate) stream: String,
    pub(crate) durable: String,
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    /// When the message was stored in its stream, in nanoseconds since 1970; `None` if that is not known.
    pub(crate) sent: Option<u128>,
    pub(crate) reason: String,
    pub(crate) error: Option<String>,
    pub(crate) deliveries: u64,
    pub(crate) payload_is_apart: bool,
    pub(crate) headers_are_apart: bool,
}

impl OwnHeaders {
    /// The subject of a part that is kept apart.
    pub(crate) fn apart_subject(&self, part: Part) -> String {
        apart_subject(&self.stream, &self.durable, part, self.sequence, self.sent)
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        set(headers, REASON, &self.reason);
        if let Some(error) = &self.error {
            set(headers, ERROR, error);
        }
        // Not shortened: the message is replayed to it.
        headers.insert(SUBJECT, self.subject.parse().unwrap_or_else(|_| HeaderValue::new()));
        set(headers, STREAM, &self.stream);
        set(headers, SEQUENCE, &self.sequence.to_string());
        set(headers, CONSUMER, &self.durable);
        set(headers, DELIVERIES, &self.deliveries.to_string());
        set(headers, TIME, &humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        set(headers, MESSAGE_ID, &self.id());
        if self.headers_are_apart {
            let apart = self.apart_subject(Part::Headers);
            set(headers, HEADERS_APART, &format!("too large for the dead letter; they are at {apart}"));
        }
        if self.payload_is_apart {
            let apart = self.apart_subject(Part::Payload);
            let text = format!("kept apart: too large with the headers; it is at {apart}");
            set(headers, PAYLOAD_APART, &text);
        }
    }

    pub(crate) fn read(lines: &[(&str, &str)]) -> Self {
        let value = |name: &str| lines.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let text = |name: &str| value(name).unwrap_or_default().to_owned();
        let number = |name: &str| value(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        Self {
            stream: text(STREAM),
            durable: text(CONSUMER),
            subject: text(SUBJECT),
            sequence: number(SEQUENCE),
            sent: value(LETTER_ID).or_else(|| value(MESSAGE_ID)).and_then(sent_of),
            reason: text(REASON),
            error: value(ERROR).map(str::to_owned),
            deliveries: number(DELIVERIES),
            payload_is_apart: value(PAYLOAD_APART).is_some(),
            headers_are_apart: value(HEADERS_APART).is_some(),
        }
    }

    /// A repeat after a crash between storing and ending is stored once. The time tells a message from the one that had
    /// its sequence before the stream was recreated.
    fn id(&self) -> String {
        let Self { stream, durable, sequence, sent, .. } = self;
        format!("dlq.{stream}.{durable}.{sequence}.{}", sent.unwrap_or_default())
    }
}

/// The time in a dead letter's id. Streams and durables have no dots in their names. One that is stored again, because
/// the stream took it for a duplicate of one that is gone, has a number behind the time.
fn sent_of(id: &str) -> Option<u128> {
    id.split('.').nth(4)?.parse().ok().filter(|time| *time > 0)
}

/// The place of a message in its stream, in words. `sent` is when it was stored, in nanoseconds since 1970.
pub(crate) fn place(stream: &str, sequence: u64, sent: u128) -> String {
    format!("{stream}:{sequence}@{sent}")
}

/// The subject of a part that is too large for its dead letter. `sent` is when its message was stored, in nanoseconds: a
/// recreated stream gives its sequences to other messages.
pub(crate) fn apart_subject(
    stream: &str,
    durable: &str,
    part: Part,
    sequence: u64,
    sent: Option<u128>,
) -> String {
    let part = match part {
        Part::Payload => "payload",
        Part::Headers => "headers",
    };
    format!("dlq.{stream}.{durable}.{part}.{sequence}.{}", sent.unwrap_or_default())
}

/// The headers of a message as its dead letter keeps them.
pub(crate) fn kept_headers(headers: Option<&HeaderMap>) -> HeaderMap {
    let is_letter = headers.is_some_and(|headers| headers.get(REASON).is_some());
    let mut kept = HeaderMap::new();
    for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
        let name = kept_name(name, is_letter);
        for value in values {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn kept_name(name: &HeaderName, is_letter: bool) -> HeaderName {
    let text: &str = name.as_ref();
    let is_renamed = begins_with(text, SERVER_PREFIX) || is_letter && begins_with(text, OWN_PREFIX);
    let renamed = is_renamed.then(|| format!("{KEPT_HEADER}{text}").parse().ok()).flatten();
    renamed.unwrap_or_else(|| name.clone())
}

/// The headers of the message, from those of its dead letter.
pub(crate) fn original_headers(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    let kept = lines.iter().filter(|(name, _)| !OWN.contains(name));
    let original = |name: &str| name.strip_prefix(KEPT_HEADER).unwrap_or(name).to_owned();
    kept.map(|(name, value)| (original(name), (*value).to_owned())).collect()
}

/// Whether a header's name begins with `prefix`, in upper or lower case.
pub(crate) fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Reasons may be exception texts, so they are made fit for a header: one line of bounded length.
fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let line: String =
        value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_VALUE).collect();
    headers.insert(name, line.parse().unwrap_or_else(|_| HeaderValue::new()));
}

/// Headers as a block, the way they travel.
pub(crate) fn block(headers: Option<&HeaderMap>) -> String {
    let lines = headers.into_iter().flat_map(HeaderMap::iter).flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| format!("{name}: {}\r\n", value.as_str()))
    });
    format!("NATS/1.0\r\n{}\r\n", lines.collect::<String>())
}

/// Names and values of a header block.
pub(crate) fn lines(block: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = block.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim_start()))
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

    fn own() -> OwnHeaders {
        OwnHeaders {
            stream: "orders".into(),
            durable: "billing".into(),
            subject: "orders.created".into(),
            sequence: 71,
            sent: Some(123),
            reason: "attempts exhausted".into(),
            error: Some("ValueError: no customer".into()),
            deliveries: 4,
            payload_is_apart: true,
            headers_are_apart: true,
        }
    }

    #[test]
    fn own_headers_are_read_as_they_were_written() {
        let mut headers = HeaderMap::new();
        own().write(&mut headers);
        let block = block(Some(&headers));
        let lines: Vec<_> = lines(&block).collect();
        assert_eq!(OwnHeaders::read(&lines), own());
        assert_eq!(original_headers(&lines), []);
        assert_eq!(wire_size(&headers), block.len());
    }

    #[test]
    fn the_durable_is_in_the_subject_of_a_letter_and_not_of_a_part() {
        assert_eq!(durable_of("orders", &subject_of("orders", "billing")), Some("billing"));
        assert_eq!(durable_of("orders", &own().apart_subject(Part::Payload)), None);
        assert_eq!(durable_of("order", "dlq.orders.billing"), None);
    }

    #[test]
    fn a_letter_that_was_stored_again_keeps_the_time_of_its_message() {
        let id = "dlq.orders.billing.7.1796042244689239413";
        assert_eq!(sent_of(id), Some(1_796_042_244_689_239_413));
        assert_eq!(sent_of(&format!("{id}.3")), sent_of(id));
        assert_eq!(sent_of("dlq.orders.billing.7.0"), None);
        assert_eq!(sent_of("order-7"), None);
    }
}
