//! Wires all of it: start, run, drain, stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::batch::BatchHandler;
use crate::batch::pool::BatchPool;
use crate::bind::durable::{Durable, bind, delete};
use crate::bind::position::Resume;
use crate::config::{Batching, ConnectOptions, ConsumerOptions, Exhausted};
use crate::connect::Connection;
use crate::connect::seat::{FEWEST_TO_SHARE, Seat};
use crate::error::{Error, ErrorKind, Result};
use crate::fail_point;
use crate::fetch::LONGEST_END;
use crate::handle::{Handler, Inbox, TaskPool};
use crate::jetstream::info::consumer_info;
use crate::jetstream::sign::is_confirmed;
use crate::observe::meter::{InFlight, Name};
use crate::observe::monitor::HANDLER;
use crate::observe::state::{Machine, trouble_of};
use crate::observe::target::CONSUMER;
use crate::observe::{Counters, Metrics, Monitor, Snapshot, Status};
use crate::settle::Settler;
use crate::settle::lease::Unsettled;
use crate::shared::Shared;
use crate::suspect::Suspects;
use crate::suspect::gate::Gate;
use crate::watch::Repairer;
use crate::watch::announce::Announcer;

/// Waiting messages that keep a consumption busy for a while.
const BACKLOG: u64 = 1_000;

/// Timeout of each step at the end of a consumption, as when the last settlements are written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long what arrived already may take to start when a drain begins: less was prefetched than the handlers need
/// for that, unless they are held up.
const START_TIMEOUT: Duration = Duration::from_millis(250);

/// How often it is counted what is in hand, for the metrics.
const COUNTING: Duration = Duration::from_secs(1);

/// How long handlers that are cancelled may take to end.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

/// Consumes with a Rust handler, on the current tokio runtime. Consumptions of one runtime with equal `connect` share a
/// connection while they have little to do.
///
/// ```no_run
/// use nats_consumer::{ConnectOptions, ConsumerOptions, Message, consume};
/// use std::time::Duration;
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let connect = ConnectOptions::to(["nats://127.0.0.1:4222"]);
/// let options = ConsumerOptions::pull("orders", "billing").filter("orders.*.created").concurrency(20);
/// let consumption = consume(connect, options, async |message: Message| println!("{}", message.subject())).await?;
/// consumption.drain(Duration::from_secs(25)).await;
/// # Ok(()) }
/// ```
///
/// The future may be dropped: nothing is consumed then, and the durable may have been made.
///
/// # Errors
/// When the consumption cannot start: no server, no stream, options or a durable that do not fit.
/// Failures after the start are repaired, see [`Consumption`].
pub async fn consume(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handler: impl Handler,
) -> Result<Consumption> {
    let tasks = tasks(handler, &consumer)?;
    consume_into(connect, consumer, tasks).await
}

/// [`consume`], with its numbers among the metrics of this process.
///
/// ```no_run
/// use nats_consumer::observe::{Format, Metrics};
/// use nats_consumer::{ConnectOptions, ConsumerOptions, Message, consume_observed};
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let metrics = Metrics::default();
/// let connect = ConnectOptions::to(["nats://127.0.0.1:4222"]);
/// let billing = ConsumerOptions::pull("orders", "billing");
/// let consumption = consume_observed(connect, billing, async |_: Message| println!("billed"), &metrics).await?;
/// println!("{}", metrics.text(Format::Prometheus));
/// # drop(consumption);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`consume`].
pub async fn consume_observed(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handler: impl Handler,
    metrics: &Metrics,
) -> Result<Consumption> {
    let tasks = tasks(handler, &consumer)?;
    let monitor = metrics.monitor(&Name::of(&consumer, HANDLER));
    consume_monitored(connect, consumer, tasks, monitor).await
}

/// Consumes in batches with a Rust handler: messages gather as [`batching`](ConsumerOptions::batching) says, 100 where
/// that is not set, and one call handles them. `concurrency` is how many batches run at once.
///
/// ```no_run
/// use nats_consumer::{Batching, ConnectOptions, ConsumerOptions, HandlerError, Message, consume_batches};
/// use std::time::Duration;
///
/// async fn index(orders: Vec<Message>) -> Result<(), HandlerError> {
///     println!("one insert of {} rows", orders.len());
///     Ok(())
/// }
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let connect = ConnectOptions::to(["nats://127.0.0.1:4222"]);
/// let options = ConsumerOptions::pull("orders", "index").batching(Batching::of(200)).concurrency(1);
/// let consumption = consume_batches(connect, options, index).await?;
/// consumption.drain(Duration::from_secs(25)).await; // what still gathers is handed back at once
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`consume`].
pub async fn consume_batches(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handler: impl BatchHandler,
) -> Result<Consumption> {
    let (consumer, pool) = batch_pool(handler, consumer)?;
    consume_into(connect, consumer, pool).await
}

/// [`consume_batches`], with its numbers among the metrics of this process. They are of messages, not of batches: the
/// duration of a message is that from the start of its batch to its own end.
///
/// ```no_run
/// use nats_consumer::observe::{Format, Metrics};
/// use nats_consumer::{Batching, ConnectOptions, ConsumerOptions, Message, consume_batches_observed};
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let metrics = Metrics::default();
/// let connect = ConnectOptions::to(["nats://127.0.0.1:4222"]);
/// let options = ConsumerOptions::pull("orders", "index").batching(Batching::of(200));
/// let consumption = consume_batches_observed(connect, options, async |_: Vec<Message>| (), &metrics).await?;
/// println!("{}", metrics.text(Format::Prometheus));
/// # drop(consumption);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`consume`].
pub async fn consume_batches_observed(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    handler: impl BatchHandler,
    metrics: &Metrics,
) -> Result<Consumption> {
    let (consumer, pool) = batch_pool(handler, consumer)?;
    let monitor = metrics.monitor(&Name::of(&consumer, HANDLER));
    consume_monitored(connect, consumer, pool, monitor).await
}

fn batch_pool(
    handler: impl BatchHandler,
    mut consumer: ConsumerOptions,
) -> Result<(ConsumerOptions, Arc<BatchPool>)> {
    let batching = *consumer.batching.get_or_insert(Batching::of(100));
    consumer.refuse_braces()?;
    consumer.validate()?;
    let pool = BatchPool::start(handler, batching, &consumer);
    Ok((consumer, Arc::new(pool)))
}

/// The tasks for a Rust handler. The options are checked first: there is a task for each of `concurrency`.
fn tasks(handler: impl Handler, consumer: &ConsumerOptions) -> Result<Arc<TaskPool>> {
    consumer.refuse_braces()?;
    consumer.validate()?;
    if consumer.batching.is_some() {
        let text = format!("{}: `batching` is for `consume_batches`.", consumer.name);
        return Err(Error::new(ErrorKind::Config, text));
    }
    Ok(Arc::new(TaskPool::start(handler, consumer)))
}

/// Runs consumptions until `stop`, or until one of them has ended, and then drains all of them at the same time. Returns
/// how many deliveries were not finished within `grace`.
///
/// ```no_run
/// use nats_consumer::{ConnectOptions, ConsumerOptions, Message, consume, run_until};
/// use std::time::Duration;
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let connect = ConnectOptions::to(["nats://127.0.0.1:4222"]);
/// let (billing, audit) = (ConsumerOptions::pull("orders", "billing"), ConsumerOptions::push("orders", "audit"));
/// let consumptions = [
///     consume(connect.clone(), billing, async |_: Message| println!("billed")).await?,
///     consume(connect, audit, async |_: Message| println!("noted")).await?,
/// ];
/// let stop = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
/// run_until(&consumptions, stop, Duration::from_secs(25)).await;
/// # Ok(()) }
/// ```
pub async fn run_until(
    consumptions: &[Consumption],
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> usize {
    let mut ends: FuturesUnordered<_> = consumptions.iter().map(Consumption::finished).collect();
    tokio::select! {
        () = stop => {}
        Some(()) = ends.next() => {}
    }
    join_all(consumptions.iter().map(|consumption| consumption.drain(grace))).await.into_iter().sum()
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
    let monitor = Monitor::alone(&consumer);
    consume_monitored(connect, consumer, inbox, monitor).await
}

/// [`consume_into`], with what is known of the consumer kept in a monitor that outlives the consumption.
///
/// # Errors
/// As [`consume`].
pub async fn consume_monitored(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    inbox: Arc<dyn Inbox>,
    monitor: Arc<Monitor>,
) -> Result<Consumption> {
    monitor.note(Machine::starts);
    let started = start(connect, consumer, inbox, monitor.clone()).await;
    if let Err(error) = &started {
        monitor.note(|machine| machine.meets(trouble_of(error)));
    }
    started
}

async fn start(
    connect: ConnectOptions,
    consumer: ConsumerOptions,
    inbox: Arc<dyn Inbox>,
    monitor: Arc<Monitor>,
) -> Result<Consumption> {
    consumer.validate()?;
    let seat = Arc::new(Seat::of(&connect, &consumer.name));
    if is_little(consumer.max_ack_pending) {
        seat.stay_apart();
    }
    let connection = seat.take().await?;
    monitor.note(Machine::binds);
    let durable = bind(&connection, &consumer, &Resume::default()).await?;
    let connection = apart_if_needed(&seat, connection, &consumer, &durable).await;
    // An inherited durable is the consumer's own from now on.
    let options = Arc::new(ConsumerOptions { durable: durable.name.clone(), inherits: None, ..consumer });
    let shared = Shared::new(options.clone(), connection.clone(), monitor);
    let settler = Settler::new(shared.clone());
    let gate = Gate::new(shared.clone(), inbox.clone());
    let suspects = Suspects::new(settler.clone(), gate.clone());
    let (alive, is_alive) = watch::channel(true);
    let repairer = Repairer {
        seat: seat.clone(),
        options,
        settler: settler.clone(),
        suspects: suspects.clone(),
        stop: shared.consumer.stop.clone(),
    };
    let stop = repairer.stop.clone();
    let name = durable.name.clone();
    let (fetching, writing) = (TaskTracker::new(), TaskTracker::new());
    fetching.spawn(shared.watched(repairer.run(connection, durable)));
    fetching.spawn(shared.watched(suspects.clone().run(stop.clone())));
    let written = CancellationToken::new();
    writing.spawn(shared.watched(settler.clone().write(written.clone())));
    writing.spawn(shared.watched(count_what_is_held(shared.clone(), gate, written.clone())));
    if shared.options.exhausted == Exhausted::DeadLetter && seat.is_first_to_prepare(&shared.options.stream) {
        let (settler, stop) = (settler.clone(), stop.clone());
        fetching.spawn(shared.watched(async move {
            stop.run_until_cancelled(settler.prepare_dead_letters()).await.unwrap_or_default();
        }));
    }
    if shared.options.announce {
        let announcing = Announcer::new(shared.clone()).run();
        let written = written.clone();
        writing.spawn(
            shared.watched(async move { written.run_until_cancelled(announcing).await.unwrap_or_default() }),
        );
    }
    fetching.close();
    writing.close();
    Ok(Consumption {
        durable: name,
        settler,
        inbox,
        suspects,
        stop,
        written,
        fetching,
        writing,
        seat,
        alive,
        is_alive,
    })
}

/// Whether so few deliveries may be unsettled that those lost with a connection would hold up the others for `ack_wait`.
fn is_little(max_ack_pending: Option<i64>) -> bool {
    max_ack_pending.is_some_and(|most| (1..FEWEST_TO_SHARE).contains(&most))
}

/// The connection for a consumption that begins: one of its own, if others use this one and many messages wait, or if a
/// loss would hold it up.
async fn apart_if_needed(
    seat: &Seat,
    connection: Connection,
    consumer: &ConsumerOptions,
    durable: &Durable,
) -> Connection {
    let allowed = durable.config.get("max_ack_pending").and_then(Value::as_i64);
    // A worker that sets the pace makes room for what follows a loss.
    let is_little = !consumer.is_paced() && is_little(allowed);
    if is_little {
        seat.stay_apart();
    }
    let needs_its_own =
        is_little || seat.has_company() && has_backlog(&connection, &consumer.stream, &durable.name).await;
    if !needs_its_own || seat.is_on_its_own() {
        return connection;
    }
    match seat.own().await {
        Ok(own) => {
            seat.leave(&connection, CLOSE_TIMEOUT).await;
            own
        }
        // The server may allow no further one.
        Err(_) => connection,
    }
}

async fn has_backlog(connection: &Connection, stream: &str, durable: &str) -> bool {
    consumer_info(connection, stream, durable).await.is_ok_and(|info| info.num_pending >= BACKLOG)
}

/// Messages that a description names.
const MOST_DESCRIBED: usize = 100;

/// Keeps the counts of deliveries in hand up to date until `stop`.
async fn count_what_is_held(shared: Arc<Shared>, gate: Arc<Gate>, stop: CancellationToken) {
    loop {
        // In this order: what arrives or starts meanwhile is waiting, and not late.
        let (late, held, waiting) = (shared.late.load(Relaxed), shared.places.held(), gate.waiting());
        let running = held.saturating_sub(waiting + late);
        shared.meter().holds(InFlight { waiting, running, late });
        if stop.run_until_cancelled(sleep(COUNTING)).await.is_none() {
            return shared.meter().holds(InFlight::default());
        }
    }
}

/// A running consumption. It repairs itself: it reconnects, recreates a deleted durable at its old
/// position, and waits for a missing stream. It ends by [`drain`](Self::drain). What it cannot repair is a
/// panic in its own tasks: that ends it, see [`finished`](Self::finished).
///
/// ```no_run
/// use nats_consumer::{ConnectOptions, ConsumerOptions, Message, consume};
/// use std::time::Duration;
///
/// # async fn example(connect: ConnectOptions) -> nats_consumer::Result<()> {
/// let options = ConsumerOptions::pull("orders", "billing");
/// let consumption = consume(connect, options, async |_: Message| ()).await?;
/// tokio::select! {
///     _ = tokio::signal::ctrl_c() => {}
///     () = consumption.finished() => {} // a bug of the engine
/// }
/// let unfinished = consumption.drain(Duration::from_secs(25)).await;
/// println!("{} handled, {unfinished} not finished", consumption.counters().succeeded);
/// # Ok(()) }
/// ```
#[must_use = "a consumption that is dropped stops without a drain"]
pub struct Consumption {
    durable: String,
    settler: Arc<Settler>,
    inbox: Arc<dyn Inbox>,
    suspects: Arc<Suspects>,
    stop: CancellationToken,
    written: CancellationToken,
    fetching: TaskTracker,
    writing: TaskTracker,
    seat: Arc<Seat>,
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
    ///
    /// ```
    /// # fn example(consumption: &nats_consumer::Consumption) {
    /// for (name, count) in consumption.counters().fields() {
    ///     println!("{name} {count}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn counters(&self) -> Snapshot {
        Snapshot {
            in_flight: self.settler.shared.places.held() as u64,
            ..self.settler.shared.counters.snapshot()
        }
    }

    /// Lines about the consumption for somebody who wonders what it does: its state, and the messages that are not
    /// settled, the oldest first.
    #[doc(hidden)]
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let name = &self.settler.shared.options.name;
        let state = format!("{name} {}", self.status());
        let unsettled = self.settler.unsettled();
        let more = unsettled.len().saturating_sub(MOST_DESCRIBED);
        let line = |it: &Unsettled| {
            let Unsettled { sequence, attempt, age } = it;
            format!("{name}: message {sequence}, attempt {attempt}, came {:.1} s ago", age.as_secs_f64())
        };
        let lines = unsettled.iter().take(MOST_DESCRIBED).map(line);
        let rest = (more > 0).then(|| format!("{name}: {more} more messages are not settled"));
        std::iter::once(state).chain(lines).chain(rest).collect()
    }

    /// The counters themselves, which outlive the consumption.
    #[must_use]
    pub fn live_counters(&self) -> Arc<Counters> {
        self.settler.shared.counters.clone()
    }

    /// The state now, with its reason and its beginning: whether it consumes, or what keeps messages away.
    ///
    /// ```no_run
    /// # fn example(consumption: &nats_consumer::Consumption) {
    /// let status = consumption.status();
    /// if !status.is_ready(std::time::Duration::from_secs(10)) {
    ///     println!("{}: {} {}", consumption.durable(), status.state, status.reason);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        self.settler.shared.monitor.status()
    }

    /// The status from now on: the receiver is told of each change.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.settler.shared.monitor.changes()
    }

    /// Whether the link to the server is up. A server that hangs is noticed within ten seconds.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.is_alive.borrow() && self.settler.shared.connection().is_up()
    }

    /// Whether it has neither been stopped nor drained, nor been ended by a bug of the engine. It runs while it
    /// repairs itself too: [`status`](Self::status) says whether messages are consumed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self.is_alive.borrow() && !self.stop.is_cancelled()
    }

    /// Waits until it has been drained, or a bug of the engine has ended it: then [`drain`](Self::drain) it
    /// anyway, so that running handlers can end. Cancel-safe: use it in `select!`.
    pub async fn finished(&self) {
        let mut is_alive = self.is_alive.clone();
        tokio::select! {
            _ = is_alive.wait_for(|alive| !alive) => {}
            () = self.settler.shared.defect.found() => {}
        }
    }

    /// Takes nothing new and hands back what no handler has started, until it is [resumed](Self::resume); what runs
    /// continues. For a program whose handlers are held up: other workers get the messages.
    ///
    /// ```
    /// # async fn example(consumption: &nats_consumer::Consumption) {
    /// consumption.suspend();
    /// // Wait until the database is back.
    /// consumption.resume();
    /// # }
    /// ```
    pub fn suspend(&self) {
        self.settler.shared.suspended.send_replace(true);
        self.settler.shared.monitor.note(|machine| machine.suspends(true));
    }

    /// Takes messages again after [`suspend`](Self::suspend).
    pub fn resume(&self) {
        self.settler.shared.suspended.send_replace(false);
        self.settler.shared.monitor.note(|machine| machine.suspends(false));
    }

    /// Whether messages wait for this durable, in this process or, as far as the server has told lately, in the stream.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        let shared = &self.settler.shared;
        shared.backlog.load(Relaxed) > 0 || shared.places.held() > shared.options.at_once()
    }

    /// Takes nothing new and hands back what no handler can start at once; what runs continues. A
    /// [`drain`](Self::drain) follows.
    pub async fn stop_taking(&self) {
        self.take_no_more();
        self.hand_back_what_waits(START_TIMEOUT).await;
    }

    /// Takes nothing new, hands back what no handler can start at once, lets what runs finish for up to `grace`,
    /// then cancels it and hands it back. Returns how many deliveries were not finished.
    ///
    /// It ends within `grace` and a few seconds, also while disconnected. The future may be dropped: a second call goes on.
    pub async fn drain(&self, grace: Duration) -> usize {
        let began = Instant::now();
        // Also without any grace: what was dropped instead would come again as late as after a failure.
        self.take_no_more();
        self.hand_back_what_waits(START_TIMEOUT.min(grace)).await;
        let places = &self.settler.shared.places;
        let _ = timeout(grace.saturating_sub(began.elapsed()), places.fallen_to(0)).await;
        let unfinished = places.held();
        if unfinished > 0 {
            self.inbox.cancel();
            self.suspects.hand_back(self.suspects.recall()).await;
            let _ = timeout(CANCEL_TIMEOUT, places.fallen_to(0)).await;
            let _ = timeout(CLOSE_TIMEOUT, self.suspects.end_marks()).await;
            self.settler.hand_back_the_rest();
        }
        self.inbox.close();
        self.written.cancel();
        let settling = async {
            self.writing.wait().await;
            self.confirm_settlements().await;
        };
        let _ = timeout(CLOSE_TIMEOUT, settling).await;
        if self.settler.shared.options.ephemeral.is_some() {
            self.delete_durable().await;
        }
        self.seat.leave_all(CLOSE_TIMEOUT).await;
        self.settler.shared.monitor.note(Machine::ends);
        let _ = self.alive.send(false);
        unfinished
    }

    /// Waits until the server has read the last settlements. A connection that is closed while the server still sends
    /// something is reset, and what was written last may be lost with it.
    async fn confirm_settlements(&self) {
        let connection = self.settler.shared.connection();
        if connection.is_up() {
            is_confirmed(&connection, &self.settler.shared.options.stream, &self.durable, CLOSE_TIMEOUT)
                .await;
        }
    }

    /// Deletes the durable, which nobody else reads. If that fails, the server does it later.
    async fn delete_durable(&self) {
        let connection = self.settler.shared.connection();
        let options = &self.settler.shared.options;
        let deleting = delete(&connection, &options.stream, &self.durable);
        if let Ok(Err(error)) = timeout(CLOSE_TIMEOUT, deleting).await {
            debug!(target: CONSUMER, consumer = options.name, "The durable was not deleted: {error}");
        }
    }

    fn take_no_more(&self) {
        self.inbox.wind_up();
        self.stop.cancel();
        self.settler.shared.monitor.note(Machine::drains);
    }

    /// Waits up to `starting` for handlers to take the waiting messages, then hands the rest back: the fewer of them, the
    /// less there is to note. Nothing is handed back before the fetch has ended, or it would come straight back.
    async fn hand_back_what_waits(&self, starting: Duration) {
        // What gathers does not start any more.
        let starting = if self.settler.shared.options.batching.is_some() { Duration::ZERO } else { starting };
        let mut waiting = if starting.is_zero() { self.suspects.recall() } else { Vec::new() };
        fail_point::pass("draining");
        // To its end: a connection that is closed while messages still arrive takes no acknowledgement of theirs.
        let _ = timeout(LONGEST_END, self.fetching.wait()).await;
        let _ = timeout(starting, self.settler.shared.places.fallen_to(waiting.len())).await;
        waiting.extend(self.suspects.recall());
        self.suspects.hand_back(waiting).await;
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        self.stop.cancel();
        self.written.cancel();
        self.inbox.close();
        self.settler.shared.monitor.note(Machine::ends);
    }
}

impl fmt::Debug for Consumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumption").field("durable", &self.durable).finish_non_exhaustive()
    }
}
