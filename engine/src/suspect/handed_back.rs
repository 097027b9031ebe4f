//! Record of messages that were handed back before they ran, for the next worker to read.
//!
//! The server counts each delivery, also one that a graceful shutdown handed back before its handler started. One
//! record for each durable says how many deliveries of a message ran nothing, so that they take none of its attempts
//! (docs/decisions/0025).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::delivery::Delivery;
use crate::jetstream::stored;
use crate::message::Metadata;
use crate::observe::target::CONSUMER;
use crate::publish::Outgoing;
use crate::shared::Shared;
use crate::suspect::mark::{marks_of, may_pass, store, unreadable};

/// Messages that a record names; the oldest lines are forgotten first. A line takes about 65 bytes.
const MOST: usize = 5_000;

/// Time that a drain may take to write the record.
const NOTING: Duration = Duration::from_secs(1);

/// Pause after a record that cannot be read.
const UNREADABLE: Duration = Duration::from_secs(600);

/// The server's answer when somebody has written to the subject meanwhile.
const WRONG_LAST_SEQUENCE: u64 = 10071;

/// A message: its sequence, and when it was stored. The time tells it from one that had its sequence before the
/// stream was recreated.
type Place = (u64, i64);

/// Deliveries of one message that ran nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    sequence: u64,
    stored_at: i64,
    deliveries: u64,
}

impl Line {
    fn place(&self) -> Place {
        (self.sequence, self.stored_at)
    }
}

/// Record of one durable, as it is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record(Vec<Line>);

impl Record {
    /// The record as the server has it, with its place in the stream of marks; an empty one at 0 where there is none.
    async fn find(connection: &Connection, options: &ConsumerOptions) -> Result<(u64, Self)> {
        let subject = subject_of(options);
        let what = json!({ "last_by_subj": subject });
        let stored = match stored::get(connection, &marks_of(&options.stream), &what).await {
            Err(error) if error.kind() == ErrorKind::StreamNotFound => None,
            stored => stored?,
        };
        let Some(stored) = stored else { return Ok((0, Self::default())) };
        let record = serde_json::from_slice(&stored.payload)
            .map_err(|error| unreadable(&subject, &options.stream, error))?;
        Ok((stored.sequence, record))
    }

    fn add<'a>(&mut self, messages: impl Iterator<Item = Metadata<'a>>) {
        let mut before: HashMap<Place, u64> =
            self.0.iter().map(|line| (line.place(), line.deliveries)).collect();
        let added: Vec<Line> = messages
            .map(|message| {
                let (sequence, stored_at) = (message.stream_sequence, message.timestamp);
                let deliveries = before.remove(&(sequence, stored_at)).unwrap_or_default() + 1;
                Line { sequence, stored_at, deliveries }
            })
            .collect();
        self.0.retain(|line| before.contains_key(&line.place()));
        self.0.extend(added);
        self.0.drain(..self.0.len().saturating_sub(MOST));
    }
}

/// Subject of the record of a durable in the stream of marks.
fn subject_of(options: &ConsumerOptions) -> String {
    format!("_mark.{}.{}.handed-back", options.stream, options.durable)
}

fn is_outdated(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotStored { err_code: WRONG_LAST_SEQUENCE, .. })
}

/// Deliveries that ran nothing, by message.
#[derive(Debug, Default)]
pub(crate) struct Unrun(HashMap<Place, u64>);

impl Unrun {
    /// Count of deliveries of the message that ran nothing.
    pub(crate) fn of(&self, message: &Metadata<'_>) -> u64 {
        self.0.get(&(message.stream_sequence, message.timestamp)).copied().unwrap_or_default()
    }
}

impl From<Record> for Unrun {
    fn from(record: Record) -> Self {
        Self(record.0.into_iter().map(|line| (line.place(), line.deliveries)).collect())
    }
}

/// The record as it was read last.
#[derive(Debug, Default)]
struct LastRead {
    unrun: Arc<Unrun>,
    /// A question asked before then needs no newer answer.
    good_until: Option<Instant>,
}

/// Messages that the workers of one durable handed back before they ran.
#[derive(Debug, Default)]
pub(crate) struct HandedBack(Mutex<LastRead>);

impl HandedBack {
    /// Deliveries that ran nothing, as known now; none if that cannot be found out. Many who ask at the same time share one
    /// request.
    pub(crate) async fn until_now(&self, shared: &Shared) -> Arc<Unrun> {
        let now = Instant::now();
        let mut last = self.0.lock().await;
        if last.good_until.is_some_and(|until| now <= until) {
            return last.unrun.clone();
        }
        let asked = Instant::now();
        *last = match Record::find(&shared.connection(), &shared.options).await {
            Ok((_, record)) => LastRead { unrun: Arc::new(record.into()), good_until: Some(asked) },
            Err(error) if may_pass(&error) => {
                info!(
                    target: CONSUMER,
                    consumer = shared.options.name,
                    "The record of handed-back messages cannot be read: {error} Until it can, each hand-back counts \
                     as an attempt."
                );
                LastRead { good_until: Some(asked), ..LastRead::default() }
            }
            Err(error) => {
                warn!(
                    target: CONSUMER,
                    consumer = shared.options.name,
                    "The record of handed-back messages cannot be read: {error} For ten minutes, each hand-back \
                     counts as an attempt."
                );
                LastRead { good_until: Some(asked + UNREADABLE), ..LastRead::default() }
            }
        };
        last.unrun.clone()
    }

    /// Notes that the deliveries ran nothing. Where that fails, each of them counts as an attempt.
    pub(crate) async fn note(&self, shared: &Shared, deliveries: &[Delivery]) {
        let noted = tokio::time::timeout(NOTING, self.write(shared, deliveries)).await;
        let error = match noted {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!(
                "The stream of marks did not confirm the record of handed-back messages within {NOTING:?}."
            ),
        };
        info!(
            target: CONSUMER,
            consumer = shared.options.name,
            "{} messages that were handed back before they ran lose an attempt: {error}",
            deliveries.len()
        );
    }

    /// Others may write at the same time: nobody overwrites what he has not read.
    async fn write(&self, shared: &Shared, deliveries: &[Delivery]) -> Result<()> {
        let (connection, options) = (shared.connection(), &shared.options);
        loop {
            let (sequence, mut record) = Record::find(&connection, options).await?;
            record.add(deliveries.iter().filter_map(|delivery| delivery.message().metadata().ok()));
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
            let record =
                Outgoing::with_headers(subject_of(options), headers, json!(record).to_string().into());
            match store(&connection, &options.name, &options.stream, record).await {
                Err(error) if is_outdated(&error) => {}
                stored => return stored,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, timestamp: i64) -> Metadata<'static> {
        Metadata {
            domain: None,
            stream: "orders",
            consumer: "billing",
            delivered: 1,
            stream_sequence: sequence,
            consumer_sequence: 1,
            timestamp,
            pending: 0,
        }
    }

    fn after(times: u64, messages: &(impl Iterator<Item = Metadata<'static>> + Clone)) -> Record {
        let mut record = Record::default();
        (0..times).for_each(|_| record.add(messages.clone()));
        record
    }

    #[test]
    fn each_time_that_a_message_was_handed_back_counts() {
        let unrun = Unrun::from(after(5, &[message(1, 7), message(2, 8)].into_iter()));
        assert_eq!((unrun.of(&message(1, 7)), unrun.of(&message(2, 8)), unrun.of(&message(3, 9))), (5, 5, 0));
    }

    #[test]
    fn a_message_of_a_stream_that_was_recreated_is_another_one() {
        let unrun = Unrun::from(after(1, &[message(1, 7)].into_iter()));
        assert_eq!(unrun.of(&message(1, 8)), 0);
    }

    #[test]
    fn a_message_that_every_deploy_hands_back_is_not_forgotten_first() {
        let mut record = after(1, &[message(1, 7)].into_iter());
        record.add((2..=MOST as u64).map(|sequence| message(sequence, 7)));
        record.add([message(1, 7)].into_iter());
        record.add([message(MOST as u64 + 1, 7)].into_iter());
        let unrun = Unrun::from(record);
        assert_eq!((unrun.of(&message(1, 7)), unrun.of(&message(2, 7))), (2, 0));
    }

    #[test]
    fn the_oldest_of_too_many_are_forgotten() {
        let most = MOST as u64;
        let record = after(2, &(1..=most + 1).map(|sequence| message(sequence, 7)));
        assert_eq!(record.0.len(), MOST);
        let unrun = Unrun::from(record);
        assert_eq!(unrun.of(&message(most, 7)), 2);
    }

    #[test]
    fn a_record_fits_into_a_message_of_the_default_size() {
        let record = after(1, &(0..6_000).map(|count| message(u64::MAX - count, i64::MAX)));
        assert!(json!(record).to_string().len() < 1024 * 1024);
    }
}
