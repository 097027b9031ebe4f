//! The error type of the crate: a [`kind`](Error::kind) to match on and a sentence to read.
//!
//! Every message says what happened and what to do about it. Nothing here knows tokio or NATS.

use std::error::Error as StdError;
use std::fmt;

/// A result whose error is the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure a caller can tell apart.
///
/// ```
/// use nats_consumer::{ConnectOptions, ConsumerOptions, ErrorKind, Message, consume};
///
/// # async fn example(connect: ConnectOptions) -> nats_consumer::Result<()> {
/// let options = ConsumerOptions::pull("orders", "billing");
/// match consume(connect, options, async |_: Message| ()).await {
///     Err(error) if error.kind() == ErrorKind::StreamNotFound => println!("create the stream first"),
///     other => println!("{other:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option cannot be used as it was given.
    Config,
    /// No server answered.
    Unreachable,
    /// The connection is lost for the moment.
    Disconnected,
    /// The connection is closed for good.
    Closed,
    /// The server refused the credentials or a permission.
    Denied,
    /// The stream does not exist.
    StreamNotFound,
    /// The server's stream or durable differs from the declaration and cannot be changed.
    Mismatch,
    /// The stream's subjects belong to another stream already.
    Overlap,
    /// The durable consumer disappeared while it was used.
    Gone,
    /// The JetStream API answered with an error of its own.
    Api {
        /// The HTTP-like status, such as 404.
        code: u16,
        /// The server's own number for the error, such as 10059.
        err_code: u64,
    },
    /// The stream refused a message, because it is full for example; the numbers are as those of
    /// [`Api`](Self::Api).
    NotStored {
        /// The HTTP-like status, such as 503.
        code: u16,
        /// The server's own number for the error, such as 10077.
        err_code: u64,
    },
    /// No stream listens on the subject that was published to.
    NoStream,
    /// No service answers requests on the subject.
    NoResponders,
    /// A subject or a header cannot be sent as it was given.
    Invalid,
    /// The message is larger than the server takes.
    TooLarge,
    /// A stream did not confirm a message in time. It may still be stored.
    Unconfirmed,
    /// The answer to a request did not come in time.
    Timeout,
    /// A dead letter cannot be published again: its payload is gone, or it is not one of ours.
    NotReplayable,
}

/// A failure of the engine: its [`kind`](Self::kind) to match on, a sentence that says what happened and what to do,
/// and its cause as [`source`](StdError::source). Failures of a handler are [`HandlerError`](crate::HandlerError)s.
///
/// ```
/// use nats_consumer::{ErrorKind, Outgoing};
///
/// let error = Outgoing::to("orders.*", "{}").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(!error.is_temporary()); // the same call would fail again
/// println!("{error}"); // what happened, and what to do
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind; `message` says what happened and what to do.
    #[doc(hidden)]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with its cause.
    #[doc(hidden)]
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message: what happened, and what to do about it, without the cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same call may succeed later with nothing changed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unreachable
                | ErrorKind::Disconnected
                | ErrorKind::Closed
                | ErrorKind::Unconfirmed
                | ErrorKind::Timeout
                | ErrorKind::Api { code: 503, .. }
                | ErrorKind::NotStored { code: 503, .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
