//! What a handler decided about a message, as a value. Doing it is `settle`'s job.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Why a handler did not succeed.
///
/// Any error becomes a retryable `HandlerError` through `?`; one that no retry can mend is
/// turned into a dead letter with [`HandlerError::dead_letter`].
pub struct HandlerError {
    source: Box<dyn StdError + Send + Sync>,
    outcome: Option<Outcome>,
}

impl HandlerError {
    /// An error that no retry can mend: the message becomes a dead letter at once.
    pub fn dead_letter(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = error.into();
        let outcome = Some(Outcome::DeadLetter { reason: source.to_string() });
        Self { source, outcome }
    }

    /// The outcome the handler insists on, if it does; else the retry policy decides.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self { source: error.into(), outcome: None }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// What a handler may return: nothing, an [`Outcome`], or a `Result` of either.
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
    fn returning_nothing_acks() {
        assert_eq!(().into_outcome().unwrap(), Outcome::Ack);
        assert_eq!(Ok::<(), HandlerError>(()).into_outcome().unwrap(), Outcome::Ack);
    }
}
