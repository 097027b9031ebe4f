//! Wires all of it: start, run, drain, stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bind::durable::bind;
use crate::bind::position::Resume;
use crate::config::{ConnectOptions, ConsumerOptions};
use crate::connect::Connection;
use crate::error::Result;
use crate::fail_point;
use crate::handle::delivery::Delivery;
use crate::handle::{Handler, Inbox, Tasks};
use crate::observe::{Counters, Snapshot};
use crate::settle::Settler;
use crate::shared::Shared;
use crate::suspect::Suspects;
use crate::suspect::gate::Gate;
use crate::watch::Supervisor;

/// Timeout of each step at the end of a consumption: the fetch ends, the last settlements are written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long what arrived already may take to start when a drain begins: less was prefetched than the handlers need
/// for that, unless they are held up.
const STARTING: Duration = Duration::from_millis(250);

/// How long handlers that are cancelled may take to end.
const CANCELLING: Duration = Duration::from_millis(500);

/// Consumes with a Rust handler, on the current tokio runtime, over a connection of its own.
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
    consumer.validate()?;
    let connection = Connection::open(&connect).await?;
    connection.name(&consumer.name);
    let durable = bind(&connection, &consumer, &Resume::default()).await?;
    // An inherited durable is the consumer's own from now on.
    let options = Arc::new(ConsumerOptions { durable: durable.name.clone(), inherits: None, ..consumer });
    let shared = Shared::new(options.clone(), connection.clone());
    let settler = Settler::new(shared.clone());
    let suspects = Suspects::new(settler.clone(), Gate::new(shared.clone(), inbox.clone()));
    let (alive, is_alive) = watch::channel(true);
    let supervisor = Supervisor {
        connect,
        options,
        settler: settler.clone(),
        suspects: suspects.clone(),
        stop: shared.consumer.stop.clone(),
    };
    let stop = supervisor.stop.clone();
    let name = durable.name.clone();
    let (fetching, writing) = (TaskTracker::new(), TaskTracker::new());
    fetching.spawn(shared.watched(supervisor.run(connection, durable)));
    fetching.spawn(shared.watched(suspects.clone().run(stop.clone())));
    let written = CancellationToken::new();
    writing.spawn(shared.watched(settler.clone().write(written.clone())));
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
        alive,
        is_alive,
    })
}

/// A running consumption. It repairs itself: it reconnects, recreates a deleted durable at its old
/// position, and waits for a missing stream. It ends by [`drain`](Self::drain). What it cannot repair is a
/// panic in its own tasks: that ends it, see [`finished`](Self::finished).
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
        Snapshot {
            in_flight: self.settler.shared.places.held() as u64,
            ..self.settler.shared.counters.snapshot()
        }
    }

    /// The counters themselves, which outlive the consumption.
    #[must_use]
    pub fn live_counters(&self) -> Arc<Counters> {
        self.settler.shared.counters.clone()
    }

    /// Whether the server can be reached now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.settler.shared.connection().is_up()
    }

    /// Whether it has neither been stopped nor drained, nor been ended by a bug of the engine.
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self.is_alive.borrow() && !self.stop.is_cancelled()
    }

    /// Waits until it has been drained, or a bug of the engine has ended it: then [`drain`](Self::drain) it
    /// all the same, so that what still runs can end.
    pub async fn finished(&self) {
        let mut is_alive = self.is_alive.clone();
        tokio::select! {
            _ = is_alive.wait_for(|alive| !alive) => {}
            () = self.settler.shared.defect.found() => {}
        }
    }

    /// Takes nothing new and hands back what no handler has started, until it is [resumed](Self::resume); what runs
    /// continues. For a program whose handlers are held up: other workers get the messages.
    pub fn suspend(&self) {
        self.settler.shared.suspended.send_replace(true);
    }

    /// Takes messages again after [`suspend`](Self::suspend).
    pub fn resume(&self) {
        self.settler.shared.suspended.send_replace(false);
    }

    /// Whether messages wait for this durable, in this process or, as far as the server has told lately, in the stream.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        let shared = &self.settler.shared;
        shared.backlog.load(Relaxed) > 0 || shared.places.held() > shared.options.concurrency
    }

    /// Takes nothing new and hands back what no handler can start at once; what runs continues. A
    /// [`drain`](Self::drain) follows.
    pub async fn stop_taking(&self) {
        self.stop.cancel();
        self.hand_back_what_waits(STARTING).await;
    }

    /// Takes nothing new, hands back what no handler can start at once, lets what runs finish for up to `grace`,
    /// then cancels it and hands it back. Returns how many deliveries were not finished.
    ///
    /// It ends within `grace` and a few seconds, also while disconnected.
    pub async fn drain(&self, grace: Duration) -> usize {
        let began = Instant::now();
        // Also without any grace: what was dropped instead would come again as late as after a failure.
        self.stop.cancel();
        self.hand_back_what_waits(STARTING.min(grace)).await;
        let places = &self.settler.shared.places;
        let _ = timeout(grace.saturating_sub(began.elapsed()), places.fallen_to(0)).await;
        let unfinished = places.held();
        if unfinished > 0 {
            self.inbox.cancel();
            self.suspects.recall().iter().for_each(Delivery::hand_back);
            let _ = timeout(CANCELLING, places.fallen_to(0)).await;
            let _ = timeout(CLOSE_TIMEOUT, self.suspects.end_marks()).await;
            self.settler.hand_back_the_rest();
        }
        self.inbox.close();
        self.written.cancel();
        let _ = timeout(CLOSE_TIMEOUT, self.writing.wait()).await;
        self.settler.shared.connection().close(CLOSE_TIMEOUT).await;
        let _ = self.alive.send(false);
        unfinished
    }

    /// What waits may start for so long: each message that is handed back has lost an attempt that nobody made. It is
    /// handed back only when the fetch has ended: while it still asks, a message would come straight back.
    async fn hand_back_what_waits(&self, starting: Duration) {
        let mut waiting = if starting.is_zero() { self.suspects.recall() } else { Vec::new() };
        fail_point::pass("draining");
        let _ = timeout(CLOSE_TIMEOUT, self.fetching.wait()).await;
        let _ = timeout(starting, self.settler.shared.places.fallen_to(waiting.len())).await;
        waiting.extend(self.suspects.recall());
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
