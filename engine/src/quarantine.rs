//! Messages whose headers async-nats cannot parse.
//!
//! Such a message resets the connection at every delivery (or ends it, by a panic), so no handler ever sees
//! it, and what travelled beside it waits for `ack_wait`. After a connection was lost, the messages that
//! were on their way are read again through the JSON API, where their headers are base64; those that cannot
//! be parsed are stored as dead letters, whole, and ended.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tracing::warn;

use crate::api::call;
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::dead_letter::DeadLetter;
use crate::error::Result;
use crate::message::Message;
use crate::route::Pattern;
use crate::settle::Settler;
use crate::stored::{self, Stored};

/// Messages looked at after one loss of the connection; the next ones follow after the next loss.
const MOST: u64 = 500;

/// Looks through what was on its way to this consumer, behind the sequence `after`. Returns up to which
/// sequence everything has been looked at.
pub(crate) async fn sweep(
    connection: &Connection,
    options: &ConsumerOptions,
    durable: &str,
    settler: &Settler,
    after: u64,
) -> Result<u64> {
    let info = call(connection, &format!("CONSUMER.INFO.{}.{durable}", options.stream), &Value::Null).await?;
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    if number(&info["num_ack_pending"]) == 0 {
        return Ok(after);
    }
    let first = number(&info["ack_floor"]["stream_seq"]).max(after) + 1;
    let last = number(&info["delivered"]["stream_seq"]).min(first + MOST - 1);
    for sequence in first..=last {
        let Some(stored) = stored::get(connection, &options.stream, &json!({ "seq": sequence })).await?
        else {
            continue;
        };
        if is_for(&stored, options) && !is_readable(&stored.headers) {
            put_away(connection, options, durable, settler, stored).await?;
        }
    }
    Ok(last.max(after))
}

fn is_for(stored: &Stored, options: &ConsumerOptions) -> bool {
    let mut patterns = options.filter_subjects.iter().filter_map(|text| Pattern::parse(text).ok());
    options.filter_subjects.is_empty() || patterns.any(|pattern| pattern.matches(&stored.subject))
}

async fn put_away(
    connection: &Connection,
    options: &ConsumerOptions,
    durable: &str,
    settler: &Settler,
    stored: Stored,
) -> Result<()> {
    let Stored { sequence, subject, headers, payload, .. } = stored;
    warn!(
        consumer = options.name,
        %subject,
        sequence,
        "a message with headers that cannot be parsed broke the connection; it becomes a dead letter"
    );
    // The server settles by stream sequence; the other numbers of a reply subject only it knows.
    let reply = format!("$JS.ACK.{}.{durable}.1.{sequence}.{sequence}.0.0", options.stream);
    let message = Message::new(async_nats::Message {
        subject: subject.into(),
        reply: Some(reply.clone().into()),
        length: payload.len(),
        payload: payload.into(),
        headers: None,
        status: None,
        description: None,
    });
    let reason = String::from("headers that cannot be parsed");
    let raw_headers = Some(STANDARD.encode(headers));
    let letter = DeadLetter { message, reason, error: None, raw_headers, deliveries: 1 };
    settler.copy_to_dead_letters(&letter).await?;
    settler.end(connection, reply, &letter.reason).await
}

/// Whether async-nats can parse this header block: the rules of its `connection.rs`, and that of
/// `HeaderValue`, which panics on what it refuses.
fn is_readable(block: &[u8]) -> bool {
    if block.is_empty() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(block) else { return false };
    let mut lines = text.lines();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else { return false };
    let code = status.split_whitespace().next();
    code.is_none_or(|code| code.parse::<async_nats::StatusCode>().is_ok()) && lines.all(is_readable_line)
}

fn is_readable_line(line: &str) -> bool {
    if line.is_empty() || line.starts_with(char::is_whitespace) {
        return !line.contains('\r');
    }
    let Some((name, value)) = line.split_once(':') else { return false };
    name.parse::<async_nats::HeaderName>().is_ok() && value.parse::<async_nats::HeaderValue>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn readable(lines: &str) -> bool {
        is_readable(format!("NATS/1.0\r\n{lines}\r\n\r\n").as_bytes())
    }

    #[test]
    fn ordinary_headers_are_readable() {
        assert!(is_readable(b""));
        assert!(readable("Trace: abc"));
        assert!(readable("Trace: abc\r\n  and more\r\nEmpty:"));
        assert!(readable("Größe".replace("Größe", "Size: groß").as_str()));
    }

    #[test]
    fn what_breaks_the_connection_is_not() {
        assert!(!readable("Trace: a\rb"), "a bare carriage return panics");
        assert!(!readable("no colon"));
        assert!(!readable("two words: x"));
        assert!(!is_readable(b"NATS/1.0\r\nTrace: \xff\xfe\r\n\r\n"));
        assert!(!is_readable(b"NATS/2.0\r\nTrace: x\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn no_header_block_panics(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_readable(&block);
            let mut whole = b"NATS/1.0\r\n".to_vec();
            whole.extend(block);
            let _ = is_readable(&whole);
        }
    }
}
