//! Wires all of it: start, run, drain, stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::api::call;
use crate::config::{ConnectOptions, ConsumerOptions};
use crate::connect::Connection;
use crate::delivery::Delivery;
use crate::demand::Problem;
use crate::error::{ErrorKind, Result};
use crate::fetch::{Fetch, fetch};
use crate::handle::{Handler, Inbox, Tasks};
use crate::observe::{Counters, Snapshot, count};
use crate::settle::Settler;
use crate::stream::{Durable, bind};

/// How often the durable is looked at while nothing else tells whether it is well.
const INSPECTION: Duration = Duration::from_secs(5);

/// Pauses between repairs double between these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long the fetch may take to end, and the last settlements to be written, when a consumption ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Consumes with a Rust handler, on the current tokio runtime.
///
/// # Errors
/// When the consumption cannot start: no server, no stream, options or a durable that do not fit.
/// What happens later is repaired, see [`Consumption`].
pub async fn consume(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handler: impl Handler,
) -> Result<Consumption> {
    let tasks = Tasks::start(handler, consumer.concurrency, consumer.handler_timeout);
    consume_into(connect, consumer, Arc::new(tasks)).await
}

/// Consumes into an inbox of one's own; see [`consume`].
///
/// # Errors
/// As [`consume`].
pub async fn consume_into(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    inbox: Arc<dyn Inbox>,
) -> Result<Consumption> {
    consumer.validate()?;
    let connection = Connection::open(&connect).await?;
    let durable = bind(&connection, &consumer, None).await?;
    let options = Arc::new(consumer);
    let settler = Settler::new(options.clone(), connection.clone());
    let (alive, is_alive) = watch::channel(true);
    let supervisor = Supervisor {
        connect,
        options,
        settler: settler.clone(),
        inbox: inbox.clone(),
        stop: CancellationToken::new(),
        acknowledged: AtomicU64::new(0),
    };
    let stop = supervisor.stop.clone();
    let name = durable.name.clone();
    let (fetching, writing) = (TaskTracker::new(), TaskTracker::new());
    fetching.spawn(supervisor.run(connection, durable));
    let written = CancellationToken::new();
    writing.spawn(settler.clone().write(written.clone()));
    fetching.close();
    writing.close();
    Ok(Consumption { durable: name, settler, inbox, stop, written, fetching, writing, alive, is_alive })
}

/// A running consumption. It repairs itself: it reconnects, makes a deleted durable anew where the old one
/// stood, and waits for a stream that is missing. It ends by [`drain`](Self::drain).
#[must_use = "a consumption that is dropped stops without a drain"]
pub struct Consumption {
    durable: String,
    settler: Arc<Settler>,
    inbox: Arc<dyn Inbox>,
    stop: CancellationToken,
    written: CancellationToken,
    fetching: TaskTracker,
    writing: TaskTracker,
    alive: watch::Sender<bool>,
    is_alive: watch::Receiver<bool>,
}

impl Consumption {
    /// The durable that is consumed: the declared one, or the inherited one.
    #[must_use]
    pub fn durable(&self) -> &str {
        &self.durable
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> Snapshot {
        Snapshot { in_flight: self.settler.places.held() as u64, ..self.settler.counters.snapshot() }
    }

    /// The counters themselves, which outlive the consumption.
    #[must_use]
    pub fn live_counters(&self) -> Arc<Counters> {
        self.settler.counters.clone()
    }

    /// Whether the server can be reached now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.settler.connection().is_up()
    }

    /// Whether it has neither been stopped nor drained.
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self.is_alive.borrow() && !self.stop.is_cancelled()
    }

    /// Waits until it has been drained.
    pub async fn finished(&self) {
        let _ = self.is_alive.clone().wait_for(|alive| !alive).await;
    }

    /// Takes nothing new, hands back at once what has not started, lets what runs finish for up to `grace`,
    /// then cancels it and hands it back. Returns how many deliveries were not finished.
    ///
    /// It ends within `grace` and a few seconds, also while disconnected.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.hand_back_what_waits().await;
        let places = &self.settler.places;
        let _ = timeout(grace, places.fallen_to(0)).await;
        let unfinished = places.held();
        if unfinished > 0 {
            self.inbox.cancel();
            let _ = timeout(LAST_WORDS, places.fallen_to(0)).await;
            self.settler.hand_back_the_rest();
        }
        self.inbox.close();
        self.written.cancel();
        let _ = timeout(LAST_WORDS, self.writing.wait()).await;
        self.settler.connection().close(LAST_WORDS).await;
        let _ = self.alive.send(false);
        unfinished
    }

    /// Only when the fetch has ended: handed back while it still asks, a message would come straight back.
    async fn hand_back_what_waits(&self) {
        let mut waiting = self.inbox.recall();
        let _ = timeout(LAST_WORDS, self.fetching.wait()).await;
        waiting.extend(self.inbox.recall());
        waiting.iter().for_each(Delivery::hand_back);
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        self.stop.cancel();
        self.written.cancel();
        self.inbox.close();
    }
}

impl fmt::Debug for Consumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumption").field("durable", &self.durable).finish_non_exhaustive()
    }
}

/// Keeps one consumption consuming.
struct Supervisor {
    connect: ConnectOptions,
    options: Arc<ConsumerOptions>,
    settler: Arc<Settler>,
    inbox: Arc<dyn Inbox>,
    stop: CancellationToken,
    /// Up to here every message of the stream is settled, as far as we know.
    acknowledged: AtomicU64,
}

impl Supervisor {
    async fn run(self, mut connection: Connection, mut durable: Durable) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let began = tokio::time::Instant::now();
            let Some(problem) = self.fetch(&connection, &durable).await else { return };
            count(&self.settler.counters.repairs);
            warn!(consumer = self.options.name, "{}; repairing", self.describe(&problem));
            if began.elapsed() > LONGEST_PAUSE {
                pause = SHORTEST_PAUSE;
            }
            let Some(repaired) = self.repair(connection, &mut pause).await else { return };
            (connection, durable) = repaired;
        }
    }

    /// Fetches until stopped (`None`) or until there is something to repair.
    async fn fetch(&self, connection: &Connection, durable: &Durable) -> Option<Problem> {
        let fetching = fetch(Fetch {
            options: &self.options,
            connection,
            durable,
            settler: &self.settler,
            inbox: &*self.inbox,
            stop: &self.stop,
        });
        tokio::select! {
            ended = fetching => ended.err(),
            problem = self.inspect(connection, durable), if !self.stop.is_cancelled() => Some(problem),
            () = self.count_reconnects(connection) => Some(Problem::Silent),
        }
    }

    /// Returns when the connection is closed for good.
    async fn count_reconnects(&self, connection: &Connection) {
        let mut link = connection.link();
        let mut generation = link.borrow_and_update().generation;
        while link.changed().await.is_ok() {
            let now = link.borrow_and_update().generation;
            if now != generation {
                generation = now;
                count(&self.settler.counters.repairs);
            }
        }
    }

    /// Tries again with growing pauses until the durable is bound; `None` when stopped meanwhile.
    async fn repair(
        &self,
        mut connection: Connection,
        pause: &mut Duration,
    ) -> Option<(Connection, Durable)> {
        loop {
            let trying = async {
                tokio::time::sleep(*pause).await;
                self.bind(&mut connection).await
            };
            let tried = self.stop.run_until_cancelled(trying).await?;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            match tried {
                Ok(durable) => {
                    info!(consumer = self.options.name, "consuming again");
                    return Some((connection, durable));
                }
                Err(error) => error!(consumer = self.options.name, "{error} Trying again in {:?}.", *pause),
            }
        }
    }

    async fn bind(&self, connection: &mut Connection) -> Result<Durable> {
        if connection.is_closed() {
            *connection = Connection::open(&self.connect).await?;
            self.settler.move_to(connection.clone());
        }
        let resume_at = self.resume_at(connection).await?;
        bind(connection, &self.options, resume_at).await
    }

    /// Where a durable that was deleted begins again: behind what is settled, so that the stream is not
    /// replayed. A stream that was made anew begins at its beginning.
    async fn resume_at(&self, connection: &Connection) -> Result<Option<u64>> {
        let acknowledged = self.acknowledged.load(Relaxed);
        if acknowledged == 0 {
            return Ok(None);
        }
        let info = call(connection, &format!("STREAM.INFO.{}", self.options.stream), &Value::Null).await?;
        let last = info["state"]["last_seq"].as_u64().unwrap_or_default();
        Ok((acknowledged <= last).then_some(acknowledged + 1))
    }

    /// Looks at the durable now and then; returns when it needs repair.
    async fn inspect(&self, connection: &Connection, durable: &Durable) -> Problem {
        let subject = format!("CONSUMER.INFO.{}.{}", self.options.stream, durable.name);
        // The first look is at once: a durable that is deleted early must not be replayed either.
        let mut looks = tokio::time::interval(INSPECTION);
        let mut before = None;
        loop {
            looks.tick().await;
            if !connection.is_up() {
                continue;
            }
            match call(connection, &subject, &json!(null)).await {
                Ok(info) => {
                    self.acknowledged
                        .store(info["ack_floor"]["stream_seq"].as_u64().unwrap_or_default(), Relaxed);
                    let received = Some(self.settler.counters.snapshot().received);
                    if self.is_stalled(durable, &info) && received == before {
                        return Problem::Silent;
                    }
                    before = received;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::StreamNotFound) => {
                    return Problem::Gone;
                }
                Err(_) => {}
            }
        }
    }

    /// A push consumer that nobody listens to, as the server sees it, though we do.
    fn is_stalled(&self, durable: &Durable, info: &Value) -> bool {
        let waiting = info["num_pending"].as_u64().unwrap_or_default() > 0;
        durable.deliver_subject.is_some() && waiting && info["push_bound"].as_bool() != Some(true)
    }

    fn describe(&self, problem: &Problem) -> String {
        let stream = &self.options.stream;
        match problem {
            Problem::Gone => format!("the durable or its stream `{stream}` is gone from the server"),
            Problem::Silent => {
                format!("nothing was heard from the stream `{stream}` though something should be")
            }
            Problem::Refused(why) => format!("the server refused a pull request ({why})"),
        }
    }
}
