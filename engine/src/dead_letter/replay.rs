//! A dead letter is published again, as its message was; only when that is stored, the dead letter goes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;

use crate::connect::Connection;
use crate::dead_letter::format::{
    KEPT_HEADER, LARGEST_HEADERS, LETTER_ID, MESSAGE_ID, ORIGINAL_ID, ORIGINAL_PLACE, Part, REASON, REPLAYS,
    begins_with, lines, place, wire_size,
};
use crate::dead_letter::read::{StoredLetter, delete};
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::stored;
use crate::publish::publisher::Publisher;
use crate::publish::{Outgoing, PublishAck, publish};
use crate::route::validate_publish_subject;

/// How long a stream may take to confirm the message.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the streams may take to confirm all messages that are replayed at once.
const MANY_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers that would make the server act again: conditions that held for the first publishing only, a
/// roll-up that deletes what came before, a schedule, a batch, a count, a place in another stream. They
/// stay under the name that the dead letter gave them.
const NOT_IN_FORCE: [&str; 7] = [
    "Nats-Expected-",
    "Nats-Rollup",
    "Nats-Schedule",
    "Nats-Batch-",
    "Nats-Incr",
    "Nats-Counter-",
    "Nats-Stream-Source",
];

/// Publishes the message of the dead letter to its subject, waits until a stream has stored it, and then
/// deletes the dead letter. Every consumer of the subject gets the message, as at its first publishing.
///
/// Payload and headers are those of the message, but `Nats-Msg-Id` is made from the dead letter: the
/// first one would be taken for a duplicate, and with this one a replay that is repeated, because its
/// confirmation was lost, is stored once. The first one is in `Dlq-Original-Msg-Id`; without one, `Dlq-Original-Place` has
/// stream, sequence and time of the message. `Dlq-Replays` counts the replays. A message that was itself a dead letter is restored as that: its headers tell of the first death.
///
/// ```
/// use nats_consumer::{Connection, DeadLetters, Selection, replay};
///
/// # async fn example(connection: Connection) -> nats_consumer::Result<()> {
/// let mut letters = DeadLetters::open(&connection, "orders", Selection::default()).await?;
/// if let Some(oldest) = letters.next().await? {
///     let ack = replay(&connection, &oldest).await?;
///     println!("it is message {} of {} now", ack.sequence, ack.stream);
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::NotReplayable`] when payload or headers were kept apart and are no longer there, and as
/// [`publish`](crate::publish::publish()). The dead letter stays then.
pub async fn replay(connection: &Connection, letter: &StoredLetter) -> Result<PublishAck> {
    let outgoing = message_of(connection, letter).await?;
    let ack = publish(connection, outgoing, PUBLISH_TIMEOUT).await?;
    delete(connection, letter).await?;
    Ok(ack)
}

/// Replays dead letters in their order without waiting for each, and returns what came of each: see [`replay()`].
///
/// # Errors
/// As [`Publisher::publish_many`]: nothing was published then.
pub async fn replay_many(
    connection: &Connection,
    letters: &[StoredLetter],
) -> Result<Vec<Result<PublishAck>>> {
    let made = join_all(letters.iter().map(|letter| message_of(connection, letter))).await;
    let messages = made.iter().flatten().cloned().collect();
    let mut results =
        Publisher::on(connection.clone()).publish_many(messages, MANY_TIMEOUT).await?.into_iter();
    let ends = letters.iter().zip(made).map(|(letter, message)| {
        let answer = message.and_then(|_| results.next().expect("each message has a result"));
        async move {
            let ack = answer?;
            delete(connection, letter).await?;
            Ok(ack)
        }
    });
    Ok(join_all(ends).await)
}

/// The message that a replay publishes, with the parts that are kept apart.
async fn message_of(connection: &Connection, letter: &StoredLetter) -> Result<Outgoing> {
    validate_publish_subject(&letter.subject).map_err(|error| not_replayable(letter, &error))?;
    let payload = match &letter.payload {
        Some(payload) => payload.clone(),
        None => kept_apart(connection, letter).await?,
    };
    if letter.headers_are_apart {
        let whole = StoredLetter { headers: headers_kept_apart(connection, letter).await?, ..letter.clone() };
        outgoing(&whole, payload, connection.max_payload())
    } else {
        outgoing(letter, payload, connection.max_payload())
    }
}

/// Returns the message that a replay of the dead letter publishes, if a server takes `limit` bytes. For a model of a
/// server.
///
/// # Errors
/// [`ErrorKind::NotReplayable`] when it is not a dead letter.
#[doc(hidden)]
pub fn outgoing(letter: &StoredLetter, payload: Bytes, limit: usize) -> Result<Outgoing> {
    let headers = headers(letter, payload.len(), limit)?;
    Ok(Outgoing::with_headers(letter.subject.clone(), headers, payload))
}

async fn headers_kept_apart(connection: &Connection, letter: &StoredLetter) -> Result<Vec<(String, String)>> {
    let subject = letter.apart_subject(Part::Headers);
    let found = stored::get(connection, &letter.kept_in, &json!({ "last_by_subj": subject })).await?;
    let Some(found) = found else {
        let message = format!(
            "The headers of the dead letter {} of `{}` were kept apart, and they are gone. It cannot be replayed; \
             purge it.",
            letter.number, letter.kept_in
        );
        return Err(Error::new(ErrorKind::NotReplayable, message));
    };
    let block = String::from_utf8_lossy(&found.payload);
    Ok(lines(&block).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The payload that was too large for the copy: kept apart, or else still in the stream of the message.
async fn kept_apart(connection: &Connection, letter: &StoredLetter) -> Result<Bytes> {
    let subject = letter.apart_subject(Part::Payload);
    let apart = stored::get(connection, &letter.kept_in, &json!({ "last_by_subj": subject })).await?;
    if let Some(found) = apart {
        return Ok(found.payload.into());
    }
    let found = match stored::get(connection, &letter.stream, &json!({ "seq": letter.sequence })).await {
        Err(error) if error.kind() == ErrorKind::StreamNotFound => None,
        found => found?,
    };
    // A recreated stream gives its sequences to other messages.
    let is_ours = |sent: SystemTime| letter.sent.is_none_or(|time| nanoseconds(sent) == time);
    match found.filter(|found| found.subject == letter.subject && is_ours(found.time)) {
        Some(found) => Ok(found.payload.into()),
        None => Err(Error::new(
            ErrorKind::NotReplayable,
            format!(
                "The payload of the dead letter {} of `{}` was kept apart, and it is gone; so is the message {} of the \
                 stream `{}`. It cannot be replayed; purge it.",
                letter.number, letter.kept_in, letter.sequence, letter.stream
            ),
        )),
    }
}

fn headers(letter: &StoredLetter, payload: usize, limit: usize) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut first_id = None;
    let is_letter = letter.headers.iter().any(|(name, _)| name == REASON);
    let mut replays = 0_u64;
    for (name, value) in &letter.headers {
        if name.eq_ignore_ascii_case(MESSAGE_ID) {
            first_id.get_or_insert(value);
        } else if name == REPLAYS && !is_letter {
            replays = value.parse().unwrap_or_default();
        } else if NOT_IN_FORCE.iter().any(|prefix| begins_with(name, prefix)) {
            append(letter, &mut headers, &format!("{KEPT_HEADER}{name}"), value)?;
        } else {
            append(letter, &mut headers, name, value)?;
        }
    }
    let bare = headers.clone();
    if let Some((name, value)) = origin(letter, &headers, first_id, is_letter) {
        append(letter, &mut headers, name, &value)?;
    }
    if !is_letter {
        append(letter, &mut headers, REPLAYS, &replays.saturating_add(1).to_string())?;
    }
    append(letter, &mut headers, MESSAGE_ID, &fresh_id(letter))?;
    // Where there is no room for an id, the message matters more than the guard against a repeat.
    let size = wire_size(&headers);
    let fits = size <= LARGEST_HEADERS && size + payload <= limit;
    Ok(if fits { headers } else { bare })
}

/// The header that says what the message was at its publisher, where `headers` do not say it yet.
fn origin(
    letter: &StoredLetter,
    headers: &HeaderMap,
    first_id: Option<&String>,
    is_letter: bool,
) -> Option<(&'static str, String)> {
    let is_known = |name: &str| headers.get(name).is_some();
    let (id_name, is_known) = if is_letter {
        (LETTER_ID, is_known(LETTER_ID))
    } else {
        (ORIGINAL_ID, is_known(ORIGINAL_ID) || is_known(ORIGINAL_PLACE))
    };
    match first_id {
        _ if is_known => None,
        Some(id) => Some((id_name, id.clone())),
        None if is_letter => None,
        None => Some((ORIGINAL_PLACE, place(&letter.stream, letter.sequence, letter.sent?))),
    }
}

/// The same at each replay of this dead letter, and of no other.
fn fresh_id(letter: &StoredLetter) -> String {
    format!("replay.{}.{}.{}", letter.kept_in, letter.number, nanoseconds(letter.stored))
}

fn append(letter: &StoredLetter, headers: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let name: HeaderName = name.parse().map_err(|error| not_replayable(letter, &error))?;
    let value: HeaderValue = value.parse().map_err(|error| not_replayable(letter, &error))?;
    headers.append(name, value);
    Ok(())
}

fn not_replayable(letter: &StoredLetter, error: &dyn std::error::Error) -> Error {
    let message = format!(
        "The message {} of `{}` is not a dead letter that can be replayed: {error}. Look at it, then purge it.",
        letter.number, letter.kept_in
    );
    Error::new(ErrorKind::NotReplayable, message)
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &str)]) -> StoredLetter {
        StoredLetter {
            kept_in: "orders-dlq".into(),
            number: 17,
            stored: UNIX_EPOCH + Duration::from_nanos(123),
            stream: "orders".into(),
            sequence: 71,
            subject: "orders.created".into(),
            consumer: "billing".into(),
            reason: "attempts exhausted".into(),
            error: None,
            deliveries: 4,
            headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            payload: Some("{}".into()),
            sent: None,
            headers_are_apart: false,
        }
    }

    fn replayed(given: &[(&str, &str)]) -> Vec<String> {
        let headers = headers(&letter(given), 2, 1_000_000).unwrap();
        let line = |(name, values): (&HeaderName, &Vec<HeaderValue>)| {
            let name: &str = name.as_ref();
            values.iter().map(|value| format!("{name}: {}", value.as_str())).collect::<Vec<_>>()
        };
        let mut lines: Vec<_> = headers.iter().flat_map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_headers_of_the_message_are_restored_and_its_id_is_a_fresh_one() {
        let given =
            [("Trace", "abc"), ("Tag", "one"), ("Tag", "two"), ("Nats-TTL", "1h"), ("Nats-Msg-Id", "a")];
        let expected = [
            "Dlq-Original-Msg-Id: a",
            "Dlq-Replays: 1",
            "Nats-Msg-Id: replay.orders-dlq.17.123",
            "Nats-TTL: 1h",
            "Tag: one",
            "Tag: two",
            "Trace: abc",
        ];
        assert_eq!(replayed(&given), expected);
    }

    #[test]
    fn the_first_id_survives_a_second_replay() {
        let given =
            [("Nats-Msg-Id", "replay.orders-dlq.3.9"), ("Dlq-Original-Msg-Id", "a"), ("Dlq-Replays", "1")];
        let expected = ["Dlq-Original-Msg-Id: a", "Dlq-Replays: 2", "Nats-Msg-Id: replay.orders-dlq.17.123"];
        assert_eq!(replayed(&given), expected);
    }

    #[test]
    fn the_place_of_a_message_without_an_id_survives_a_second_replay() {
        let unnamed = StoredLetter { sent: Some(9), ..letter(&[]) };
        let place = "orders:71@9";
        let first = headers(&unnamed, 2, 1_000_000).unwrap();
        assert_eq!(first.get("Dlq-Original-Place").unwrap().as_str(), place);
        let given =
            [("Dlq-Original-Place", place), ("Dlq-Replays", "1"), ("Nats-Msg-Id", "replay.orders-dlq.3.9")];
        let expected =
            ["Dlq-Original-Place: orders:71@9", "Dlq-Replays: 2", "Nats-Msg-Id: replay.orders-dlq.17.123"];
        assert_eq!(replayed(&given), expected);
    }

    #[test]
    fn conditions_and_roll_ups_are_kept_but_not_in_force() {
        let given = [("Nats-Expected-Last-Sequence", "5"), ("nats-rollup", "all"), ("Nats-Incr", "+1")];
        let expected = [
            "Dlq-Header-Nats-Expected-Last-Sequence: 5",
            "Dlq-Header-Nats-Incr: +1",
            "Dlq-Header-nats-rollup: all",
            "Dlq-Replays: 1",
            "Nats-Msg-Id: replay.orders-dlq.17.123",
        ];
        assert_eq!(replayed(&given), expected);
    }

    #[test]
    fn a_message_that_was_a_dead_letter_is_restored_with_its_own_words_and_ids() {
        let first = "dlq.orders.billing.71.123";
        let given = [("Dlq-Reason", "no card"), ("Dlq-Original-Msg-Id", "a"), ("Nats-Msg-Id", first)];
        let expected = [
            "Dlq-Letter-Id: dlq.orders.billing.71.123",
            "Dlq-Original-Msg-Id: a",
            "Dlq-Reason: no card",
            "Nats-Msg-Id: replay.orders-dlq.17.123",
        ];
        assert_eq!(replayed(&given), expected);
    }

    #[test]
    fn a_message_as_large_as_the_server_takes_is_replayed_without_an_id() {
        assert!(headers(&letter(&[]), 1_000, 1_000).unwrap().is_empty());
    }
}
