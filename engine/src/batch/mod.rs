//! Batches: deliveries [gather], and one call of a [`BatchHandler`] handles them together. When it fails, its [halves]
//! find the guilty ones.

pub(crate) mod gather;
pub(crate) mod halves;
pub(crate) mod pool;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use crate::handle::Attempt;
use crate::message::Message;
use crate::outcome::{HandlerError, Outcome};

/// Handles several messages with one call, as an insert of many rows does.
///
/// A function or closure that takes a `Vec` of [`Message`]s is one: `async fn index(batch: Vec<Message>) -> Result<(),
/// HandlerError>`. [`consume_batches`](crate::consume_batches) runs it. So does an implementation of this trait:
///
/// ```
/// use nats_consumer::{BatchHandler, HandlerError, Message, Outcomes};
/// use std::io;
///
/// struct Index;
///
/// impl BatchHandler for Index {
///     async fn handle_batch(&self, messages: Vec<Message>) -> Result<Outcomes, HandlerError> {
///         let mut outcomes = Outcomes::default(); // each message is done, unless it is named
///         for (index, message) in messages.iter().enumerate() {
///             if let Err(error) = std::str::from_utf8(message.payload()) {
///                 outcomes.fail(index, HandlerError::dead_letter(error));
///             }
///         }
///         Ok(outcomes)
///     }
///
///     fn is_common(&self, error: &HandlerError) -> bool {
///         error.chain().any(|cause| cause.is::<io::Error>()) // the index is away: no message is guilty
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), HandlerError> {
/// let messages = ["ok", "too"].map(|text| Message::builder("orders.paid").payload(text).build());
/// assert!(Index.handle_batch(messages.into()).await?.is_empty());
/// # Ok(()) }
/// ```
///
/// An error of the whole batch says nothing about who is guilty. So the batch is split in halves, each is handled by
/// itself at once, and so on. A message that fails alone has failed its attempt; the others are done. A batch of which
/// one is guilty costs about 2 log₂ n calls more. What the failed call did is done again, so let it be idempotent.
///
/// The [outcome](HandlerError::outcome) of an error counts for a message that fails alone: so `message.json()?` makes a
/// dead letter of the one that cannot be read. To decide about all of them, return [`Outcomes`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` handles no batches",
    note = "a handler of batches is `Fn(Vec<Message>) -> Future` whose result is `()`, `Outcomes`, or a `Result` of \
            either with an error that converts into `HandlerError`"
)]
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles the messages, in the order in which they came; called concurrently, up to the consumer's `concurrency`.
    fn handle_batch(
        &self,
        messages: Vec<Message>,
    ) -> impl Future<Output = Result<Outcomes, HandlerError>> + Send;

    /// Whether the error is one of the surroundings, such as a database that is away: then nothing is split. All messages
    /// of the call have failed this attempt and come again, each after its delay, also after their last attempt. A
    /// timeout is always one.
    ///
    /// A message that comes again after its last attempt is tried in smaller parts, so that one that causes such an
    /// error itself does not hold up its neighbours without end. It is blamed once it fails alone where others succeed.
    fn is_common(&self, error: &HandlerError) -> bool {
        let _ = error;
        false
    }

    /// Learns what became of an attempt at one message; see [`Handler::attempted`](crate::Handler::attempted). `elapsed`
    /// is the time of the call that decided about the message.
    fn attempted(&self, attempt: &Attempt<'_>) {
        let _ = attempt;
    }
}

impl<F, Fut> BatchHandler for F
where
    F: Fn(Vec<Message>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoOutcomes> + Send,
{
    async fn handle_batch(&self, messages: Vec<Message>) -> Result<Outcomes, HandlerError> {
        self(messages).await.into_outcomes()
    }
}

impl<H: BatchHandler> BatchHandler for Arc<H> {
    async fn handle_batch(&self, messages: Vec<Message>) -> Result<Outcomes, HandlerError> {
        (**self).handle_batch(messages).await
    }

    fn is_common(&self, error: &HandlerError) -> bool {
        (**self).is_common(error)
    }

    fn attempted(&self, attempt: &Attempt<'_>) {
        (**self).attempted(attempt);
    }
}

/// The outcomes of the messages of a batch, by their index. Those that are not named are done.
///
/// ```
/// use nats_consumer::{Message, Outcome, Outcomes};
/// use std::time::Duration;
///
/// async fn index(messages: Vec<Message>) -> Outcomes {
///     let mut outcomes = Outcomes::default();
///     for (index, message) in messages.iter().enumerate() {
///         if message.header("Embargo").is_some() {
///             outcomes.set(index, Outcome::Retry { after: Some(Duration::from_secs(60)) });
///         }
///     }
///     outcomes
/// }
/// # fn is_handler(_: impl nats_consumer::BatchHandler) {}
/// # is_handler(index);
/// ```
#[derive(Debug, Default)]
pub struct Outcomes(BTreeMap<usize, Result<Outcome, HandlerError>>);

impl Outcomes {
    /// Decides about the message at `index`.
    pub fn set(&mut self, index: usize, outcome: Outcome) {
        self.0.insert(index, Ok(outcome));
    }

    /// The message at `index` has failed; the retry policy judges the error, as that of a [`Handler`](crate::Handler).
    pub fn fail(&mut self, index: usize, error: impl Into<HandlerError>) {
        self.0.insert(index, Err(error.into()));
    }

    /// Whether no message is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, index: usize) -> Result<Outcome, HandlerError> {
        self.0.remove(&index).unwrap_or(Ok(Outcome::Ack))
    }

    /// Refuses an index that the batch does not have.
    fn of(self, count: usize) -> Result<Self, HandlerError> {
        match self.0.last_key_value() {
            Some((last, _)) if *last >= count => {
                Err(format!("the handler names message {last} of a batch of {count}").into())
            }
            _ => Ok(self),
        }
    }
}

/// Return values of handlers of batches: nothing, [`Outcomes`], or a `Result` of either.
///
/// ```
/// use nats_consumer::IntoOutcomes;
///
/// assert!(().into_outcomes().unwrap().is_empty());
/// assert!(Err::<(), _>(std::fmt::Error).into_outcomes().is_err());
/// ```
pub trait IntoOutcomes {
    /// The outcomes, or the error of the whole batch.
    ///
    /// # Errors
    /// The handler's own error, unchanged.
    fn into_outcomes(self) -> Result<Outcomes, HandlerError>;
}

impl IntoOutcomes for () {
    fn into_outcomes(self) -> Result<Outcomes, HandlerError> {
        Ok(Outcomes::default())
    }
}

impl IntoOutcomes for Outcomes {
    fn into_outcomes(self) -> Result<Outcomes, HandlerError> {
        Ok(self)
    }
}

impl<T: IntoOutcomes, E: Into<HandlerError>> IntoOutcomes for Result<T, E> {
    fn into_outcomes(self) -> Result<Outcomes, HandlerError> {
        self.map_err(Into::into)?.into_outcomes()
    }
}
