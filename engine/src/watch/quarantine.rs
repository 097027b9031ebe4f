//! Messages whose headers async-nats cannot parse.
//!
//! Such a message resets the connection at every delivery (or ends it, by a panic), so no handler ever sees
//! it, and what travelled beside it waits for `ack_wait`. After a connection was lost, the messages that
//! were on their way are read again through the JSON API, where their headers are base64; those that cannot
//! be parsed are stored as dead letters, whole, and ended.

use std::ops::RangeInclusive;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::dead_letter::store::DeadLetter;
use crate::error::Result;
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
    /// Whether a message may have broken the connection, now that it leads to `server`. A server that restarts ends it,
    /// too, and then each consumer of each process comes back: nobody reads messages for that. In a cluster a message
    /// leads to another server the first time; the second time tells it from a restart.
    fn may_be_by_a_message(&mut self, server: String, now: Instant, soon: Duration) -> bool {
        let is_other = self.server.as_ref().is_some_and(|before| *before != server);
        let is_again = self.last.is_some_and(|last| now - last < soon);
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
    if !search.losses.may_be_by_a_message(connection.server_id(), Instant::now(), soon) {
        return Ok(());
    }
    for sequence in search.next(&info) {
        let stored = stored::get(connection, &options.stream, &json!({ "seq": sequence })).await?;
        let unreadable = stored.filter(|stored| is_for(stored, options) && !is_readable(&stored.headers));
        if let Some(stored) = unreadable {
            put_away(connection, options, durable, settler, stored).await?;
        }
        search.has_seen(sequence);
    }
    Ok(())
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
    let Stored { sequence, subject, headers, payload, time } = stored;
    // The server settles by stream sequence; the other numbers of a reply subject only it knows.
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let reply = format!("$JS.ACK.{}.{durable}.1.{sequence}.{sequence}.{time}.0", options.stream);
    let message = Message::new(async_nats::Message {
        subject: subject.as_str().into(),
        reply: Some(reply.clone().into()),
        length: payload.len(),
        payload: payload.into(),
        headers: None,
        status: None,
        description: None,
    });
    // Below it, a message that waits for a retry may hold the ack floor: then the search of every later worker finds
    // it again.
    let mark = Mark::of(&message, 0, 1)?;
    if mark.find(connection).await.is_ok_and(|found| found.is_some()) {
        return Ok(());
    }
    warn!(
        target: DEAD_LETTER,
        consumer = options.name,
        %subject,
        sequence,
        "A message with unreadable headers broke the connection; it becomes a dead letter."
    );
    let reason = String::from("headers that cannot be parsed");
    let raw_headers = Some(STANDARD.encode(headers));
    let letter = DeadLetter { message, reason, error: None, raw_headers, deliveries: 1 };
    settler.copy_to_dead_letters(&letter).await?;
    settler.end(connection, reply, &letter.reason).await?;
    mark.note_end(connection).await;
    Ok(())
}

/// Whether async-nats can parse this header block: as its `connection.rs` does it, where `HeaderValue` panics
/// on what it refuses.
fn is_readable(block: &[u8]) -> bool {
    if block.is_empty() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(block) else { return false };
    let mut lines = text.lines().peekable();
    let Some(rest) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else { return false };
    let rest = rest.trim();
    let code = rest.split_once(' ').map_or(rest, |(code, _)| code.trim());
    if !code.is_empty() && code.parse::<async_nats::StatusCode>().is_err() {
        return false;
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { return false };
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        let is_fit = value.trim_end().parse::<async_nats::HeaderValue>().is_ok();
        if !is_fit || name.parse::<async_nats::HeaderName>().is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::StreamExt;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
    use tokio::net::{TcpListener, TcpStream};

    use crate::jetstream::info::Sequences;

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

    #[test]
    fn a_line_that_continues_nothing_is_not_readable() {
        assert!(!is_readable(b"NATS/1.0\r\n  and more\r\n\r\n"));
        assert!(!readable("Trace: abc\r\n\r\n  and more"));
        assert!(!is_readable(b"NATS/1.0 503\tNo Responders\r\n\r\n"), "no status code");
    }

    #[test]
    fn a_carriage_return_at_the_end_of_a_value_is_white_space() {
        assert!(readable("Trace: abc\r"));
    }

    #[test]
    fn a_header_block_of_many_lines_is_read_in_one_pass() {
        for line in ["Trace: abc\r\n", "A:\n", " and more\r\n", "\r\n", "A:\r\n b\r\n"] {
            let block = format!("NATS/1.0\r\nFirst: x\r\n{}", line.repeat(1 << 18));
            assert!(is_readable(block.as_bytes()), "{line:?}");
        }
    }

    /// Blocks that are nearly right, so that every rule is met.
    fn blocks() -> impl Strategy<Value = Vec<u8>> {
        let parts: [&[u8]; 24] = [
            b"NATS/1.0",
            b"NATS/1.0\r\n",
            b" 404",
            b" 503 No Responders",
            b" 40",
            b" 100\tx",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"Trace",
            b"Nats-Msg-Id",
            b":",
            b": ",
            b":",
            b" ",
            b"\t",
            b"abc",
            b"\xc3\xa4",
            b"\xff",
            b"\0",
            b"\x0b",
            b"\xc2\xa0",
            b"\xe2\x80\xa8",
        ];
        let some = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..14)
            .prop_map(|parts| parts.concat());
        let noise = prop::collection::vec(any::<u8>(), 0..60);
        (any::<bool>(), prop_oneof![4 => some, 1 => noise], any::<bool>()).prop_map(
            |(begins, block, ends)| {
                let begin: &[u8] = if begins { b"NATS/1.0\r\n" } else { b"" };
                let end: &[u8] = if ends { b"\r\n\r\n" } else { b"" };
                [begin, &block, end].concat()
            },
        )
    }

    /// An async-nats client and a peer that sends it what a test wants.
    struct Client {
        socket: BufStream<TcpStream>,
        subscriber: async_nats::Subscriber,
    }

    impl Client {
        async fn connect() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let options = async_nats::ConnectOptions::new().max_reconnects(1);
            let connecting = tokio::spawn(options.connect(address.to_string()));
            let socket = listener.accept().await.unwrap().0;
            socket.set_nodelay(true).unwrap();
            let mut socket = BufStream::new(socket);
            // Nobody listens any more: what is lost is lost.
            drop(listener);
            let info =
                r#"{"server_id":"x","version":"2.15.1","headers":true,"max_payload":1048576,"proto":1}"#;
            say(&mut socket, format!("INFO {info}\r\n").as_bytes()).await;
            hear(&mut socket, "PING").await;
            say(&mut socket, b"PONG\r\n").await;
            let client = connecting.await.unwrap().unwrap();
            let subscriber = client.subscribe("a").await.unwrap();
            hear(&mut socket, "SUB").await;
            Self { socket, subscriber }
        }

        /// Whether a message with these headers arrives, or the connection ends.
        async fn gets(&mut self, block: &[u8]) -> bool {
            let line = format!("HMSG a 1 {} {}\r\n", block.len(), block.len());
            say(&mut self.socket, &[line.as_bytes(), block, b"\r\n"].concat()).await;
            tokio::time::timeout(Duration::from_secs(10), self.subscriber.next()).await.unwrap().is_some()
        }
    }

    async fn say(socket: &mut BufStream<TcpStream>, words: &[u8]) {
        socket.write_all(words).await.unwrap();
        socket.flush().await.unwrap();
    }

    async fn hear(socket: &mut BufStream<TcpStream>, word: &str) {
        let mut line = String::new();
        while !line.starts_with(word) {
            line.clear();
            assert_ne!(socket.read_line(&mut line).await.unwrap(), 0, "the client left before {word}");
        }
    }

    #[test]
    fn what_is_readable_is_what_async_nats_delivers() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = RefCell::new(None);
        let mut runner = TestRunner::default();
        let agrees = |block: Vec<u8>| {
            runtime.block_on(async {
                let mut connected = match client.take() {
                    Some(connected) => connected,
                    None => Client::connect().await,
                };
                let arrives = connected.gets(&block).await;
                client.replace(arrives.then_some(connected));
                prop_assert_eq!(is_readable(&block), arrives);
                Ok(())
            })
        };
        runner
            .run(&blocks().prop_filter("no headers, no header block", |block| !block.is_empty()), agrees)
            .unwrap();
    }

    proptest! {
        #[test]
        fn no_header_block_panics(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_readable(&block);
            let _ = is_readable(&[b"NATS/1.0\r\n", block.as_slice()].concat());
        }

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
