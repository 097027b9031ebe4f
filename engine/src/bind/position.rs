//! Where a durable that was deleted begins again: behind what is settled, so that the stream is not replayed.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::connect::Connection;
use crate::error::Result;
use crate::jetstream::api::call;
use crate::jetstream::stored;

/// Where a durable stood when it was last looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// Up to here every message of the stream is settled.
    acknowledged: Option<u64>,
    /// The last message that was sent to somebody.
    delivered: Option<u64>,
    /// When the durable was created.
    created: Option<String>,
    /// When that was seen, by the server's clock.
    seen: Option<SystemTime>,
    /// When the stream was created: a recreated one counts from 1 again.
    stream_created: Option<String>,
}

impl Position {
    /// Takes note of what the server knows of the durable.
    pub(crate) fn note(&mut self, durable: &Value) {
        self.acknowledged = durable["ack_floor"]["stream_seq"].as_u64();
        self.created = durable["created"].as_str().map(str::to_owned);
        self.delivered = durable["delivered"]["stream_seq"].as_u64();
        self.seen = durable["ts"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
    }

    /// Takes note of what the server knows of the stream.
    pub(crate) fn note_stream(&mut self, stream: &Value) {
        self.stream_created = stream["created"].as_str().map(str::to_owned);
    }

    /// The sequence behind the settled messages; `None` if it is no longer valid: the stream was recreated, or
    /// restored from an older copy, which gives the sequences behind it to other messages.
    ///
    /// # Errors
    /// What the API answered.
    pub(crate) async fn resume_at(&self, connection: &Connection, stream: &str) -> Result<Option<u64>> {
        let Some(acknowledged) = self.acknowledged else { return Ok(None) };
        let info = call(connection, &format!("STREAM.INFO.{stream}"), &Value::Null).await?;
        if info["config"]["retention"] == "workqueue" {
            // It holds only what is not settled, and refuses every other beginning than its own (10101).
            return Ok(None);
        }
        let is_the_same = self.stream_created.as_deref() == info["created"].as_str();
        let is_behind = info["state"]["last_seq"].as_u64() < Some(acknowledged);
        if !is_the_same || is_behind || self.is_younger(connection, stream, acknowledged).await {
            return Ok(None);
        }
        Ok(Some(acknowledged + 1))
    }

    pub(crate) fn created(&self) -> Option<&str> {
        self.created.as_deref()
    }

    /// Messages that were delivered before and come again, settled or not, where the durable begins at this sequence.
    pub(crate) fn repeats(&self, resume_at: u64) -> u64 {
        self.delivered.map_or(0, |delivered| delivered.saturating_add(1).saturating_sub(resume_at))
    }

    /// Whether the message was stored after its sequence was seen to be settled. One that is not there, or may not
    /// be asked for, is taken for the one that was settled.
    async fn is_younger(&self, connection: &Connection, stream: &str, sequence: u64) -> bool {
        let asked = stored::get(connection, stream, &json!({ "seq": sequence })).await;
        let stored = asked.ok().flatten().map(|stored| stored.time);
        stored.zip(self.seen).is_some_and(|(stored, seen)| stored > seen)
    }
}
