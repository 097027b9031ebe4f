//! The state of streams and durables as the server reports it.
//!
//! Their configurations stay JSON, so that a field that this version does not know survives an update.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::connect::Connection;
use crate::error::Result;
use crate::jetstream::api::{call, garbled, request_behind};

/// The state of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamInfo {
    pub(crate) config: Map<String, Value>,
    /// When the stream was created, as RFC 3339.
    pub(crate) created: Option<String>,
    pub(crate) state: StreamState,
}

/// The content of a stream, in numbers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamState {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

impl StreamInfo {
    /// The average size of a message in bytes; `None` for an empty stream.
    pub(crate) fn typical_size(&self) -> Option<u64> {
        self.state.bytes.checked_div(self.state.messages)
    }
}

/// The state of a durable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerInfo {
    pub(crate) name: String,
    pub(crate) config: Map<String, Value>,
    /// When the durable was created, as RFC 3339.
    pub(crate) created: Option<String>,
    /// The server's clock when it answered, as RFC 3339.
    pub(crate) ts: Option<String>,
    pub(crate) delivered: Sequences,
    pub(crate) ack_floor: Sequences,
    /// Deliveries that are not settled, delayed retries included.
    pub(crate) num_ack_pending: i64,
    /// Unsettled messages that were delivered more than once.
    pub(crate) num_redelivered: i64,
    /// Pull requests that wait.
    pub(crate) num_waiting: i64,
    /// Messages that were never delivered.
    pub(crate) num_pending: u64,
    /// Whether somebody listens to the deliver subject.
    pub(crate) push_bound: bool,
    pub(crate) paused: bool,
}

/// A place in a durable's deliveries and in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Sequences {
    pub(crate) consumer_seq: u64,
    pub(crate) stream_seq: u64,
}

impl ConsumerInfo {
    /// How many deliveries may be unsettled; -1 is any number.
    pub(crate) fn max_ack_pending(&self) -> i64 {
        self.config.get("max_ack_pending").and_then(Value::as_i64).unwrap_or(-1)
    }

    /// When the durable was created; long ago where the server does not say.
    pub(crate) fn created_at(&self) -> SystemTime {
        time(self.created.as_deref()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// When the server told this, by its own clock.
    pub(crate) fn told_at(&self) -> Option<SystemTime> {
        time(self.ts.as_deref())
    }

    /// Whether a worker reads from the durable.
    pub(crate) fn is_read(&self) -> bool {
        self.push_bound || self.num_waiting > 0
    }
}

fn time(text: Option<&str>) -> Option<SystemTime> {
    humantime::parse_rfc3339(text?).ok()
}

/// Asks for the state of a stream.
///
/// # Errors
/// What the API answered; [`ErrorKind::StreamNotFound`](crate::error::ErrorKind::StreamNotFound) without the stream.
pub(crate) async fn stream_info(connection: &Connection, stream: &str) -> Result<StreamInfo> {
    ask(connection, &format!("STREAM.INFO.{stream}"), &Value::Null).await
}

/// Asks for the state of a durable.
///
/// # Errors
/// What the API answered; [`ErrorKind::Gone`](crate::error::ErrorKind::Gone) without the durable.
pub(crate) async fn consumer_info(
    connection: &Connection,
    stream: &str,
    durable: &str,
) -> Result<ConsumerInfo> {
    ask(connection, &format!("CONSUMER.INFO.{stream}.{durable}"), &Value::Null).await
}

/// Has the server deliver nothing until then, as RFC 3339.
///
/// # Errors
/// What the API answered.
pub(crate) async fn pause(connection: &Connection, stream: &str, durable: &str, until: &str) -> Result<()> {
    let body = json!({ "pause_until": until });
    call(connection, &format!("CONSUMER.PAUSE.{stream}.{durable}"), &body).await.map(drop)
}

/// [`consumer_info`] from the API behind another prefix, within `limit`.
///
/// # Errors
/// As [`consumer_info`].
pub(crate) async fn consumer_info_behind(
    connection: &Connection,
    prefix: &str,
    stream: &str,
    durable: &str,
    limit: Duration,
) -> Result<ConsumerInfo> {
    let subject = format!("CONSUMER.INFO.{stream}.{durable}");
    let answer = request_behind(connection, prefix, &subject, Bytes::new(), limit).await?;
    serde_json::from_slice(&answer).map_err(|error| garbled(&subject, error))
}

/// Sends a request and reads its typed answer.
pub(crate) async fn ask<T: DeserializeOwned>(
    connection: &Connection,
    subject: &str,
    body: &Value,
) -> Result<T> {
    let answer = call(connection, subject, body).await?;
    serde_json::from_value(answer).map_err(|error| garbled(subject, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_leaves_out_is_nothing() {
        let info: ConsumerInfo = serde_json::from_value(json!({ "config": { "later": true } })).unwrap();
        assert_eq!((info.num_pending, info.max_ack_pending(), info.is_read()), (0, -1, false));
        assert_eq!(info.config["later"], true);
    }

    #[test]
    fn nothing_is_known_of_the_size_of_messages_that_are_not_there() {
        let mut info = StreamInfo::default();
        assert_eq!(info.typical_size(), None);
        info.state = StreamState { messages: 4, bytes: 4000, first_seq: 1, last_seq: 4 };
        assert_eq!(info.typical_size(), Some(1000));
    }
}
