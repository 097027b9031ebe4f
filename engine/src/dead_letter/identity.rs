//! Identity of a message: the same through redeliveries, repeated publishing and replays.

use crate::dead_letter::format::{LETTER_ID, MESSAGE_ID, ORIGINAL_ID, ORIGINAL_PLACE, REASON, place};
use crate::error::Result;
use crate::message::Message;

/// The identity of a message at its publisher: the same for each delivery, for a publish that was repeated with the same
/// `Nats-Msg-Id`, and for a [`replay`](crate::replay) of its dead letter. A program that remembers the identities it has
/// handled, for each durable and subject, handles each message once.
///
/// It is the `Nats-Msg-Id`, or where the message has none, stream, sequence and time. A stream that is recreated counts
/// from 1 again: the time tells its messages from the earlier ones.
///
/// ```
/// use nats_consumer::{Message, identity};
///
/// let paid = Message::builder("orders.paid").header("Nats-Msg-Id", "order-8").build();
/// assert_eq!(identity(&paid)?, "order-8");
/// # Ok::<(), nats_consumer::Error>(())
/// ```
///
/// # Errors
/// As [`Message::metadata`], where the message has no id.
pub fn identity(message: &Message) -> Result<String> {
    // A dead letter that is consumed keeps ids of its message, which are not its own.
    let is_letter = message.header(REASON).is_some();
    let names: &[&str] =
        if is_letter { &[LETTER_ID, MESSAGE_ID] } else { &[ORIGINAL_ID, ORIGINAL_PLACE, MESSAGE_ID] };
    if let Some(id) = names.iter().find_map(|name| message.header(name)) {
        return Ok(id.to_owned());
    }
    let found = message.metadata()?;
    Ok(place(found.stream, found.stream_sequence, u128::try_from(found.timestamp).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn identity_with(headers: &[(&str, &str)]) -> String {
        let stored = SystemTime::UNIX_EPOCH + Duration::from_nanos(123);
        let message = Message::builder("orders.paid").stream("orders").sequence(71).stored_at(stored);
        let message = headers.iter().fold(message, |message, (name, value)| message.header(name, value));
        identity(&message.build()).unwrap()
    }

    #[test]
    fn a_message_without_an_id_is_known_by_its_place_and_time() {
        assert_eq!(identity_with(&[("Trace", "abc")]), "orders:71@123");
    }

    #[test]
    fn a_replayed_message_has_the_identity_that_it_was_published_with() {
        let fresh = ("Nats-Msg-Id", "replay.orders-dlq.17.123");
        assert_eq!(identity_with(&[fresh, ("Dlq-Original-Msg-Id", "a")]), "a");
        assert_eq!(identity_with(&[fresh, ("Dlq-Original-Place", "orders:5@9")]), "orders:5@9");
    }

    #[test]
    fn a_dead_letter_that_is_consumed_is_not_taken_for_its_message() {
        let letter =
            [("Dlq-Reason", "no card"), ("Dlq-Original-Msg-Id", "a"), ("Nats-Msg-Id", "dlq.orders.b.5.9")];
        assert_eq!(identity_with(&letter), "dlq.orders.b.5.9");
        let mut restored = letter.to_vec();
        restored.push(("Dlq-Letter-Id", "dlq.orders.b.4.8"));
        assert_eq!(identity_with(&restored), "dlq.orders.b.4.8");
    }
}
