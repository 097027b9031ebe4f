//! The circumstances of one attempt.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// Facts that all attempts of one consumption share.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) max_attempts: u64,
    /// Cancelled when the consumption is asked to end.
    pub(crate) stop: CancellationToken,
}

impl Consumer {
    /// A consumer without a limit of attempts, which never ends.
    pub(crate) fn unlimited(name: String) -> Self {
        Self { name, max_attempts: u64::MAX, stop: CancellationToken::new() }
    }
}

/// The circumstances of one attempt at a message: consumer, number, deadline, shutdown. Cloning is cheap.
///
/// A handler gets it from [`Message::context`](crate::Message::context), or as an argument of its own (see
/// [`with_state`](crate::with_state)).
///
/// ```
/// use nats_consumer::{Context, HandlerError, from_fn};
///
/// async fn import(context: Context) -> Result<(), HandlerError> {
///     for page in 1..=100 {
///         if context.shutting_down() {
///             return Err(HandlerError::retry(format!("stopped at page {page}")));
///         }
///         // import the page
///     }
///     Ok(())
/// }
///
/// let handler = from_fn(import);
/// ```
#[derive(Clone, Debug)]
pub struct Context(Arc<Attempt>);

#[derive(Debug)]
struct Attempt {
    consumer: Arc<Consumer>,
    number: u64,
    deadline: Option<Instant>,
}

impl Context {
    pub(crate) fn new(consumer: Arc<Consumer>, number: u64, deadline: Option<Instant>) -> Self {
        Self(Arc::new(Attempt { consumer, number, deadline }))
    }

    /// The name of the consumer, as logs have it.
    #[must_use]
    pub fn consumer(&self) -> &str {
        &self.0.consumer.name
    }

    /// The number of this attempt, from 1, as counted by the server.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.0.number
    }

    /// Whether the retry policy allows no attempt after this one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.0.number >= self.0.consumer.max_attempts
    }

    /// When the handler is cancelled, if the consumer has a `handler_timeout`.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Whether the consumption has been asked to end. The handler may still finish within the grace of
    /// [`drain`](crate::Consumption::drain).
    #[must_use]
    pub fn shutting_down(&self) -> bool {
        self.0.consumer.stop.is_cancelled()
    }

    /// Waits until the consumption is asked to end. Cancel-safe: use it in `select!`.
    ///
    /// ```
    /// use nats_consumer::{Context, HandlerError};
    ///
    /// async fn import(context: Context) -> Result<(), HandlerError> {
    ///     tokio::select! {
    ///         () = tokio::time::sleep(std::time::Duration::from_secs(600)) => Ok(()),
    ///         () = context.shutdown() => Err(HandlerError::retry("the worker stops")),
    ///     }
    /// }
    /// ```
    pub async fn shutdown(&self) {
        self.0.consumer.stop.cancelled().await;
    }
}
