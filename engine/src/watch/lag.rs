//! How far the durable is behind, for the metrics: from the answers that the inspection gets anyway.
//!
//! Two numbers cost a request more, which is made only while somebody looks at the metrics: the age of the oldest message
//! that is not settled, and the number of dead letters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::dead_letter::format::stream_of;
use crate::error::{ErrorKind, Result};
use crate::jetstream::info::{ConsumerInfo, stream_info};
use crate::jetstream::stored;
use crate::observe::meter::{self, Oldest};
use crate::settle::Settler;

/// The server sends the whole message where only its time is wanted: not where messages are mostly larger than this.
const LARGE: u64 = 64 * 1024;

/// Each filter is one request.
const MOST_FILTERS: usize = 8;

/// How long what was asked for counts, though nothing seems to have changed: messages also expire.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The lag of one durable.
pub(crate) struct Lag {
    options: Arc<ConsumerOptions>,
    settler: Arc<Settler>,
    oldest: Option<Known>,
    size: Option<(Instant, Option<u64>)>,
    dead_letters: Option<Instant>,
}

/// The oldest message that is not settled, as it was when the ack floor was there.
#[derive(Clone, Copy)]
struct Known {
    floor: u64,
    stored: Option<SystemTime>,
    asked: Instant,
}

impl Lag {
    pub(crate) fn new(options: Arc<ConsumerOptions>, settler: Arc<Settler>) -> Self {
        Self { options, settler, oldest: None, size: None, dead_letters: None }
    }

    /// Takes note of what the server tells of the durable.
    pub(crate) fn note(&self, info: &ConsumerInfo) {
        let lag = meter::Lag {
            pending: info.num_pending,
            ack_pending: info.num_ack_pending,
            ack_pending_limit: info.max_ack_pending(),
            redelivered: info.num_redelivered,
            waiting_requests: info.num_waiting,
        };
        self.settler.shared.meter().lags(lag, paused_for(info));
    }

    /// Asks for what has to be asked for; a failure leaves a number out until the next look.
    pub(crate) async fn ask(&mut self, connection: &Connection, info: &ConsumerInfo) {
        let shared = self.settler.shared.clone();
        let is_seen = shared.meter().is_seen();
        shared.meter().oldest(match self.oldest(connection, info, is_seen).await {
            Ok(oldest) => oldest,
            Err(_) => Oldest::Unknown,
        });
        if is_seen && self.dead_letters.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
            self.dead_letters = Some(Instant::now());
            self.count_dead_letters(connection).await;
        }
    }

    async fn count_dead_letters(&self, connection: &Connection) {
        let stream = stream_of(&self.options.stream);
        let count = match stream_info(connection, &stream).await {
            Ok(info) => info.state.messages,
            Err(error) if error.kind() == ErrorKind::StreamNotFound => 0,
            Err(_) => return,
        };
        self.settler.shared.meter().dead_letters(count);
    }

    async fn oldest(
        &mut self,
        connection: &Connection,
        info: &ConsumerInfo,
        is_seen: bool,
    ) -> Result<Oldest> {
        if info.num_pending == 0 && info.num_ack_pending == 0 {
            self.oldest = None;
            return Ok(Oldest::None);
        }
        if !is_seen || self.options.filter_subjects.len() > MOST_FILTERS || self.are_large(connection).await?
        {
            self.oldest = None;
            return Ok(Oldest::Unknown);
        }
        let floor = info.ack_floor.stream_seq;
        let is_known = |known: &Known| known.floor == floor && known.asked.elapsed() < ASK_AGAIN;
        let known = match self.oldest.filter(is_known) {
            Some(known) => known,
            None => {
                Known { floor, stored: self.first_above(connection, floor).await?, asked: Instant::now() }
            }
        };
        self.oldest = Some(known);
        Ok(known.stored.map_or(Oldest::None, |stored| {
            Oldest::Is(now_of(info).duration_since(stored).unwrap_or_default())
        }))
    }

    /// When the first message above the ack floor was stored.
    async fn first_above(&self, connection: &Connection, floor: u64) -> Result<Option<SystemTime>> {
        let everything = [String::from(">")];
        let filters = &self.options.filter_subjects;
        let filters = if filters.is_empty() { &everything } else { filters.as_slice() };
        let mut first = None;
        for filter in filters {
            let what = json!({ "seq": floor + 1, "next_by_subj": filter });
            let found = stored::get(connection, &self.options.stream, &what).await?;
            first = first.into_iter().chain(found.map(|stored| stored.time)).min();
        }
        Ok(first)
    }

    async fn are_large(&mut self, connection: &Connection) -> Result<bool> {
        let known = self.size.filter(|(asked, _)| asked.elapsed() < ASK_AGAIN);
        let (asked, size) = match known {
            Some(known) => known,
            None => (Instant::now(), stream_info(connection, &self.options.stream).await?.typical_size()),
        };
        self.size = Some((asked, size));
        Ok(size.is_some_and(|size| size > LARGE))
    }
}

/// The clock of the server when it answered.
pub(crate) fn now_of(info: &ConsumerInfo) -> SystemTime {
    let told = info.told_at();
    told.unwrap_or_else(SystemTime::now)
}

/// How long the durable is still paused, if it is.
fn paused_for(info: &ConsumerInfo) -> Option<Duration> {
    let until = info.config.get("pause_until").and_then(Value::as_str).filter(|_| info.paused)?;
    let until = humantime::parse_rfc3339(until).ok()?;
    Some(until.duration_since(now_of(info)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_measured_by_the_clock_of_the_server() {
        let info = |paused| ConsumerInfo {
            config: json!({ "pause_until": "2026-11-28T00:01:00Z" }).as_object().unwrap().clone(),
            ts: Some("2026-11-28T00:00:00.5Z".into()),
            paused,
            ..ConsumerInfo::default()
        };
        assert_eq!(paused_for(&info(true)), Some(Duration::from_millis(59_500)));
        assert_eq!(paused_for(&info(false)), None);
        assert_eq!(paused_for(&ConsumerInfo::default()), None);
    }
}
