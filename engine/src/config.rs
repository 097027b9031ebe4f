//! Options of the user, as plain data. Nothing here connects to anything.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::outcome::Outcome;
use crate::retry::{Next, RetryPolicy};
use crate::route::Pattern;

/// Payloads that one consumption may hold, in bytes; one message is always allowed. A server closes the connection of
/// a client that lags 64 MiB behind.
pub(crate) const MAX_PREFETCH_BYTES: usize = 32 * 1024 * 1024;

/// A limit of options and waits that last: a server counts nanoseconds in 63 bits, and a clock cannot tell far later
/// moments.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a message is given up that nobody gave a reason for.
pub(crate) const EXHAUSTED: &str = "attempts exhausted";

/// Deliveries beyond the last attempt that run where nobody can tell whether the message ended its workers, or
/// whose handlers may ask for yet another one.
pub(crate) const HEADROOM: u64 = 3;

/// The most handlers at once. Each of them is a task, even before there are messages.
const MOST_HANDLERS: usize = 1_000_000;

/// A server takes names of 255 bytes, and a stream's marks are beside it in `<stream>-marks`.
const LONGEST_STREAM_NAME: usize = 249;

/// A setter for each option: its documentation with its default, an example of its argument, and what it sets.
macro_rules! setters {
    (of $options:literal: $($(#[$doc:meta])* $name:ident($example:expr): $argument:ty => $value:expr,)+) => {
        $($(#[$doc])*
        ///
        /// ```
        /// # use {nats_consumer::*, std::time::Duration};
        #[doc = concat!("let options = ", $options, ".", stringify!($name), "(", stringify!($example), ");")]
        /// ```
        #[must_use]
        pub fn $name(mut self, $name: $argument) -> Self {
            self.$name = $value;
            self
        })+
    };
}

/// A text that must not reach a log: its `Debug` shows asterisks.
///
/// ```
/// use nats_consumer::Secret;
///
/// let password = Secret::from("hunter2");
/// assert_eq!(format!("{password:?}"), "\"***\"");
/// assert_eq!(password.reveal(), "hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// Gives the authentication token when it is asked, in a thread where it may block.
///
/// ```
/// use nats_consumer::{ConnectOptions, TokenSource};
///
/// // Read at each connection: the file may be renewed.
/// let source = TokenSource::new(|| Ok(std::fs::read_to_string("/run/secrets/nats-token")?));
/// let connect = ConnectOptions::to(["tls://a.example.com"]).token_source(source);
/// ```
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> Result<String, TokenError> + Send + Sync>);

/// Why there is no token.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

impl TokenSource {
    /// A source that calls `ask` for each connection.
    pub fn new(ask: impl Fn() -> Result<String, TokenError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn ask(&self) -> Result<String, TokenError> {
        (self.0)()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource(..)")
    }
}

/// A function on the options of the client underneath. Its type is erased: nothing here knows that client.
#[derive(Clone)]
pub struct Custom(pub(crate) Arc<dyn Any + Send + Sync>);

impl Custom {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom(..)")
    }
}

/// Addresses of the servers, and credentials.
///
/// ```
/// use nats_consumer::ConnectOptions;
///
/// let connect = ConnectOptions::to(["nats://a.example.com", "nats://b.example.com"])
///     .name("billing")
///     .credentials("/etc/nats/billing.creds");
/// ```
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `nats://host:port`, `tls://…` or bare `host:port`. Credentials in a URL are for its server, and for those of
    /// its cluster that it tells of.
    pub servers: Vec<Secret>,
    /// How the connection is called in the server's monitoring.
    pub name: Option<String>,
    /// User name, with [`password`](Self::password).
    pub user: Option<String>,
    /// Password of [`user`](Self::user).
    pub password: Option<Secret>,
    /// Authentication token.
    pub token: Option<Secret>,
    /// Asked for the authentication token at each connection, instead of [`token`](Self::token).
    pub token_source: Option<TokenSource>,
    /// Path of a `.creds` file (JWT and seed), or of one with the JWT alone. Needs the feature `nkeys`.
    pub credentials: Option<PathBuf>,
    /// Path of a file with the seed, where [`credentials`](Self::credentials) has only the JWT.
    pub credentials_seed: Option<PathBuf>,
    /// Seed of an nkey. Needs the feature `nkeys`.
    pub nkey_seed: Option<Secret>,
    /// Path of a PEM file with the certificate authorities to trust.
    pub tls_ca: Option<PathBuf>,
    /// Path of the client certificate, with [`tls_key`](Self::tls_key).
    pub tls_cert: Option<PathBuf>,
    /// Path of the client certificate's key.
    pub tls_key: Option<PathBuf>,
    /// Refuse a connection without TLS. `None` refuses it where a password or token would cross a network in
    /// the clear: to a host that is not loopback, whether the options name it or a server told of it.
    pub tls_required: Option<bool>,
    /// Prefix of the JetStream API's subjects, `$JS.API` unless set: `$JS.<domain>.API` leads to a domain,
    /// and an account that imports the API may give it another name.
    pub api_prefix: Option<String>,
    /// Prefix of the reply subjects, `_INBOX` unless set.
    pub inbox_prefix: Option<String>,
    /// Number of attempts to reconnect before the connection counts as closed; `None` is without limit. With 0 it is
    /// closed when it is lost, and what was to be sent is never sent.
    pub max_reconnects: Option<usize>,
    /// The longest pause between two tries to reconnect; the first ones are shorter.
    pub reconnect_wait: Duration,
    /// How long a server may take to be connected. The first connection is tried again for as long as that is for
    /// all servers together.
    pub connect_timeout: Duration,
    /// A frozen server is noticed after three of these.
    pub ping_interval: Duration,
    /// Do not deliver what this very connection published.
    pub no_echo: bool,
    /// Set by [`customize`](Self::customize).
    #[doc(hidden)]
    pub custom: Option<Custom>,
}

impl ConnectOptions {
    /// Options for these servers, everything else at its default.
    pub fn to<S: Into<Secret>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self { servers: servers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Whether both lead to the same servers as the same user, in the same way. Functions are compared by their identity.
    pub(crate) fn are(&self, other: &Self) -> bool {
        // Each field is named, so that a new one is not forgotten.
        let Self {
            servers,
            name,
            user,
            password,
            token,
            token_source,
            credentials,
            credentials_seed,
            nkey_seed,
            tls_ca,
            tls_cert,
            tls_key,
            tls_required,
            api_prefix,
            inbox_prefix,
            max_reconnects,
            reconnect_wait,
            connect_timeout,
            ping_interval,
            no_echo,
            custom,
        } = self;
        let is_same_source = match (token_source, &other.token_source) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let is_same_custom = match (custom, &other.custom) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same_source
            && is_same_custom
            && (servers, name, user, password, token)
                == (&other.servers, &other.name, &other.user, &other.password, &other.token)
            && (credentials, credentials_seed, nkey_seed)
                == (&other.credentials, &other.credentials_seed, &other.nkey_seed)
            && (tls_ca, tls_cert, tls_key, tls_required)
                == (&other.tls_ca, &other.tls_cert, &other.tls_key, &other.tls_required)
            && (api_prefix, inbox_prefix, max_reconnects)
                == (&other.api_prefix, &other.inbox_prefix, &other.max_reconnects)
            && (reconnect_wait, connect_timeout) == (&other.reconnect_wait, &other.connect_timeout)
            && (ping_interval, no_echo) == (&other.ping_interval, &other.no_echo)
    }

    setters! {
        of "ConnectOptions::default()":
        /// The longest pause between two tries to reconnect; 2 s.
        reconnect_wait(Duration::from_secs(10)): Duration => reconnect_wait,
        /// How long a connection may take; 2 s.
        connect_timeout(Duration::from_secs(5)): Duration => connect_timeout,
        /// A frozen server is noticed after three of these; 10 s.
        ping_interval(Duration::from_secs(5)): Duration => ping_interval,
        /// Do not deliver what this very connection published; `false`.
        no_echo(true): bool => no_echo,
        /// How the connection is called in the server's monitoring; it has no name.
        name("billing"): impl Into<String> => Some(name.into()),
        /// User name, with [`password`](Self::password); none.
        user("billing"): impl Into<String> => Some(user.into()),
        /// Password of [`user`](Self::user); none.
        password("hunter2"): impl Into<Secret> => Some(password.into()),
        /// Authentication token; none.
        token("s3cret"): impl Into<Secret> => Some(token.into()),
        /// Path of a `.creds` file (JWT and seed), or of one with the JWT alone; none. Needs the feature `nkeys`.
        credentials("/etc/nats/billing.creds"): impl Into<PathBuf> => Some(credentials.into()),
        /// Path of a file with the seed, where [`credentials`](Self::credentials) has only the JWT; none.
        credentials_seed("/etc/nats/billing.nk"): impl Into<PathBuf> => Some(credentials_seed.into()),
        /// Asked for the authentication token at each connection; nothing is asked.
        token_source(TokenSource::new(|| Ok("s3cret".into()))): TokenSource => Some(token_source),
        /// Prefix of the JetStream API's subjects; `$JS.API`.
        api_prefix("$JS.hub.API"): impl Into<String> => Some(api_prefix.into()),
        /// Seed of an nkey; none. Needs the feature `nkeys`.
        nkey_seed("SUAM..."): impl Into<Secret> => Some(nkey_seed.into()),
        /// Path of a PEM file with the certificate authorities to trust; those of the system.
        tls_ca("/etc/nats/ca.pem"): impl Into<PathBuf> => Some(tls_ca.into()),
        /// Path of the client certificate, with [`tls_key`](Self::tls_key); none.
        tls_cert("/etc/nats/client.pem"): impl Into<PathBuf> => Some(tls_cert.into()),
        /// Path of the client certificate's key; none.
        tls_key("/etc/nats/client.key"): impl Into<PathBuf> => Some(tls_key.into()),
        /// Whether a connection without TLS is refused; where a password or token would cross a network in the clear.
        tls_required(true): bool => Some(tls_required),
        /// Prefix of the reply subjects; `_INBOX`.
        inbox_prefix("_INBOX_billing"): impl Into<String> => Some(inbox_prefix.into()),
        /// How often a lost connection is tried again before it counts as closed; without limit.
        max_reconnects(60): usize => Some(max_reconnects),
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            name: None,
            user: None,
            password: None,
            token: None,
            token_source: None,
            credentials: None,
            credentials_seed: None,
            nkey_seed: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_required: None,
            api_prefix: None,
            inbox_prefix: None,
            max_reconnects: None,
            reconnect_wait: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            // async-nats' own 60 s would notice a frozen server only after three minutes.
            ping_interval: Duration::from_secs(10),
            no_echo: false,
            custom: None,
        }
    }
}

/// How the server hands messages over.
///
/// ```
/// use nats_consumer::{ConsumerOptions, Kind};
///
/// assert_eq!(ConsumerOptions::pull("orders", "billing").kind, Kind::Pull);
/// assert_eq!(ConsumerOptions::push("orders", "audit").kind, Kind::Push);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The worker asks for as many as it has places for.
    Pull,
    /// The server sends as they come, up to `max_ack_pending`.
    Push,
}

/// Start position of a durable that does not exist yet.
///
/// ```
/// use nats_consumer::{ConsumerOptions, Start};
///
/// let from_now_on = ConsumerOptions::pull("orders", "billing").start(Start::New);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the first message of the stream.
    All,
    /// At the last message of the stream.
    Last,
    /// At the last message of each subject.
    LastPerSubject,
    /// The first message that is published from now on.
    New,
    /// At this stream sequence.
    Sequence(u64),
    /// At the first message stored at or after this RFC 3339 time.
    Time(String),
}

impl Start {
    /// At the first message stored at or after `time`.
    ///
    /// ```
    /// # use nats_consumer::Start;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let yesterday = Start::at(SystemTime::now() - Duration::from_secs(24 * 60 * 60));
    /// ```
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        Self::Time(humantime::format_rfc3339_nanos(time).to_string())
    }
}

/// The final word on a message whose last attempt failed.
///
/// ```
/// use nats_consumer::{ConsumerOptions, Exhausted};
///
/// let options = ConsumerOptions::pull("orders", "billing").exhausted(Exhausted::DeadLetter);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exhausted {
    /// Acknowledge it and move on.
    Ack,
    /// Hand it back with the policy's longest delay: neither lost nor spinning. A poison message comes again without
    /// end.
    Retry,
    /// Terminate it without a copy.
    Drop,
    /// Store it in the dead-letter stream.
    DeadLetter,
}

/// How messages gather for [`consume_batches`](crate::consume_batches): a batch is as large as the first limit that is
/// reached.
///
/// ```
/// use nats_consumer::{Batching, ConsumerOptions};
/// use std::time::Duration;
///
/// let batching = Batching { wait: Duration::from_millis(200), ..Batching::of(500) };
/// let options = ConsumerOptions::pull("orders", "index").batching(batching);
/// assert_eq!(options.batching.unwrap().bytes, 8 * 1024 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// The most messages.
    pub messages: usize,
    /// The most bytes: payloads, subjects and headers. A larger message is a batch of its own.
    pub bytes: usize,
    /// How long the first message waits for others.
    pub wait: Duration,
}

impl Batching {
    /// Up to this number of messages and 8 MiB, for which the first message waits half a second.
    #[must_use]
    pub fn of(messages: usize) -> Self {
        Self { messages, bytes: 8 * 1024 * 1024, wait: Duration::from_millis(500) }
    }
}

/// A consumer: its stream, its durable, and how messages are handled.
///
/// ```
/// use nats_consumer::{ConsumerOptions, Exhausted};
/// use std::time::Duration;
///
/// let options = ConsumerOptions::pull("orders", "billing")
///     .filter("orders.*.created")
///     .concurrency(10)
///     .handler_timeout(Duration::from_secs(60))
///     .exhausted(Exhausted::DeadLetter);
/// assert!(options.validate().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// How logs and metrics call it.
    pub name: String,
    /// The stream to consume.
    pub stream: String,
    /// The durable consumer on the server, made if it does not exist.
    pub durable: String,
    /// Another durable to take over, with its position, where it exists and is of the same kind and filter.
    pub inherits: Option<String>,
    /// Pull or push.
    pub kind: Kind,
    /// Which subjects of the stream; none means all of them.
    pub filter_subjects: Vec<String>,
    /// How many handlers may run at once.
    pub concurrency: usize,
    /// The least a pull asks for at once while there are places; more where handlers keep up.
    pub batch_size: usize,
    /// How long the server keeps a pull request open.
    pub fetch_timeout: Duration,
    /// Time without a heartbeat after which the server delivers again.
    pub ack_wait: Duration,
    /// How many deliveries may be unsettled, delayed retries included. `None` makes it fit: a push consumer is sent
    /// what its handlers use up.
    pub max_ack_pending: Option<i64>,
    /// Whether the durable is made and changed to fit. Otherwise it must exist, and is consumed as it is.
    pub manages_durable: bool,
    /// How long the server keeps the durable while no worker reads from it; a worker that drains deletes it. `None` keeps
    /// it without limit.
    pub ephemeral: Option<Duration>,
    /// Whether the consumption answers those who ask for it by the NATS service protocol, as `nats micro ls` does.
    pub announce: bool,
    /// Start position of a new durable.
    pub start: Start,
    /// When and how often a failed message is tried again.
    pub retry: RetryPolicy,
    /// Decision about a message whose last attempt failed.
    pub exhausted: Exhausted,
    /// How long a handler may run: then it is cancelled, and its attempt has failed.
    pub handler_timeout: Option<Duration>,
    /// How messages gather, where a handler takes several: then `concurrency` and `handler_timeout` are of batches.
    pub batching: Option<Batching>,
}

impl ConsumerOptions {
    /// A pull consumer: high throughput, 100 handlers at once.
    pub fn pull(stream: impl Into<String>, durable: impl Into<String>) -> Self {
        Self::of_kind(Kind::Pull, 100, stream.into(), durable.into())
    }

    /// A push consumer: low latency, one handler at a time, in order.
    pub fn push(stream: impl Into<String>, durable: impl Into<String>) -> Self {
        Self::of_kind(Kind::Push, 1, stream.into(), durable.into())
    }

    /// Only the messages whose subject matches; may be called again for more patterns. In a text, `{name}` stands for
    /// `*`.
    ///
    /// ```
    /// # use nats_consumer::ConsumerOptions;
    /// let options = ConsumerOptions::pull("orders", "billing").filter("orders.{id}.paid").filter("refunds.>");
    /// assert_eq!(options.filter_subjects, ["orders.*.paid", "refunds.>"]);
    /// ```
    #[must_use]
    pub fn filter(mut self, pattern: impl Into<String>) -> Self {
        let text = pattern.into();
        // A malformed one is reported when it is used.
        let pattern = Pattern::try_from(&text).map_or(text, |pattern| String::from(&pattern));
        self.filter_subjects.push(pattern);
        self
    }

    /// One message at a time in the order of the stream, over all processes that use the durable: `max_ack_pending` and
    /// `concurrency` are 1. A message that fails holds up those behind it until it succeeds or is given up.
    ///
    /// ```
    /// # use nats_consumer::{ConsumerOptions, Exhausted};
    /// let options = ConsumerOptions::pull("orders", "ledger").in_order().exhausted(Exhausted::DeadLetter);
    /// assert_eq!((options.max_ack_pending, options.concurrency), (Some(1), 1));
    /// ```
    #[must_use]
    pub fn in_order(self) -> Self {
        self.max_ack_pending(1).concurrency(1)
    }

    setters! {
        of "ConsumerOptions::pull(\"orders\", \"billing\")":
        /// Name in logs and metrics; the durable's name unless set.
        name("billing"): impl Into<String> => name.into(),
        /// The durable consumer on the server; the one given to [`pull`](Self::pull) or [`push`](Self::push).
        durable("billing-v2"): impl Into<String> => durable.into(),
        /// How many handlers may run at once; 100 for pull, 1 for push.
        concurrency(20): usize => concurrency,
        /// The least a pull asks for at once while there are places; 100.
        batch_size(500): usize => batch_size,
        /// How long the server keeps a pull request open; 30 s.
        fetch_timeout(Duration::from_secs(60)): Duration => fetch_timeout,
        /// Time without a heartbeat after which the server delivers again; 30 s. A handler may
        /// run longer: the engine sends the heartbeats.
        ack_wait(Duration::from_secs(60)): Duration => ack_wait,
        /// Whether the durable is made and changed to fit; `true`. Otherwise it must exist.
        manages_durable(false): bool => manages_durable,
        /// How long the server keeps the durable while no worker reads from it; a worker that drains deletes it. Without
        /// limit. For a process that shares its messages with no other one: give it a durable of its own.
        ephemeral(Duration::from_secs(300)): Duration => Some(ephemeral),
        /// Whether it answers those who ask by the NATS service protocol, as `nats micro ls` does; `true`.
        announce(false): bool => announce,
        /// Start position of a new durable; [`Start::All`].
        start(Start::New): Start => start,
        /// When and how often a failed message is tried again; 4 attempts, after 1, 2 and 4 s.
        retry(RetryPolicy::default()): RetryPolicy => retry,
        /// Decision about a message whose last attempt failed; [`Exhausted::Retry`].
        exhausted(Exhausted::DeadLetter): Exhausted => exhausted,
        /// Another durable to take over, with its position; none.
        inherits("billing-v1"): impl Into<String> => Some(inherits.into()),
        /// How many deliveries may be unsettled, delayed retries included; what fits the other options.
        max_ack_pending(1000): i64 => Some(max_ack_pending),
        /// How long a handler may run before it is cancelled and its attempt has failed; without limit.
        handler_timeout(Duration::from_secs(30)): Duration => Some(handler_timeout),
        /// How messages gather for [`consume_batches`](crate::consume_batches); each is handled by itself unless set.
        batching(Batching::of(200)): Batching => Some(batching),
    }

    fn of_kind(kind: Kind, concurrency: usize, stream: String, durable: String) -> Self {
        Self {
            name: durable.clone(),
            stream,
            durable,
            inherits: None,
            kind,
            filter_subjects: Vec::new(),
            concurrency,
            batch_size: 100,
            fetch_timeout: Duration::from_secs(30),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: None,
            manages_durable: true,
            ephemeral: None,
            announce: true,
            start: Start::All,
            retry: RetryPolicy::default(),
            exhausted: Exhausted::Retry,
            handler_timeout: None,
            batching: None,
        }
    }

    /// Returns what follows when attempt number `attempt` failed: a retry with its delay, or `None` after the last
    /// attempt, for which there is the [final word](Self::final_word).
    #[doc(hidden)]
    #[must_use]
    pub fn after_failure(&self, attempt: u64) -> Option<Outcome> {
        match self.retry.next(attempt) {
            Next::Retry(after) => Some(Outcome::Retry { after: Some(after) }),
            // Beyond: the last attempt may have been cut short, and the final word was never spoken.
            Next::Exhausted | Next::Beyond => None,
        }
    }

    /// Returns the decision about a message whose attempts are used up.
    #[doc(hidden)]
    #[must_use]
    pub fn final_word(&self) -> Outcome {
        match self.exhausted {
            Exhausted::Ack => Outcome::Ack,
            Exhausted::Retry => Outcome::Retry { after: Some(self.retry.longest()) },
            Exhausted::Drop => Outcome::Drop { reason: EXHAUSTED.into() },
            Exhausted::DeadLetter => Outcome::DeadLetter { reason: EXHAUSTED.into() },
        }
    }

    /// Returns the outcome as it is carried out at this attempt: a retry has its delay, and one that is asked for too
    /// often becomes a dead letter.
    #[doc(hidden)]
    #[must_use]
    pub fn carried_out(&self, attempt: u64, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Retry { .. } if self.exhausted != Exhausted::Retry && attempt >= self.last_to_run() => {
                Outcome::DeadLetter { reason: EXHAUSTED.into() }
            }
            Outcome::Retry { after } => {
                Outcome::Retry { after: Some(after.unwrap_or_else(|| self.retry.delay(attempt))) }
            }
            other => other,
        }
    }

    /// The last delivery that runs where nobody can tell whether the message ended its workers, or whose handler may ask
    /// for yet another one.
    pub(crate) fn last_to_run(&self) -> u64 {
        self.retry.max_attempts().saturating_add(HEADROOM)
    }

    /// How many messages may run at once.
    pub(crate) fn at_once(&self) -> usize {
        self.concurrency.saturating_mul(self.batching.map_or(1, |batching| batching.messages))
    }

    /// How many messages to hold for handlers that are as slow as can be: those that run, and while batches run the next
    /// ones gather.
    pub(crate) fn places(&self) -> usize {
        self.at_once().saturating_mul(if self.batching.is_some() { 2 } else { 1 })
    }

    /// Whether the durable's `max_ack_pending` follows the handlers.
    pub(crate) fn is_paced(&self) -> bool {
        self.kind == Kind::Push && self.max_ack_pending.is_none() && self.manages_durable
    }

    /// Refuses a filter with a brace: it is meant as a name, and a server would take it literally.
    pub(crate) fn refuse_braces(&self) -> Result<()> {
        let Some(filter) = self.filter_subjects.iter().find(|text| text.contains(['{', '}'])) else {
            return Ok(());
        };
        let text = format!(
            "{}: the filter {filter:?} has a brace: write `*`, or `{{name}}` for a whole token in `filter`, with letters, \
             digits and `_`.",
            self.name
        );
        Err(Error::new(ErrorKind::Config, text))
    }

    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the option and the rule.
    pub fn validate(&self) -> Result<()> {
        validate_name("stream", &self.stream)?;
        validate_name("durable", &self.durable)?;
        if self.stream.len() > LONGEST_STREAM_NAME {
            let text = format!(
                "{}: the name of the stream is longer than {LONGEST_STREAM_NAME} bytes, which leaves no room for those of the \
                 streams beside it, `<stream>-dlq` and `<stream>-marks`.",
                self.name
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        for pattern in &self.filter_subjects {
            Pattern::parse(pattern).map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
        }
        let positive = [
            ("concurrency", self.concurrency > 0),
            ("batch_size", self.batch_size > 0),
            ("fetch_timeout", self.fetch_timeout >= Duration::from_secs(1)),
            ("ack_wait", self.ack_wait >= Duration::from_millis(100)),
            ("batching", self.batching.is_none_or(|batching| batching.messages > 0)),
        ];
        let refused = |option: &str, rule: &str| {
            Err(Error::new(ErrorKind::Config, format!("{}: `{option}` is too {rule}.", self.name)))
        };
        if let Some((option, _)) = positive.iter().find(|(_, holds)| !holds) {
            let rule = "small; concurrency, batch_size and a batch need at least 1, fetch_timeout 1 s, ack_wait 0.1 s";
            return refused(option, rule);
        }
        let bounded = [
            ("concurrency", self.at_once() <= MOST_HANDLERS),
            ("fetch_timeout", self.fetch_timeout <= LONGEST),
            ("ack_wait", self.ack_wait <= LONGEST),
        ];
        if let Some((option, _)) = bounded.iter().find(|(_, holds)| !holds) {
            let rule = "large; concurrency may be 1 000 000, with all messages of a batch counted, fetch_timeout and ack_wait a year";
            return refused(option, rule);
        }
        Ok(())
    }
}

/// Names of streams and durables are part of subjects, which is what limits them.
pub(crate) fn validate_name(what: &str, name: &str) -> Result<()> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if name.is_empty() || name.contains(forbidden) {
        let message = format!(
            "{name:?} cannot be the name of a {what}: it must not be empty and must not contain \
             spaces, dots, `*`, `>`, `/` or `\\`."
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::route::validate_publish_subject;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_one_token_of_a_subject_or_refused(name in "[a-z.*>/ \r\n\0\\PC]{0,9}", durable in any::<String>()) {
            if ConsumerOptions::pull(name.as_str(), durable.as_str()).validate().is_ok() {
                let subject = format!("$JS.API.CONSUMER.INFO.{name}.{durable}");
                prop_assert_eq!(validate_publish_subject(&subject), Ok(()));
                prop_assert_eq!(subject.split('.').count(), 6);
            }
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let options = ConnectOptions {
            password: Some("hunter2".into()),
            ..ConnectOptions::to(["nats://me:hunter2@localhost"])
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn names_with_spaces_or_dots_are_refused_with_the_rule() {
        for name in ["my orders", "orders.eu", "", "a*", "a/b"] {
            let error = ConsumerOptions::pull(name, "d").validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("spaces, dots"), "{error}");
        }
    }

    #[test]
    fn a_stream_whose_marks_no_server_would_take_is_refused_with_the_rule() {
        let validate = |length| ConsumerOptions::pull("x".repeat(length), "d").validate();
        assert!(validate(249).is_ok());
        let error = validate(250).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("longer than 249 bytes"), "{error}");
    }

    #[test]
    fn a_malformed_filter_is_refused_before_the_server_sees_it() {
        let error = ConsumerOptions::pull("orders", "d").filter("orders..x").validate().unwrap_err();
        assert!(error.to_string().contains("orders..x"), "{error}");
    }

    #[test]
    fn a_filter_with_names_in_braces_gets_the_messages_that_it_was_written_for() {
        let options = ConsumerOptions::pull("orders", "d").filter("orders.{id}.paid");
        assert_eq!(options.filter_subjects, ["orders.*.paid"]);
        assert!(options.refuse_braces().is_ok());
        let error = options.filter("orders.{order-id}.paid").refuse_braces().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("`{name}`"), "{error}");
    }

    #[test]
    fn what_no_server_or_machine_can_count_is_refused_with_the_rule() {
        let options = || ConsumerOptions::pull("orders", "d");
        for extreme in [
            options().concurrency(usize::MAX),
            options().ack_wait(Duration::MAX),
            options().fetch_timeout(Duration::MAX),
        ] {
            let error = extreme.validate().unwrap_err().to_string();
            assert!(error.contains("too large; concurrency may be 1 000 000"), "{error}");
        }
        assert!(options().batch_size(usize::MAX).handler_timeout(Duration::MAX).validate().is_ok());
    }

    #[test]
    fn a_handler_that_asks_for_another_attempt_gets_it_three_times_beyond_the_limit() {
        let options = ConsumerOptions::pull("orders", "d").exhausted(Exhausted::Drop);
        let wanted = Outcome::Retry { after: Some(Duration::from_secs(7)) };
        assert_eq!(options.after_failure(4), None);
        assert_eq!(options.carried_out(6, wanted.clone()), wanted);
        let given_up = Outcome::DeadLetter { reason: EXHAUSTED.into() };
        assert_eq!(options.carried_out(7, wanted.clone()), given_up);
        let endless = options.exhausted(Exhausted::Retry);
        assert_eq!(endless.carried_out(7, wanted.clone()), wanted);
    }

    #[test]
    fn a_retry_without_a_delay_has_that_of_the_policy() {
        let options = ConsumerOptions::pull("orders", "d");
        let retry = |seconds| Outcome::Retry { after: Some(Duration::from_secs(seconds)) };
        assert_eq!(options.carried_out(2, Outcome::Retry { after: None }), retry(2));
        assert_eq!(options.after_failure(2), Some(retry(2)));
        assert_eq!(options.final_word(), retry(60));
    }

    #[test]
    fn a_concurrency_of_nothing_is_refused() {
        let options = ConsumerOptions { concurrency: 0, ..ConsumerOptions::pull("orders", "d") };
        assert!(options.validate().unwrap_err().to_string().contains("concurrency"));
    }
}
