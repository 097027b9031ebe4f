//! The decision of a handler about a message, as a value. `settle` carries it out.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// Decision about a message.
///
/// ```
/// use nats_consumer::{Message, Outcome};
///
/// async fn bill(message: Message) -> Outcome {
///     match message.header("Test") {
///         Some(_) => Outcome::Drop { reason: "a test order".into() },
///         None => Outcome::Ack,
///     }
/// }
/// # fn is_handler(_: impl nats_consumer::Handler) {}
/// # is_handler(bill);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done: never deliver it again.
    Ack,
    /// Deliver it again, `after` this long; `None` leaves the delay to the retry policy.
    Retry {
        /// How long the server waits before the next delivery.
        after: Option<Duration>,
    },
    /// Store it in the dead-letter stream, then never deliver it again.
    DeadLetter {
        /// Why, for the person who reads the dead letters.
        reason: String,
    },
    /// Never deliver it again and keep no copy.
    Drop {
        /// Why, for the server's advisory and the log.
        reason: String,
    },
}

impl Outcome {
    /// The outcome in one word, for logs and labels of metrics: `ack`, `retry`, `dead_letter` or `drop`.
    ///
    /// ```
    /// # use nats_consumer::Outcome;
    /// assert_eq!(Outcome::Ack.name(), "ack");
    /// ```
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry { .. } => "retry",
            Self::DeadLetter { .. } => "dead_letter",
            Self::Drop { .. } => "drop",
        }
    }
}

/// Why a handler did not succeed, and what should become of the message.
///
/// Through `?`, any error becomes one that leaves the message to the retry policy. [`retry`](Self::retry),
/// [`retry_after`](Self::retry_after), [`dead_letter`](Self::dead_letter) and [`drop`](Self::drop) decide it where
/// the error occurs; [`Handler::classify`](crate::Handler::classify) decides it for a type of error in one place.
///
/// `{}` shows the error, `{:#}` the error and its causes: `the payment failed: connection reset by peer`.
///
/// ```
/// use nats_consumer::{HandlerError, Outcome};
/// use std::time::Duration;
///
/// let error = HandlerError::from("the bank does not answer");
/// assert_eq!(error.outcome(), None); // the retry policy decides
///
/// let error = HandlerError::retry_after(Duration::from_secs(60), "too many requests");
/// assert_eq!(error.outcome(), Some(&Outcome::Retry { after: Some(Duration::from_secs(60)) }));
///
/// let error = HandlerError::dead_letter("7".parse::<bool>().unwrap_err());
/// assert!(error.downcast_ref::<std::str::ParseBoolError>().is_some());
/// ```
pub struct HandlerError {
    source: Box<dyn StdError + Send + Sync>,
    outcome: Option<Outcome>,
}

impl HandlerError {
    /// An error after which the message is retried as the policy says, whatever a classifier makes of other
    /// errors. After the last attempt, the consumer's final decision follows.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: error.into(), outcome: Some(Outcome::Retry { after: None }) }
    }

    /// An error after which the message is retried after `delay`. After the last attempt that the policy allows,
    /// the consumer's final decision follows.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: error.into(), outcome: Some(Outcome::Retry { after: Some(delay) }) }
    }

    /// An error that no retry can mend: the message becomes a dead letter at once.
    pub fn dead_letter(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = error.into();
        let outcome = Some(Outcome::DeadLetter { reason: source.to_string() });
        Self { source, outcome }
    }

    /// An error after which the message is of no use to anybody: it is not delivered again, and no copy is kept.
    pub fn drop(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = error.into();
        let outcome = Some(Outcome::Drop { reason: source.to_string() });
        Self { source, outcome }
    }

    /// The same error with the outcome that it should have.
    ///
    /// ```
    /// use nats_consumer::{HandlerError, Outcome};
    ///
    /// let error = HandlerError::from("the bank does not answer").with_outcome(Outcome::Retry { after: None });
    /// assert_eq!(error.outcome(), Some(&Outcome::Retry { after: None }));
    /// ```
    #[must_use]
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    /// The outcome that was decided for this error, if any. Otherwise the retry policy decides.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The error itself.
    #[must_use]
    pub fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }

    /// The error itself, owned.
    #[must_use]
    pub fn into_error(self) -> Box<dyn StdError + Send + Sync> {
        self.source
    }

    /// The error itself, if it is a `T`. Its causes are not looked at: use [`chain`](Self::chain) for them.
    #[must_use]
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        self.source.downcast_ref()
    }

    /// The error, its cause, the cause of that, and so on.
    ///
    /// ```
    /// # use nats_consumer::HandlerError;
    /// use std::io;
    ///
    /// let error = HandlerError::from(io::Error::other("the disk is full"));
    /// assert!(error.chain().any(|cause| cause.is::<io::Error>()));
    /// ```
    pub fn chain(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let first: &(dyn StdError + 'static) = &*self.source;
        std::iter::successors(Some(first), |&error| error.source())
    }

    /// The error with its causes. A cause that the text before it ends with already is not repeated.
    fn with_causes(&self) -> String {
        let mut text = self.source.to_string();
        for cause in self.chain().skip(1).map(ToString::to_string) {
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
        }
        text
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self { source: error.into(), outcome: None }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { f.write_str(&self.with_causes()) } else { self.source.fmt(f) }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_causes())
    }
}

/// Return values of handlers: nothing, an [`Outcome`], or a `Result` of either.
///
/// ```
/// use nats_consumer::{IntoOutcome, Outcome};
///
/// assert_eq!(().into_outcome().unwrap(), Outcome::Ack);
/// assert_eq!(Ok::<(), std::fmt::Error>(()).into_outcome().unwrap(), Outcome::Ack);
/// assert!(Err::<(), _>(std::fmt::Error).into_outcome().is_err());
/// ```
pub trait IntoOutcome {
    /// The outcome, or the error that the retry policy will judge.
    ///
    /// # Errors
    /// The handler's own error, unchanged.
    fn into_outcome(self) -> Result<Outcome, HandlerError>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<Outcome, HandlerError> {
        Ok(Outcome::Ack)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Result<Outcome, HandlerError> {
        Ok(self)
    }
}

impl<T: IntoOutcome, E: Into<HandlerError>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Result<Outcome, HandlerError> {
        self.map_err(Into::into)?.into_outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_error_leaves_the_outcome_to_the_retry_policy() {
        let error: HandlerError = "it rained".parse::<u8>().unwrap_err().into();
        assert_eq!(error.outcome(), None);
    }

    #[test]
    fn an_error_that_no_retry_can_mend_insists_on_a_dead_letter() {
        let error = HandlerError::dead_letter("no such customer");
        assert_eq!(error.outcome(), Some(&Outcome::DeadLetter { reason: "no such customer".into() }));
    }

    #[test]
    fn an_error_is_shown_with_its_causes_each_once() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError, &'static str);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.1)
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let cause = || "x".parse::<u8>().unwrap_err();
        let error = HandlerError::from(Outer(cause(), "bad payload"));
        assert_eq!(format!("{error}"), "bad payload");
        assert_eq!(format!("{error:#}"), "bad payload: invalid digit found in string");
        let error = HandlerError::from(Outer(cause(), "bad: invalid digit found in string"));
        assert_eq!(format!("{error:#}"), "bad: invalid digit found in string");
    }

    #[test]
    fn returning_nothing_acks() {
        assert_eq!(().into_outcome().unwrap(), Outcome::Ack);
        assert_eq!(Ok::<(), HandlerError>(()).into_outcome().unwrap(), Outcome::Ack);
    }
}
