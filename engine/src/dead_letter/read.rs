//! Dead letters that are stored: looked at one by one, and deleted. [`replay`](crate::dead_letter::replay) sends them back.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::connect::Connection;
use crate::dead_letter::format::{self, OwnHeaders, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::call;
use crate::jetstream::info::stream_info;
use crate::jetstream::stored::{self, Stored};

/// The server's errors when it should delete a message that is gone: between others, or at the end.
const NOTHING_TO_DELETE: [u64; 2] = [10043, 10057];

/// Dead letters asked for at once: first, and then so that their payloads take [`BYTES_AT_ONCE`].
const FIRST_AT_ONCE: u64 = 64;
const MOST_AT_ONCE: u64 = 512;
const BYTES_AT_ONCE: u64 = 8 * 1024 * 1024;

/// Which dead letters are meant: those that fit everything that is given.
///
/// ```
/// use nats_consumer::Selection;
/// use std::time::Duration;
///
/// let recent = Selection::default().consumer("billing").newer_than(Duration::from_secs(60 * 60));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// The durable that gave the message up.
    pub consumer: Option<String>,
    /// A text that the reason contains.
    pub reason: Option<String>,
    /// Stored longer ago than this.
    pub older_than: Option<Duration>,
    /// Stored within this time.
    pub newer_than: Option<Duration>,
}

impl Selection {
    /// Selects the dead letters of one durable.
    #[must_use]
    pub fn consumer(self, durable: impl Into<String>) -> Self {
        Self { consumer: Some(durable.into()), ..self }
    }

    /// Selects the dead letters whose reason contains a text.
    #[must_use]
    pub fn reason(self, part: impl Into<String>) -> Self {
        Self { reason: Some(part.into()), ..self }
    }

    /// Selects the dead letters that are older than this.
    #[must_use]
    pub fn older_than(self, age: Duration) -> Self {
        Self { older_than: Some(age), ..self }
    }

    /// Selects the dead letters that are newer than this.
    #[must_use]
    pub fn newer_than(self, age: Duration) -> Self {
        Self { newer_than: Some(age), ..self }
    }

    fn takes(&self, letter: &StoredLetter, now: SystemTime) -> bool {
        let age = now.duration_since(letter.stored).unwrap_or_default();
        self.consumer.as_ref().is_none_or(|consumer| *consumer == letter.consumer)
            && self.reason.as_ref().is_none_or(|part| letter.reason.contains(part))
            && self.older_than.is_none_or(|limit| age > limit)
            && self.newer_than.is_none_or(|limit| age <= limit)
    }
}

/// A dead letter as it is stored.
///
/// ```
/// use nats_consumer::StoredLetter;
///
/// fn describe(letter: &StoredLetter) -> String {
///     let error = letter.error.as_deref().unwrap_or("no error");
///     format!("{} gave up after {} deliveries: {error}", letter.consumer, letter.deliveries)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredLetter {
    /// The dead-letter stream it is in.
    pub kept_in: String,
    /// Its number there.
    pub number: u64,
    /// When it was stored.
    pub stored: SystemTime,
    /// The stream of the message.
    pub stream: String,
    /// The message's place in that stream.
    pub sequence: u64,
    /// The message's subject.
    pub subject: String,
    /// The durable that gave the message up.
    pub consumer: String,
    /// Why it was given up.
    pub reason: String,
    /// The last error of its handler.
    pub error: Option<String>,
    /// How often the message was delivered.
    pub deliveries: u64,
    /// The message's headers, as name and value; a name may occur several times.
    pub headers: Vec<(String, String)>,
    /// The message's payload. `None` where it was too large for the copy and is kept apart.
    pub payload: Option<Bytes>,
    /// When the message was stored in its stream, in nanoseconds since 1970; `None` where nothing tells.
    pub(crate) sent: Option<u128>,
    /// Whether its headers were too large for the copy and are kept apart; a replay has them.
    pub(crate) headers_are_apart: bool,
}

impl StoredLetter {
    /// Subject of a part that is stored apart.
    pub(crate) fn apart_subject(&self, part: Part) -> String {
        format::apart_subject(&self.stream, &self.consumer, part, self.sequence, self.sent)
    }
}

/// The dead letters of a stream that were there when this was opened, oldest first.
///
/// ```
/// use nats_consumer::{Connection, DeadLetters, Selection, replay};
///
/// # async fn example(connection: Connection) -> nats_consumer::Result<()> {
/// let mut letters = DeadLetters::open(&connection, "orders", Selection::default().consumer("billing")).await?;
/// while let Some(letter) = letters.next().await? {
///     println!("{} at {}: {}", letter.subject, letter.sequence, letter.reason);
///     replay(&connection, &letter).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct DeadLetters {
    connection: Connection,
    stream: String,
    selection: Selection,
    opened: SystemTime,
    is_newest_first: bool,
    /// The numbers that were not asked for yet.
    first: u64,
    last: u64,
    at_once: u64,
    found: VecDeque<Stored>,
}

impl DeadLetters {
    /// Opens the dead letters of `stream`. What becomes a dead letter later is not among them, so that
    /// replaying comes to an end even where the messages fail again.
    ///
    /// # Errors
    /// [`ErrorKind::StreamNotFound`] when the server has neither dead letters of the stream nor the stream.
    pub async fn open(connection: &Connection, stream: &str, selection: Selection) -> Result<Self> {
        let kept_in = format::stream_of(stream);
        let (first, last) = match stream_info(connection, &kept_in).await {
            Ok(info) => (info.state.first_seq.max(1), info.state.last_seq),
            Err(error) if error.kind() == ErrorKind::StreamNotFound => {
                expect_stream(connection, stream).await?;
                (1, 0)
            }
            Err(error) => return Err(error),
        };
        let opened = SystemTime::now();
        let first = match selection.newer_than.and_then(|age| opened.checked_sub(age)) {
            Some(since) => first_since(connection, &kept_in, since, first, last).await?,
            None => first,
        };
        Ok(Self {
            connection: connection.clone(),
            stream: stream.to_owned(),
            selection,
            opened,
            is_newest_first: false,
            first,
            last,
            at_once: FIRST_AT_ONCE,
            found: VecDeque::new(),
        })
    }

    /// The same, newest first.
    #[must_use]
    pub fn newest_first(self) -> Self {
        Self { is_newest_first: true, ..self }
    }

    /// The next one that is selected; `None` after the last.
    ///
    /// # Errors
    /// What the JetStream API answered.
    pub async fn next(&mut self) -> Result<Option<StoredLetter>> {
        loop {
            while let Some(found) = self.found.pop_front() {
                let letter = read(format::stream_of(&self.stream), found);
                if self.selection.takes(&letter, self.opened) {
                    return Ok(Some(letter));
                }
            }
            if self.first > self.last {
                return Ok(None);
            }
            self.load().await?;
        }
    }

    /// Asks for the next numbers, all at once: one after the other, 100,000 of them would take a minute.
    async fn load(&mut self) -> Result<()> {
        let (from, to) = if self.is_newest_first {
            (self.first.max(self.last.saturating_sub(self.at_once - 1)), self.last)
        } else {
            (self.first, self.last.min(self.first + (self.at_once - 1)))
        };
        let kept_in = format::stream_of(&self.stream);
        let asked = (from..=to)
            .map(async |number| stored::get(&self.connection, &kept_in, &json!({ "seq": number })).await);
        let found: Vec<Stored> = try_join_all(asked).await?.into_iter().flatten().collect();
        // Twice as many at most: the next ones may be larger.
        self.at_once = as_many_as_fit(&found, MOST_AT_ONCE.min(2 * self.at_once)).unwrap_or(self.at_once);
        let letters = found.into_iter().filter(|found| self.is_letter(&found.subject));
        if self.is_newest_first {
            self.found = letters.rev().collect();
            self.last = from - 1;
            return Ok(());
        }
        self.found = letters.collect();
        self.first = to + 1;
        if self.found.is_empty() {
            self.skip_gap(&kept_in).await?;
        }
        Ok(())
    }

    /// Goes on with the next number that there is: many in a row may be deleted.
    async fn skip_gap(&mut self, kept_in: &str) -> Result<()> {
        let durable = self.selection.consumer.as_deref().unwrap_or("*");
        let next = json!({ "seq": self.first, "next_by_subj": format::subject_of(&self.stream, durable) });
        let found = stored::get(&self.connection, kept_in, &next).await?;
        self.first = found.map_or(self.last, |found| found.sequence - 1) + 1;
        Ok(())
    }

    /// Whether it is a dead letter of the selected durable, and not a part of one that is kept apart.
    fn is_letter(&self, subject: &str) -> bool {
        let durable = format::durable_of(&self.stream, subject);
        let selected = self.selection.consumer.as_deref();
        durable.is_some_and(|durable| selected.is_none_or(|selected| selected == durable))
    }
}

/// How many messages of this size are asked for at once, up to `most`; `None` without a message.
fn as_many_as_fit(found: &[Stored], most: u64) -> Option<u64> {
    let bytes: u64 = found.iter().map(|each| each.payload.len() as u64 + 1).sum();
    let many = BYTES_AT_ONCE * found.len() as u64;
    many.checked_div(bytes).map(|fit| fit.clamp(1, most))
}

/// The first number whose message was stored at `since` or later, found by halves.
async fn first_since(
    connection: &Connection,
    kept_in: &str,
    since: SystemTime,
    mut first: u64,
    last: u64,
) -> Result<u64> {
    let mut end = last + 1;
    while first < end {
        let middle = first + (end - first) / 2;
        let next = json!({ "seq": middle, "next_by_subj": "dlq.>" });
        match stored::get(connection, kept_in, &next).await? {
            Some(found) if found.time < since => first = found.sequence + 1,
            _ => end = middle,
        }
    }
    Ok(first)
}

/// The dead letter of `stream` with this number; `None` where there is none.
///
/// # Errors
/// [`ErrorKind::StreamNotFound`] when the stream has no dead letters, or what the JetStream API answered.
pub async fn get(connection: &Connection, stream: &str, number: u64) -> Result<Option<StoredLetter>> {
    if number == 0 {
        // The server would answer with another message.
        return Ok(None);
    }
    let kept_in = format::stream_of(stream);
    let found = stored::get(connection, &kept_in, &json!({ "seq": number })).await?;
    Ok(found.map(|found| read(kept_in, found)))
}

/// Deletes the dead letter, and its parts that are stored apart. One that is gone already is not an error.
///
/// # Errors
/// What the JetStream API answered.
pub async fn delete(connection: &Connection, letter: &StoredLetter) -> Result<()> {
    let parts = [(Part::Payload, letter.payload.is_none()), (Part::Headers, letter.headers_are_apart)];
    for (part, _) in parts.into_iter().filter(|(_, is_apart)| *is_apart) {
        let filter = letter.apart_subject(part);
        call(connection, &format!("STREAM.PURGE.{}", letter.kept_in), &json!({ "filter": filter })).await?;
    }
    let subject = format!("STREAM.MSG.DELETE.{}", letter.kept_in);
    match call(connection, &subject, &json!({ "seq": letter.number, "no_erase": true })).await {
        Err(error) if matches!(error.kind(), ErrorKind::Api { err_code, .. } if NOTHING_TO_DELETE.contains(&err_code)) => {
            Ok(())
        }
        answer => answer.map(drop),
    }
}

async fn expect_stream(connection: &Connection, stream: &str) -> Result<()> {
    match stream_info(connection, stream).await {
        Err(error) if error.kind() == ErrorKind::StreamNotFound => Err(Error::new(
            ErrorKind::StreamNotFound,
            format!("The stream `{stream}` does not exist, and it has no dead letters. Check the name."),
        )),
        answer => answer.map(drop),
    }
}

fn read(kept_in: String, stored: Stored) -> StoredLetter {
    let block = String::from_utf8_lossy(&stored.headers);
    let lines: Vec<(&str, &str)> = format::lines(&block).collect();
    letter_of(kept_in, stored.sequence, stored.time, &lines, stored.payload.into())
}

/// Returns the dead letter that is stored in `kept_in` with these headers. For a model of a server.
#[doc(hidden)]
pub fn letter_of(
    kept_in: String,
    number: u64,
    stored: SystemTime,
    lines: &[(&str, &str)],
    payload: Bytes,
) -> StoredLetter {
    let own = OwnHeaders::read(lines);
    StoredLetter {
        kept_in,
        number,
        stored,
        stream: own.stream,
        sequence: own.sequence,
        subject: own.subject,
        consumer: own.durable,
        reason: own.reason,
        error: own.error,
        deliveries: own.deliveries,
        headers: format::original_headers(lines),
        payload: (!own.payload_is_apart).then_some(payload),
        sent: own.sent,
        headers_are_apart: own.headers_are_apart,
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use proptest::prelude::*;

    use crate::config::ConsumerOptions;
    use crate::dead_letter::store::{DeadLetter, DeadLetterStore};
    use crate::message::Message;

    use super::*;

    fn of_size(bytes: usize) -> Stored {
        let time = SystemTime::UNIX_EPOCH;
        Stored {
            sequence: 1,
            subject: "dlq.orders.billing".into(),
            headers: Vec::new(),
            payload: vec![0; bytes],
            time,
        }
    }

    #[test]
    fn as_many_dead_letters_are_asked_for_as_fit_and_at_most_twice_as_many_as_before() {
        assert_eq!(as_many_as_fit(&[of_size(10)], 128), Some(128));
        assert_eq!(as_many_as_fit(&[of_size(1_000_000)], 128), Some(8));
        assert_eq!(as_many_as_fit(&[], 128), None);
    }

    fn header() -> impl Strategy<Value = (String, String)> {
        let names = prop_oneof![
            "[!-9;-~]{1,8}",
            prop::sample::select(vec![
                "Nats-Msg-Id",
                "nats-rollup",
                "Nats-Expected-Stream",
                "NATS-TTL",
                "N\u{e4}ts-"
            ])
            .prop_map(str::to_owned),
        ];
        // As they arrive: on one line, without white space around them.
        (names, "\\PC{0,9}").prop_map(|(name, value)| (name, value.trim().to_owned()))
    }

    proptest! {
        #[test]
        fn a_dead_letter_is_read_as_it_was_stored(
            subject in "[a-z\u{e4}]{1,9}(\\.[a-z]{1,40}){0,60}",
            (reason, error) in (any::<String>(), prop::option::of(any::<String>())),
            (sequence, deliveries, time) in (1..u64::MAX, any::<u64>(), 1..i64::MAX),
            headers in prop::collection::vec(header(), 0..6),
            payload in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut original = HeaderMap::new();
            let mut expected = Vec::new();
            for (name, value) in headers {
                if let Ok(name) = name.parse::<async_nats::HeaderName>() {
                    original.append(name.clone(), value.as_str());
                    expected.push((AsRef::<str>::as_ref(&name).to_owned(), value));
                }
            }
            let message = Message::new(async_nats::Message {
                subject: subject.as_str().into(),
                reply: Some(format!("$JS.ACK.orders.billing.1.{sequence}.7.{time}.0").into()),
                payload: payload.clone().into(),
                headers: Some(original),
                status: None,
                description: None,
                length: 0,
            });
            let letter = DeadLetter { message, reason: reason.clone(), error, raw_headers: None, deliveries };
            let store = DeadLetterStore::of(&ConsumerOptions::pull("orders", "billing"));
            let copy = store.fit(&letter, 1 << 20);
            let found = Stored {
                sequence: 17,
                subject: "dlq.orders.billing".into(),
                headers: format::block(Some(&copy.headers)).into(),
                payload: copy.payload.to_vec(),
                time: SystemTime::UNIX_EPOCH,
            };
            let mut read = read("orders-dlq".into(), found);
            prop_assert_eq!((read.subject, read.sequence, read.deliveries), (subject, sequence, deliveries));
            prop_assert_eq!((read.stream.as_str(), read.consumer.as_str()), ("orders", "billing"));
            prop_assert_eq!(read.sent, Some(u128::try_from(time).unwrap()));
            prop_assert_eq!(read.payload.as_deref(), Some(payload.as_slice()));
            prop_assert_eq!(read.error.is_some(), letter.error.is_some());
            let words = |text: &str| text.split(|c: char| c.is_whitespace() || c.is_control())
                .filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&read.reason), words(&reason.chars().take(1000).collect::<String>()));
            read.headers.sort();
            expected.sort();
            prop_assert_eq!(read.headers, expected);
        }

        #[test]
        fn no_dead_letter_panics(
            block in prop::collection::vec(any::<u8>(), 0..80),
            lines in "((Dlq-(Sequence|Payload|Header-|Deliveries)|Nats-Msg-Id|\\PC{0,3}):?[0-9. \\PC]{0,24}(\r\n|\n)){0,6}",
        ) {
            let found = |headers: Vec<u8>| Stored {
                sequence: 1,
                subject: String::new(),
                headers,
                payload: Vec::new(),
                time: SystemTime::UNIX_EPOCH,
            };
            let _ = read("orders-dlq".into(), found(block)).apart_subject(Part::Payload);
            let letter = read("orders-dlq".into(), found(format!("NATS/1.0\r\n{lines}\r\n").into()));
            let _ = Selection::default().takes(&letter, SystemTime::UNIX_EPOCH);
        }
    }

    fn stored(headers: &str, payload: &str) -> StoredLetter {
        let found = Stored {
            sequence: 17,
            subject: "dlq.orders.billing".into(),
            headers: format!("NATS/1.0\r\n{headers}\r\n").into(),
            payload: payload.into(),
            time: SystemTime::UNIX_EPOCH,
        };
        read("orders-dlq".into(), found)
    }

    #[test]
    fn a_dead_letter_is_told_apart_from_its_message() {
        let headers = "Trace: abc\r\nTag: one\r\nTag: two\r\nDlq-Header-Nats-TTL: 1h\r\nDlq-Reason: worker lost\r\n\
                       Dlq-Subject: orders.created\r\nDlq-Sequence: 71\r\nNats-Msg-Id: dlq.orders.billing.71.123\r\n";
        let letter = stored(headers, "{}");
        assert_eq!((letter.subject.as_str(), letter.sequence), ("orders.created", 71));
        assert_eq!((letter.reason.as_str(), letter.number, letter.sent), ("worker lost", 17, Some(123)));
        let own = [("Trace", "abc"), ("Tag", "one"), ("Tag", "two"), ("Nats-TTL", "1h")];
        assert_eq!(letter.headers, own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(letter.payload.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn a_payload_that_stayed_behind_is_not_an_empty_one() {
        assert_eq!(stored("Dlq-Payload: omitted\r\n", "").payload, None);
        assert_eq!(stored("", "").payload.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_selection_takes_what_fits_all_of_it() {
        let letter = stored("Dlq-Reason: worker lost\r\nDlq-Consumer: billing\r\n", "");
        let now = letter.stored + Duration::from_secs(60);
        let takes = |selection: Selection| selection.takes(&letter, now);
        let text = |text: &str| Some(text.to_owned());
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert!(takes(Selection::default()));
        assert!(takes(Selection { consumer: text("billing"), reason: text("lost"), ..Selection::default() }));
        assert!(!takes(Selection { consumer: text("bill"), ..Selection::default() }));
        assert!(!takes(Selection { reason: text("exhausted"), ..Selection::default() }));
        assert!(takes(Selection {
            older_than: seconds(59),
            newer_than: seconds(61),
            ..Selection::default()
        }));
        assert!(!takes(Selection { older_than: seconds(61), ..Selection::default() }));
        assert!(!takes(Selection { newer_than: seconds(59), ..Selection::default() }));
    }
}
