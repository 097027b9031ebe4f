//! Messages whose headers async-nats cannot parse.
//!
//! Such a message resets the connection at every delivery (or ends it, by a panic), so no handler ever sees
//! it, and what travelled beside it waits for `ack_wait`. After a connection was lost, the messages that
//! were on their way are read again through the JSON API, where their headers are base64; those that cannot
//! be parsed are stored as dead letters, whole, and ended.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::dead_letter::store::DeadLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::headers::is_readable;
use crate::jetstream::info::{ConsumerInfo, consumer_info};
use crate::jetstream::stored::{self, Stored};
use crate::message::Message;
use crate::observe::target::DEAD_LETTER;
use crate::route::Pattern;
use crate::settle::Settler;
use crate::suspect::mark::Mark;

/// Messages looked at after one loss of the connection; the next ones follow after the next loss.
const MOST_AT_ONCE: usize = 500;

/// A message that broke the connection comes again after `ack_wait`, and breaks it again within twice that and this.
const BREAKS_AGAIN: Duration = Duration::from_secs(60);

/// The deliveries of one durable that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Search {
    losses: Losses,
    /// When the durable was created: another one is sent all messages again.
    created: Option<String>,
    /// Ranges of sequences, from the newest to the oldest.
    done: Vec<RangeInclusive<u64>>,
    /// Whether a message of this durable may break the connection again.
    has_suspicion: bool,
}

impl Search {
    /// Nothing was looked at, on a connection to this server.
    pub(crate) fn new(server: String) -> Self {
        let losses = Losses { server: Some(server), last: None };
        Self { losses, ..Self::default() }
    }

    /// The connection was closed for good, as by a panic of async-nats: whichever server comes next tells nothing.
    pub(crate) fn note_close(&mut self) {
        self.losses.server = None;
    }

    /// Whether a message was found that breaks connections, or could not be looked at, since this was last asked.
    pub(crate) fn takes_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.has_suspicion)
    }

    /// The sequences to look at next, the newest first: a message that breaks the connection mostly was the last one
    /// that was sent, and a message that waits for a retry may hold the ack floor far below it.
    fn next(&mut self, info: &ConsumerInfo) -> Vec<u64> {
        if self.created != info.created {
            self.created.clone_from(&info.created);
            self.done.clear();
        }
        if info.num_ack_pending == 0 {
            return Vec::new();
        }
        let floor = info.ack_floor.stream_seq;
        let mut next = Vec::new();
        let mut sequence = info.delivered.stream_seq;
        let mut done = self.done.iter().peekable();
        while sequence > floor && next.len() < MOST_AT_ONCE {
            match done.next_if(|range| *range.end() >= sequence) {
                Some(range) => sequence = sequence.min(range.start().saturating_sub(1)),
                None => {
                    next.push(sequence);
                    sequence -= 1;
                }
            }
        }
        next
    }

    fn has_seen(&mut self, sequence: u64) {
        self.done.push(sequence..=sequence);
        self.done.sort_by_key(|range| std::cmp::Reverse(*range.end()));
        self.done.dedup_by(|older, newer| {
            let touches = *older.end() + 1 >= *newer.start();
            if touches {
                *newer = *older.start().min(newer.start())..=*newer.end();
            }
            touches
        });
    }
}

/// The connections that were lost and came back.
#[derive(Debug, Default)]
struct Losses {
    /// The server of the connection. One that starts again has another id.
    server: Option<String>,
    last: Option<Instant>,
}

impl Losses {
    /// Whether the last loss was so lately that the same message may have caused both.
    fn is_again(&self, now: Instant, soon: Duration) -> bool {
        self.last.is_some_and(|last| now - last < soon)
    }

    /// Whether a message may have broken the connection, now that it leads to `server`. A server that restarts ends it,
    /// too, and then each consumer of each process comes back: nobody reads messages for that. In a cluster a message
    /// leads to another server the first time; the second time tells it from a restart.
    fn may_be_by_a_message(&mut self, server: String, now: Instant, soon: Duration) -> bool {
        let is_other = self.server.as_ref().is_some_and(|before| *before != server);
        let is_again = self.is_again(now, soon);
        self.server = Some(server);
        self.last = Some(now);
        !is_other || is_again
    }
}

/// Looks through what this consumer was sent and has not settled, and puts unreadable messages away, if one of them may
/// have broken the connection.
pub(crate) async fn sweep(
    connection: &Connection,
    options: &ConsumerOptions,
    durable: &str,
    settler: &Settler,
    search: &mut Search,
) -> Result<()> {
    let info = consumer_info(connection, &options.stream, durable).await?;
    // Not before that answer: only then async-nats surely knows which server it talks to.
    let soon = options.ack_wait * 2 + BREAKS_AGAIN;
    let now = Instant::now();
    let is_again = search.losses.is_again(now, soon);
    if !search.losses.may_be_by_a_message(connection.server_id(), now, soon) {
        return Ok(());
    }
    for sequence in search.next(&info) {
        let stored = stored::get(connection, &options.stream, &json!({ "seq": sequence })).await;
        // What cannot be looked at may be unreadable. After another loss it is looked at again.
        search.has_suspicion |= stored.as_ref().is_err_and(|error| !may_look_again(error) && is_again);
        let stored = stored?;
        let unreadable = stored.filter(|stored| is_for(stored, options) && !is_readable(&stored.headers));
        if let Some(stored) = unreadable {
            search.has_suspicion = true;
            put_away(connection, options, &info, settler, stored).await?;
        }
        search.has_seen(sequence);
    }
    Ok(())
}

fn may_look_again(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Closed | ErrorKind::Timeout)
}

fn is_for(stored: &Stored, options: &ConsumerOptions) -> bool {
    let mut patterns = options.filter_subjects.iter().filter_map(|text| Pattern::parse(text).ok());
    options.filter_subjects.is_empty() || patterns.any(|pattern| pattern.matches(&stored.subject))
}

async fn put_away(
    connection: &Connection,
    options: &ConsumerOptions,
    durable: &ConsumerInfo,
    settler: &Settler,
    stored: Stored,
) -> Result<()> {
    let message = Message::delivered(&stored, &options.stream, &durable.name, false, None);
    // Below it, a message that waits for a retry may hold the ack floor: then the search of every later worker finds
    // it again. An earlier durable of this name may have left a mark too; this one is sent the message again.
    let mark = Mark::of(&message, 1, 0, 1)?;
    let created = durable.created_at();
    if mark.find(connection).await.is_ok_and(|found| found.is_some_and(|found| found.written >= created)) {
        return Ok(());
    }
    warn!(
        target: DEAD_LETTER,
        consumer = options.name,
        subject = stored.subject,
        sequence = stored.sequence,
        "A message with unreadable headers broke the connection; it becomes a dead letter."
    );
    let reason = String::from("headers that cannot be parsed");
    let raw_headers = Some(STANDARD.encode(&stored.headers));
    let reply = message.reply().map_or_else(String::new, ToString::to_string);
    let letter = DeadLetter { message, reason, error: None, raw_headers, deliveries: 1 };
    settler.copy_to_dead_letters(&letter).await?;
    settler.end(connection, reply, &letter.reason).await?;
    mark.note_end(&settler.shared).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::jetstream::info::Sequences;

    use super::*;

    proptest! {
        #[test]
        fn no_more_is_looked_at_than_was_sent_whatever_the_server_says(
            (floor, sent, waiting) in any::<(u64, u64, i64)>(),
        ) {
            let next = Search::default().next(&look(floor, sent, waiting));
            prop_assert!(next.len() <= MOST_AT_ONCE);
            prop_assert!(next.iter().all(|sequence| *sequence <= sent && *sequence > floor));
        }

        #[test]
        fn every_message_is_looked_at_once_however_many_are_sent_meanwhile(
            floor in 0..50_u64,
            more in prop::collection::vec(0..900_u64, 1..6),
        ) {
            let (mut search, mut sent, mut seen) = (Search::default(), floor, Vec::new());
            let all = more.iter().sum::<u64>();
            for more in more.into_iter().chain(std::iter::repeat_n(0, all as usize / MOST_AT_ONCE + 1)) {
                sent += more;
                let next = search.next(&look(floor, sent, 1));
                next.iter().for_each(|sequence| search.has_seen(*sequence));
                seen.extend(next);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (floor + 1..=floor + all).collect::<Vec<_>>());
        }
    }

    fn look(floor: u64, sent: u64, waiting: i64) -> ConsumerInfo {
        let at = |stream_seq| Sequences { stream_seq, ..Sequences::default() };
        ConsumerInfo {
            created: Some("2026-11-28T00:00:00Z".into()),
            ack_floor: at(floor),
            delivered: at(sent),
            num_ack_pending: waiting,
            ..ConsumerInfo::default()
        }
    }

    /// Whether a message is suspected after each loss, by the server that comes next and by seconds.
    fn suspected(losses: &[(&str, u64)]) -> Vec<bool> {
        let (mut search, began) = (Search::new("one".into()), Instant::now());
        let mut may_be = |(server, second): &(&str, u64)| {
            let now = began + Duration::from_secs(*second);
            search.losses.may_be_by_a_message((*server).into(), now, BREAKS_AGAIN)
        };
        losses.iter().map(&mut may_be).collect()
    }

    #[test]
    fn no_message_is_read_when_a_server_restarts() {
        assert_eq!(suspected(&[("two", 0), ("three", 90), ("four", 180)]), [false; 3]);
    }

    #[test]
    fn a_connection_that_the_same_server_lost_may_have_been_broken_by_a_message() {
        assert_eq!(suspected(&[("one", 0), ("one", 90)]), [true; 2]);
    }

    #[test]
    fn a_message_that_leads_from_server_to_server_of_a_cluster_is_suspected_the_second_time() {
        assert_eq!(suspected(&[("two", 0), ("one", 30), ("two", 60)]), [false, true, true]);
    }

    #[test]
    fn a_message_is_suspected_after_a_connection_that_closed() {
        let mut search = Search::new("one".into());
        search.note_close();
        assert!(search.losses.may_be_by_a_message("two".into(), Instant::now(), BREAKS_AGAIN));
    }

    #[test]
    fn the_newest_messages_are_looked_at_first() {
        let mut search = Search::default();
        let next = search.next(&look(1, 702, 2));
        assert_eq!((next[0], next.len()), (702, MOST_AT_ONCE));
    }

    #[test]
    fn another_durable_is_searched_from_the_beginning() {
        let mut search = Search::default();
        search.next(&look(0, 3, 1)).into_iter().for_each(|sequence| search.has_seen(sequence));
        assert!(search.next(&look(0, 3, 1)).is_empty());
        let mut another = look(0, 3, 1);
        another.created = Some("2026-11-29T00:00:00Z".into());
        assert_eq!(search.next(&another), [3, 2, 1]);
    }
}
