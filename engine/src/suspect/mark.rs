//! Marks: what is under way though its attempts are used up, told where the next worker can read it.
//!
//! The server counts deliveries, and cannot tell a message that ended its worker from one that was only
//! near. A mark is written before such a message runs, and ended before it may come again; one that is found
//! unended was left behind by a worker that died (docs/decisions/0014).

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::fail_point;
use crate::jetstream::api::nanoseconds;
use crate::jetstream::beside::create_beside;
use crate::jetstream::stored;
use crate::jitter::jittered;
use crate::lock::lock;
use crate::message::Message;
use crate::observe::target::CONSUMER;
use crate::publish::{Outgoing, publish_or_create};
use crate::settle::Settler;
use crate::settle::hook::Hook;
use crate::shared::Shared;
use crate::suspect::do_without_marks;

/// How long the stream may take to confirm a mark.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two tries to end a mark.
const END_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Time limit for ending a mark that may not have been stored, while the server can be reached. Its message waits for that.
const UNCERTAIN_AT_MOST: Duration = Duration::from_secs(10);

/// Shortest silence after which a mark was left behind, for any `ack_wait`: an election takes about four seconds, and
/// storing a mark up to five.
const SILENT_AT_LEAST: Duration = Duration::from_secs(10);

/// A mark is of use until its message comes again: after `ack_wait`, or when there are workers again.
const MARK_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// State of the message that a mark is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Progress {
    /// The message runs, and nothing beside it in its process.
    Alone,
    /// The message runs, and others may run beside it.
    Accompanied,
    /// The message ended, or was handed back.
    Ended,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredMark {
    worker: String,
    progress: Progress,
    losses: u64,
    #[serde(default = "alone")]
    group: usize,
    /// Number of the attempt; 0 in marks of an older version.
    #[serde(default)]
    attempt: u64,
    /// Whether the message ended because it was handed back before it ran.
    #[serde(default)]
    is_unrun: bool,
}

/// Marks of an older version name no group: their messages ran one at a time.
fn alone() -> usize {
    1
}

/// A mark as it was found.
#[derive(Debug)]
pub(crate) struct MarkState {
    /// Its place in the stream of marks: another one when it was written again.
    pub(crate) sequence: u64,
    pub(crate) written: SystemTime,
    pub(crate) progress: Progress,
    /// How many workers were lost before with the message running in company.
    pub(crate) losses: u64,
    /// How many suspects ran together with it, itself included.
    pub(crate) group: usize,
    /// Whether this very process wrote it, which therefore is not lost.
    pub(crate) is_own: bool,
    /// Whether the attempt before this one ended or was handed back, so it ended no worker.
    pub(crate) is_returned: bool,
    /// Whether it was handed back under this mark before it ran: nothing was found out since.
    pub(crate) is_unrun: bool,
}

#[derive(Debug)]
struct Written {
    progress: Progress,
    is_confirmed: bool,
}

/// The mark of one message of one durable.
pub(crate) struct Mark {
    source: String,
    subject: String,
    losses: u64,
    group: usize,
    attempt: u64,
    members: std::sync::Mutex<Option<Arc<dyn Send + Sync>>>,
    is_unrun: AtomicBool,
    written: Mutex<Written>,
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Hook for Mark {
    fn note_unrun(&self) {
        self.is_unrun.store(true, Relaxed);
    }

    /// Ends the mark, however long the server is away, unless the consumption is over before.
    fn run<'a>(&'a self, settler: &'a Settler) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.end(&settler.shared))
    }
}

/// The duty of a delivery without a mark that is to come again after its last attempt: the next worker is told that
/// this one was not lost.
#[derive(Debug)]
struct Return(Mark);

/// The duty before the message comes again after this attempt; none if it does not come from a durable.
pub(crate) fn return_duty(message: &Message, attempt: u64) -> Option<Arc<dyn Hook>> {
    Some(Arc::new(Return(Mark::of(message, attempt, 0, 1).ok()?)))
}

impl Hook for Return {
    fn run<'a>(&'a self, settler: &'a Settler) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.0.note_return(&settler.shared))
    }
}

impl Mark {
    /// The mark of a message at this attempt, not written yet. `losses` is how many workers were lost with it in company, and `group`
    /// how many suspects run together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the message does not come from a durable.
    pub(crate) fn of(message: &Message, attempt: u64, losses: u64, group: usize) -> Result<Self> {
        let place = message.metadata()?;
        let (stream, durable) = (place.stream, place.consumer);
        // The time tells the message from one that had its sequence before the stream was recreated.
        let subject = format!("_mark.{stream}.{durable}.{}.{}", place.stream_sequence, place.timestamp);
        let written = Mutex::new(Written { progress: Progress::Ended, is_confirmed: false });
        let source = stream.to_owned();
        let (members, is_unrun) = (std::sync::Mutex::default(), AtomicBool::new(false));
        Ok(Self { source, subject, losses, group, attempt, members, is_unrun, written })
    }

    /// Keeps the group alive for as long as the mark.
    pub(crate) fn join(&self, group: Arc<dyn Send + Sync>) {
        *lock(&self.members) = Some(group);
    }

    pub(crate) fn is_of_same_message(&self, other: &Self) -> bool {
        self.subject == other.subject
    }

    /// The mark as the server has it; `None` where there is none.
    pub(crate) async fn find(&self, connection: &Connection) -> Result<Option<MarkState>> {
        let what = json!({ "last_by_subj": self.subject });
        let stored = match stored::get(connection, &marks_of(&self.source), &what).await {
            Err(error) if error.kind() == ErrorKind::StreamNotFound => return Ok(None),
            stored => stored?,
        };
        let Some(stored) = stored else { return Ok(None) };
        let StoredMark { worker, progress, losses, group, attempt, is_unrun } =
            serde_json::from_slice(&stored.payload)
                .map_err(|error| unreadable(&self.subject, &self.source, error))?;
        let is_own = worker == this_worker();
        let is_returned = progress == Progress::Ended && !is_unrun && attempt + 1 == self.attempt;
        let (sequence, written) = (stored.sequence, stored.time);
        Ok(Some(MarkState { sequence, written, progress, losses, group, is_own, is_returned, is_unrun }))
    }

    /// Writes that the message is about to run, and waits until that is confirmed. Where that fails, or nobody
    /// waits for it any more, it may still be stored, and has to be [ended](Self::end).
    pub(crate) async fn begin(&self, shared: &Shared, progress: Progress) -> Result<()> {
        let mut written = self.written.lock().await;
        let before = std::mem::replace(&mut written.progress, progress);
        fail_point::pass("marking");
        if let Err(error) = self.store(shared, progress).await {
            if !may_pass(&error) {
                // It is not stored, unless an earlier try has done so.
                written.progress = before;
            }
            return Err(error);
        }
        fail_point::pass("marked");
        written.is_confirmed = true;
        Ok(())
    }

    /// Writes the mark again, which shows that its worker is alive; nothing where it has ended. Returns
    /// whether it has.
    pub(crate) async fn renew(&self, shared: &Shared, progress: Option<Progress>) -> bool {
        let mut written = self.written.lock().await;
        if written.progress == Progress::Ended {
            return true;
        }
        written.progress = progress.unwrap_or(written.progress);
        if let Err(error) = self.store(shared, written.progress).await {
            warn!(target: CONSUMER, consumer = shared.options.name, mark = self.subject, "A mark could not be renewed: {error}");
        }
        false
    }

    /// Ends the mark, and waits until that is confirmed. Through an outage it tries until the consumption is over: a mark
    /// that stays would be taken for a lost worker.
    async fn end(&self, shared: &Shared) {
        let mut written = self.written.lock().await;
        if written.progress == Progress::Ended {
            return;
        }
        written.progress = Progress::Ended;
        let mut began = Instant::now();
        while !shared.is_over() {
            if !shared.connection().is_up() {
                began = Instant::now();
            }
            match self.store(shared, Progress::Ended).await {
                Ok(()) => return,
                Err(error)
                    if may_pass(&error) && (written.is_confirmed || began.elapsed() < UNCERTAIN_AT_MOST) =>
                {
                    tokio::time::sleep(jittered(END_RETRY_PAUSE)).await;
                }
                Err(error) => {
                    warn!(
                        target: CONSUMER,
                        consumer = shared.options.name,
                        mark = self.subject,
                        "A mark could not be ended: {error}"
                    );
                    return;
                }
            }
        }
    }

    /// Writes that the message has ended although it never ran.
    pub(crate) async fn note_end(&self, shared: &Shared) {
        if let Err(error) = self.store(shared, Progress::Ended).await {
            warn!(
                target: CONSUMER,
                consumer = shared.options.name,
                mark = self.subject,
                "A mark could not be written: {error}"
            );
        }
    }

    /// Writes that the message was handed back. Where that fails, it runs as a suspect at another worker.
    async fn note_return(&self, shared: &Shared) {
        match self.store(shared, Progress::Ended).await {
            Ok(()) => {}
            Err(error) if may_pass(&error) => {
                debug!(
                    target: CONSUMER,
                    consumer = shared.options.name,
                    mark = self.subject,
                    "A mark could not be written: {error}"
                );
            }
            Err(error) => do_without_marks(shared, &error),
        }
    }

    async fn store(&self, shared: &Shared, progress: Progress) -> Result<()> {
        let Self { losses, group, attempt, .. } = *self;
        let is_unrun = progress == Progress::Ended && self.is_unrun.load(Relaxed);
        let mark = StoredMark { worker: this_worker(), progress, losses, group, attempt, is_unrun };
        let payload = json!(mark).to_string().into();
        let mark = Outgoing::with_headers(self.subject.clone(), HeaderMap::new(), payload);
        store(&shared.connection(), &shared.options.name, &self.source, mark).await
    }
}

/// The name of the stream of marks beside the stream `source`.
pub(crate) fn marks_of(source: &str) -> String {
    format!("{source}-marks")
}

/// The error for something in the stream of marks that this version does not understand.
pub(crate) fn unreadable(subject: &str, source: &str, cause: serde_json::Error) -> Error {
    let text = format!("The mark at {subject} cannot be read: purge the stream {}.", marks_of(source));
    Error::new(ErrorKind::Config, text).because(cause)
}

/// Stores something in the stream of marks, which is created where there is none.
pub(crate) async fn store(
    connection: &Connection,
    consumer: &str,
    source: &str,
    mark: Outgoing,
) -> Result<()> {
    let subject = mark.subject().to_owned();
    let create = create_stream(connection, consumer, source);
    let stored = publish_or_create(connection, mark, STORE_TIMEOUT, create).await?;
    if stored.stream == marks_of(source) {
        return Ok(());
    }
    // There it would never be found.
    let text = format!("The stream `{}` takes {}: exclude `_mark.>`.", stored.stream, subject);
    Err(Error::new(ErrorKind::Overlap, text))
}

/// Creates the stream that has the last word on each message, for as long as it is of use.
async fn create_stream(connection: &Connection, consumer: &str, source: &str) -> Result<()> {
    let name = marks_of(source);
    let config = json!({
        "name": name,
        "subjects": [format!("_mark.{source}.>")],
        "max_msgs_per_subject": 1,
        "max_age": nanoseconds(MARK_LIFETIME),
        "discard": "old",
    });
    if create_beside(connection, consumer, source, config).await? {
        info!(target: CONSUMER, consumer, stream = name, "The stream of marks was created.");
    }
    Ok(())
}

/// Time after which the worker of a mark counts as lost. A running worker writes its mark again every third of it.
pub(crate) fn longest_silence(ack_wait: Duration) -> Duration {
    ack_wait.max(SILENT_AT_LEAST)
}

/// Whether what went wrong may be over at the next try.
pub(crate) fn may_pass(error: &Error) -> bool {
    // A stream without a leader answers like none.
    error.is_temporary() || error.kind() == ErrorKind::NoStream
}

/// A name of this process that no other one has had; a forked child has its own.
fn this_worker() -> String {
    static RANDOM: OnceLock<u64> = OnceLock::new();
    let random = RANDOM.get_or_init(|| getrandom::u64().unwrap_or_default());
    format!("{random:016x}.{}", std::process::id())
}
