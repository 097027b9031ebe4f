//! The user's code runs: a [`Handler`] and the pool of tasks that runs it.

pub mod delivery;
pub mod router;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::defect::describe;
use crate::fail_point;
use crate::handle::delivery::{Delivery, Follows};
use crate::lock::lock;
use crate::message::Message;
use crate::observe::target::HANDLER;
use crate::outcome::{HandlerError, IntoOutcome, Outcome};

/// Handles messages. Closures and functions are handlers:
/// `async |message: Message| -> Result<(), HandlerError>` and the like.
#[diagnostic::on_unimplemented(
    message = "`{Self}` handles no messages",
    note = "a handler is `Fn(Message) -> Future` whose result is `()`, an `Outcome`, or a `Result` of either \
            with an error that converts into `HandlerError`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Handles one message; called concurrently, up to the consumer's `concurrency`.
    ///
    /// An error is retried as the policy says, unless it [insists](HandlerError::dead_letter).
    fn handle(&self, message: Message) -> impl Future<Output = Result<Outcome, HandlerError>> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoOutcome> + Send,
{
    async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
        self(message).await.into_outcome()
    }
}

/// Where fetched deliveries wait for their handlers. A Rust program uses [`Handler`]s; this is for
/// whoever runs handlers of another kind, as the Python bridge does, and asks each delivery whether it
/// [may start](Delivery::may_start).
pub trait Inbox: Send + Sync + fmt::Debug + 'static {
    /// Takes all the deliveries; must not block.
    fn put(&self, deliveries: &mut Vec<Delivery>);
    /// Gives back what no handler has started.
    fn recall(&self) -> Vec<Delivery>;
    /// Cancels the handlers that still run, as far as they can be cancelled.
    fn cancel(&self);
    /// Nothing will be put any more.
    fn close(&self);
}

/// Runs a [`Handler`] in as many tasks as the consumer's `concurrency`.
pub(crate) struct Tasks {
    queue: Arc<Queue>,
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(crate) fn start(handler: impl Handler, concurrency: usize, timeout: Option<Duration>) -> Self {
        let queue = Arc::new(Queue { waiting: Mutex::default(), ready: Semaphore::new(0) });
        let handler = Arc::new(handler);
        let mut running = JoinSet::new();
        for _ in 0..concurrency {
            running.spawn(keep_running(queue.clone(), handler.clone(), timeout));
        }
        Self { queue, running: Mutex::new(running) }
    }
}

impl Inbox for Tasks {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        let count = deliveries.len();
        lock(&self.queue.waiting).extend(deliveries.drain(..));
        self.queue.ready.add_permits(count);
    }

    fn recall(&self) -> Vec<Delivery> {
        lock(&self.queue.waiting).drain(..).collect()
    }

    fn cancel(&self) {
        lock(&self.running).abort_all();
    }

    fn close(&self) {
        self.queue.ready.close();
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("waiting", &lock(&self.queue.waiting).len()).finish_non_exhaustive()
    }
}

struct Queue {
    waiting: Mutex<VecDeque<Delivery>>,
    ready: Semaphore,
}

impl Queue {
    /// The next delivery; `None` when the queue is closed.
    async fn next(&self) -> Option<Delivery> {
        loop {
            self.ready.acquire().await.ok()?.forget();
            // A recall leaves permits without deliveries behind.
            let next = lock(&self.waiting).pop_front();
            if next.as_ref().is_some_and(Delivery::may_start) {
                return next;
            }
        }
    }
}

/// A panic of ours costs the delivery that met it an attempt, and not the task.
async fn keep_running(queue: Arc<Queue>, handler: Arc<impl Handler>, timeout: Option<Duration>) {
    let running = || AssertUnwindSafe(run(queue.clone(), handler.clone(), timeout)).catch_unwind();
    while let Err(panic) = running().await {
        error!(target: HANDLER, "A task that runs handlers panicked ({}) and was restarted.", describe(panic.as_ref()));
    }
}

async fn run(queue: Arc<Queue>, handler: Arc<impl Handler>, timeout: Option<Duration>) {
    while let Some(delivery) = queue.next().await {
        let running = HandBack(&delivery);
        fail_point::pass("started");
        let handling =
            AssertUnwindSafe(async { handler.handle(delivery.message().clone()).await }).catch_unwind();
        let ended = match timeout {
            Some(limit) => tokio::time::timeout(limit, handling).await,
            None => Ok(handling.await),
        };
        std::mem::forget(running);
        fail_point::pass("returned");
        match ended {
            Ok(Ok(Ok(Outcome::Ack))) => delivery.succeed(),
            Ok(Ok(Ok(outcome))) => drop(delivery.settle(outcome)),
            Ok(Ok(Err(error))) => judge(&delivery, &error),
            Ok(Err(panic)) => {
                judge(&delivery, &format!("the handler panicked: {}", describe(panic.as_ref())).into());
            }
            Err(_) => judge(&delivery, &"the handler ran longer than its timeout".into()),
        }
    }
}

/// A handler that is cancelled made no attempt worth counting: the message is handed back at once.
struct HandBack<'a>(&'a Delivery);

impl Drop for HandBack<'_> {
    fn drop(&mut self) {
        self.0.hand_back();
    }
}

fn judge(delivery: &Delivery, error: &HandlerError) {
    let attempt = delivery.describe();
    let consumer = delivery.consumer();
    let follows = delivery.fail(error.outcome().cloned());
    if follows != Follows::FinalWord {
        warn!(target: HANDLER, consumer, "{attempt} failed: {error}; {follows}.");
        return;
    }
    let outcome = delivery.final_outcome();
    error!(target: HANDLER, consumer, "{attempt} failed: {error}; {}.", Follows::Outcome(outcome.clone()));
    delivery.exhaust(outcome, Some(error.to_string()));
}
