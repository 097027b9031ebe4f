//! The user's code runs: a [`Handler`] and the pool of tasks that runs it.

mod adapt;
pub mod delivery;
pub mod extract;
pub mod router;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{Instrument, error, warn};

use crate::config::ConsumerOptions;
use crate::defect::describe;
use crate::fail_point;
use crate::handle::delivery::Delivery;
use crate::lock::lock;
use crate::message::Message;
use crate::observe::target::HANDLER;
use crate::outcome::{HandlerError, IntoOutcome, Outcome};

pub use adapt::{Classified, Observed};

/// Handles messages.
///
/// A function or closure that takes a [`Message`] is a handler: `async fn bill(message: Message) -> Result<(),
/// HandlerError>`, or `async |message: Message| ...` if it captures nothing. [`with_state`](crate::with_state) makes
/// one of a function that also takes state or the decoded payload. So does an implementation of this trait:
///
/// ```
/// use nats_consumer::{Handler, HandlerError, Message, Outcome};
/// use std::sync::Arc;
///
/// struct Bill { currency: &'static str }
///
/// impl Handler for Bill {
///     async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
///         let amount: u64 = message.json()?;
///         println!("{amount} {}", self.currency);
///         Ok(Outcome::Ack)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), HandlerError> {
/// let bill = Arc::new(Bill { currency: "EUR" }); // an `Arc` is a handler, so two consumers can share it
/// let outcome = bill.handle(Message::builder("orders.paid").json(&12).build()).await?;
/// assert_eq!(outcome, Outcome::Ack);
/// # Ok(()) }
/// ```
///
/// A handler around another one is how middleware is written:
///
/// ```
/// use nats_consumer::{Attempt, Handler, HandlerError, Message, Outcome};
///
/// /// Lets one tenant's messages through.
/// struct Only<H>(&'static str, H);
///
/// impl<H: Handler> Handler for Only<H> {
///     async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
///         if message.header("Tenant") != Some(self.0) {
///             return Ok(Outcome::Drop { reason: "another tenant".into() });
///         }
///         self.1.handle(message).await
///     }
///
///     fn attempted(&self, attempt: &Attempt<'_>) {
///         self.1.attempted(attempt);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), HandlerError> {
/// let handler = Only("acme", async |message: Message| println!("{}", message.subject()));
/// let message = Message::builder("orders.paid").header("Tenant", "other").build();
/// assert_eq!(handler.handle(message).await?.name(), "drop");
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` handles no messages",
    note = "a handler is `Fn(Message) -> Future` whose result is `()`, an `Outcome`, or a `Result` of either \
            with an error that converts into `HandlerError`",
    note = "for a function with other arguments, use `with_state(state, function)` or `from_fn(function)`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Handles one message; called concurrently, up to the consumer's `concurrency`.
    ///
    /// An error is retried as the policy says, unless it has an [outcome](HandlerError::outcome) of its own.
    fn handle(&self, message: Message) -> impl Future<Output = Result<Outcome, HandlerError>> + Send;

    /// Learns what became of an attempt. The consumption calls it for its outermost handler, after the decision; a
    /// handler that wraps another one passes it on. It must not block.
    fn attempted(&self, attempt: &Attempt<'_>) {
        let _ = attempt;
    }

    /// The same handler, with `classify` deciding what becomes of a message whose error has no
    /// [outcome](HandlerError::outcome) yet. `None` leaves it to the retry policy.
    ///
    /// ```
    /// use nats_consumer::{Handler, HandlerError, Message, Outcome};
    /// use std::{fmt, time::Duration};
    ///
    /// #[derive(Debug)]
    /// enum BillError { NoSuchCustomer, Busy }
    /// # impl fmt::Display for BillError {
    /// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self:?}") }
    /// # }
    /// # impl std::error::Error for BillError {}
    ///
    /// async fn bill(message: Message) -> Result<(), HandlerError> {
    ///     charge(message.payload())?; // `?` on a domain error
    ///     Ok(())
    /// }
    /// # fn charge(_: &[u8]) -> Result<(), BillError> { let _ = BillError::Busy; Err(BillError::NoSuchCustomer) }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let handler = bill.classify(|error| match error.downcast_ref()? {
    ///     BillError::NoSuchCustomer => Some(Outcome::DeadLetter { reason: error.to_string() }),
    ///     BillError::Busy => Some(Outcome::Retry { after: Some(Duration::from_secs(60)) }),
    /// });
    ///
    /// let error = handler.handle(Message::builder("orders.paid").build()).await.unwrap_err();
    /// assert!(matches!(error.outcome(), Some(Outcome::DeadLetter { .. })));
    /// # }
    /// ```
    fn classify<F>(self, classify: F) -> Classified<Self, F>
    where
        Self: Sized,
        F: Fn(&HandlerError) -> Option<Outcome> + Send + Sync + 'static,
    {
        Classified::new(self, classify)
    }

    /// The same handler, with `observe` called after each attempt: for metrics. It must not block. Put it
    /// outermost: a [`Router`](crate::Router) does not call those of its routes.
    ///
    /// ```
    /// use nats_consumer::{Handler, Message};
    ///
    /// async fn bill(message: Message) {}
    ///
    /// let handler = bill.on_outcome(|attempt| {
    ///     println!("{} {} {:?}", attempt.message.subject(), attempt.outcome.name(), attempt.elapsed);
    /// });
    /// ```
    fn on_outcome<F>(self, observe: F) -> Observed<Self, F>
    where
        Self: Sized,
        F: Fn(&Attempt<'_>) + Send + Sync + 'static,
    {
        Observed::new(self, observe)
    }
}

/// The result of one attempt at a message.
///
/// ```
/// use nats_consumer::{Attempt, Handler, Message};
///
/// fn note(attempt: &Attempt<'_>) {
///     if let Some(error) = attempt.error {
///         println!("{}: {error:#}, so {}", attempt.message.subject(), attempt.outcome.name());
///     }
/// }
///
/// async fn bill(message: Message) {}
/// let handler = bill.on_outcome(note);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// The message.
    pub message: &'a Message,
    /// The outcome. After the last failed attempt, this is the consumer's final decision.
    pub outcome: &'a Outcome,
    /// Why the handler failed, if it did.
    pub error: Option<&'a HandlerError>,
    /// How long the handler ran.
    pub elapsed: Duration,
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

/// A queue of fetched deliveries, in front of their handlers. A Rust program uses [`Handler`]s; this is for
/// programs that run handlers of another kind, as the Python bridge does, and ask each delivery whether it
/// [may start](Delivery::may_start).
pub trait Inbox: Send + Sync + fmt::Debug + 'static {
    /// Takes all the deliveries; must not block.
    fn put(&self, deliveries: &mut Vec<Delivery>);
    /// How many deliveries no handler has started.
    fn waiting(&self) -> usize;
    /// Gives back what no handler has started.
    fn recall(&self) -> Vec<Delivery>;
    /// Announces that deliveries come again after those that were [given back](Self::recall) while the consumption was
    /// suspended. By default it does nothing.
    fn reopen(&self) {}
    /// Announces a drain: what gathers is not to start any more. By default it does nothing.
    fn wind_up(&self) {}
    /// Cancels the handlers that still run, as far as they can be cancelled.
    fn cancel(&self);
    /// Announces that no more deliveries come.
    fn close(&self);
}

/// Runs a [`Handler`] in as many tasks as the consumer's `concurrency`.
pub(crate) struct TaskPool {
    queue: Arc<Queue>,
    running: Mutex<JoinSet<()>>,
}

impl TaskPool {
    /// The tasks of a consumer with these options.
    pub(crate) fn start(handler: impl Handler, options: &ConsumerOptions) -> Self {
        let queue = Arc::new(Queue { waiting: Mutex::default(), ready: Semaphore::new(0) });
        let handler = Arc::new(handler);
        let mut running = JoinSet::new();
        let (name, timeout) = (Arc::<str>::from(options.name.as_str()), options.handler_timeout);
        for _ in 0..options.concurrency {
            running.spawn(keep_running(name.clone(), queue.clone(), handler.clone(), timeout));
        }
        Self { queue, running: Mutex::new(running) }
    }
}

impl Inbox for TaskPool {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        let count = deliveries.len();
        lock(&self.queue.waiting).extend(deliveries.drain(..));
        self.queue.ready.add_permits(count);
    }

    fn waiting(&self) -> usize {
        lock(&self.queue.waiting).len()
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

impl fmt::Debug for TaskPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool").field("waiting", &lock(&self.queue.waiting).len()).finish_non_exhaustive()
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
async fn keep_running(
    name: Arc<str>,
    queue: Arc<Queue>,
    handler: Arc<impl Handler>,
    timeout: Option<Duration>,
) {
    let running = || AssertUnwindSafe(run(queue.clone(), handler.clone(), timeout)).catch_unwind();
    while let Err(panic) = running().await {
        error!(target: HANDLER, consumer = &*name, "A task that runs handlers panicked ({}) and was restarted.", describe(panic.as_ref()));
    }
}

async fn run(queue: Arc<Queue>, handler: Arc<impl Handler>, timeout: Option<Duration>) {
    while let Some(delivery) = queue.next().await {
        let running = HandBack(&delivery);
        fail_point::pass("started");
        let began = Instant::now();
        let message = delivery.message_with_context(timeout.and_then(|limit| began.checked_add(limit)));
        let handling = async { handler.handle(message.clone()).await }.instrument(delivery.span());
        let handling = AssertUnwindSafe(handling).catch_unwind();
        let ended = match timeout {
            Some(limit) => tokio::time::timeout(limit, handling).await,
            None => Ok(handling.await),
        };
        std::mem::forget(running);
        fail_point::pass("returned");
        let elapsed = began.elapsed();
        let (class, result) = match ended {
            Ok(Ok(result)) => ("error", result),
            Ok(Err(panic)) => {
                ("panic", Err(format!("the handler panicked: {}", describe(panic.as_ref())).into()))
            }
            Err(_) => {
                delivery.note_late();
                ("timeout", Err("the handler ran longer than its timeout".into()))
            }
        };
        let (outcome, error) = conclude(&delivery, class, result);
        let (outcome, error) = (&outcome, error.as_ref());
        handler.attempted(&Attempt { message: &message, outcome, error, elapsed });
    }
}

/// A handler that is cancelled made no attempt worth counting: the message is handed back at once.
struct HandBack<'a>(&'a Delivery);

impl Drop for HandBack<'_> {
    fn drop(&mut self) {
        self.0.hand_back();
    }
}

/// Settles the delivery; returns what was decided and the error that led to it.
pub(crate) fn conclude(
    delivery: &Delivery,
    class: &str,
    result: Result<Outcome, HandlerError>,
) -> (Outcome, Option<HandlerError>) {
    match result {
        Ok(Outcome::Ack) => {
            delivery.succeed();
            (Outcome::Ack, None)
        }
        Ok(outcome) => {
            let _ = delivery.conclude(outcome.clone());
            (outcome, None)
        }
        Err(error) => (judge(delivery, class, &error), Some(error)),
    }
}

/// Settles a delivery whose handler failed; returns what was decided.
pub(crate) fn judge(delivery: &Delivery, class: &str, error: &HandlerError) -> Outcome {
    let insisted = match error.outcome() {
        // Also an error that asks for another attempt gets no more than the policy allows.
        Some(Outcome::Retry { after }) if after.is_none() || delivery.is_last() => None,
        insisted => insisted.cloned(),
    };
    let Some(outcome) = delivery.note_failure(class, insisted) else {
        let outcome = delivery.final_outcome();
        error!(
            target: HANDLER,
            consumer = delivery.consumer(),
            subject = %delivery.message().subject(),
            sequence = delivery.sequence(),
            attempt = delivery.attempt(),
            outcome = outcome.name(),
            error = %format_args!("{error:#}"),
            "The handler failed for the last time."
        );
        delivery.exhaust(outcome.clone(), Some(format!("{error:#}")));
        return outcome;
    };
    warn!(
        target: HANDLER,
        consumer = delivery.consumer(),
        subject = %delivery.message().subject(),
        sequence = delivery.sequence(),
        attempt = delivery.attempt(),
        outcome = outcome.name(),
        error = %format_args!("{error:#}"),
        "The handler failed."
    );
    delivery.settle_failed(outcome.clone(), format!("{error:#}"));
    outcome
}
