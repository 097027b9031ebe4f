//! The position at which a deleted durable begins again: after the settled messages, so that nothing is replayed.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config::Start;
use crate::connect::Connection;
use crate::error::Result;
use crate::jetstream::info::{ConsumerInfo, StreamInfo, stream_info};
use crate::jetstream::stored;

/// The position of a durable at the last look.
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
    /// When the stream was created: one that was made again counts from 1 again.
    stream_created: Option<String>,
    /// End of the pause, if somebody paused the durable.
    pause_until: Option<String>,
}

/// How a durable that was deleted begins again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resume {
    /// The first stream sequence to deliver; as declared without it.
    pub(crate) at: Option<u64>,
    pub(crate) pause_until: Option<String>,
    /// When the durable that was seen before was created.
    created: Option<String>,
    /// The durable was seen before.
    is_again: bool,
    /// The stream was made again since.
    is_of_another_stream: bool,
}

impl Resume {
    /// The start of the durable. Everything in a stream that was made again came while this worker wanted to consume.
    pub(crate) fn start(&self, declared: &Start) -> Start {
        match (self.at, declared) {
            (Some(sequence), _) => Start::Sequence(sequence),
            (None, Start::New | Start::Last | Start::LastPerSubject) if self.is_of_another_stream => {
                Start::All
            }
            (None, _) => declared.clone(),
        }
    }

    /// Whether this worker has never seen the durable.
    pub(crate) fn is_first(&self) -> bool {
        !self.is_again
    }

    /// The end of a pause that was lost with the durable: another worker, which had not seen the pause, has created this
    /// one.
    pub(crate) fn lost_pause(&self, found: &ConsumerInfo) -> Option<&str> {
        let is_another = self.created.is_some() && self.created != found.created;
        self.pause_until.as_deref().filter(|_| is_another && !found.paused)
    }
}

impl Position {
    /// Takes note of what the server knows of the durable.
    pub(crate) fn note(&mut self, durable: &ConsumerInfo) {
        self.acknowledged = Some(durable.ack_floor.stream_seq);
        self.created.clone_from(&durable.created);
        self.delivered = Some(durable.delivered.stream_seq);
        self.seen = durable.told_at();
        self.pause_until = durable.config.get("pause_until").and_then(Value::as_str).map(str::to_owned);
    }

    /// Takes note of what the server knows of the stream.
    pub(crate) fn note_stream(&mut self, stream: &StreamInfo) {
        self.stream_created.clone_from(&stream.created);
    }

    /// How the durable begins again where it is gone.
    ///
    /// # Errors
    /// What the API answered.
    pub(crate) async fn resume(&self, connection: &Connection, stream: &str) -> Result<Resume> {
        let mut resume = Resume {
            pause_until: self.pause_until.clone().filter(|until| is_later_than_now(until)),
            created: self.created.clone(),
            ..Resume::default()
        };
        if let Some(acknowledged) = self.acknowledged {
            let info = stream_info(connection, stream).await?;
            resume.is_again = true;
            resume.is_of_another_stream =
                self.stream_created.is_some() && self.stream_created != info.created;
            resume.at = self.resume_at(connection, stream, &info, acknowledged).await;
        }
        Ok(resume)
    }

    /// The sequence behind what is settled; `None` where that says nothing any more: the stream was made again, or
    /// restored from an older copy, which gives the sequences behind it to other messages.
    async fn resume_at(
        &self,
        connection: &Connection,
        stream: &str,
        info: &StreamInfo,
        acknowledged: u64,
    ) -> Option<u64> {
        if info.config.get("retention").is_some_and(|policy| policy == "workqueue") {
            // It holds only what is not settled, and refuses every other beginning than its own (10101).
            return None;
        }
        let is_the_same = self.stream_created == info.created;
        let is_behind = info.state.last_seq < acknowledged;
        if !is_the_same || is_behind || self.is_younger(connection, stream, acknowledged).await {
            return None;
        }
        Some(acknowledged + 1)
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

/// Whether a time, as RFC 3339, has not come yet.
pub(crate) fn is_later_than_now(time: &str) -> bool {
    humantime::parse_rfc3339(time).is_ok_and(|time| time > SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_lost_with_a_durable_that_another_worker_created_again() {
        let resume = Resume {
            pause_until: Some("2026-11-30T00:00:00Z".into()),
            created: Some("2026-11-01T00:00:00Z".into()),
            ..Resume::default()
        };
        let found = |created: &str, paused| ConsumerInfo {
            created: Some(created.into()),
            paused,
            ..ConsumerInfo::default()
        };
        assert_eq!(resume.lost_pause(&found("2026-11-02T00:00:00Z", false)), Some("2026-11-30T00:00:00Z"));
        assert_eq!(resume.lost_pause(&found("2026-11-02T00:00:00Z", true)), None);
        assert_eq!(resume.lost_pause(&found("2026-11-01T00:00:00Z", false)), None, "somebody resumed it");
        assert_eq!(Resume::default().lost_pause(&found("2026-11-02T00:00:00Z", false)), None);
    }
}
