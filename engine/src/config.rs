//! What the user asks for, as plain data. Nothing here connects to anything.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::retry::RetryPolicy;
use crate::route::Pattern;

/// Payloads that one consumption may hold, in bytes; one message is always allowed. A server closes the connection of
/// a client that lags 64 MiB behind.
pub(crate) const MAX_PREFETCH_BYTES: usize = 32 * 1024 * 1024;

/// A setter for each option: its documentation with its default, its argument, and what it sets.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $argument:ty => $value:expr,)+) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $argument) -> Self {
            self.$name = $value;
            self
        })+
    };
}

/// A text that must not reach a log: its `Debug` shows asterisks.
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
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource(..)")
    }
}

/// A function on the options of the client underneath. Its type is erased: nothing here knows that client.
#[derive(Clone)]
pub struct Custom(pub(crate) Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom(..)")
    }
}

/// Where the servers are and how to be let in.
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
    /// Path of a `.creds` file (JWT and seed), or of one with the JWT alone.
    pub credentials: Option<PathBuf>,
    /// Path of a file with the seed, where [`credentials`](Self::credentials) has only the JWT.
    pub credentials_seed: Option<PathBuf>,
    /// Seed of an nkey.
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
    /// What the subjects of the JetStream API begin with, `$JS.API` unless set: `$JS.<domain>.API` leads to a domain,
    /// and an account that imports the API may give it another name.
    pub api_prefix: Option<String>,
    /// Prefix of the reply subjects, `_INBOX` unless set.
    pub inbox_prefix: Option<String>,
    /// Number of attempts to reconnect before the connection counts as closed; `None` is without limit.
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

    setters! {
        /// The longest pause between two tries to reconnect; 2 s.
        reconnect_wait: Duration => reconnect_wait,
        /// How long a connection may take; 2 s.
        connect_timeout: Duration => connect_timeout,
        /// A frozen server is noticed after three of these; 10 s.
        ping_interval: Duration => ping_interval,
        /// Do not deliver what this very connection published; `false`.
        no_echo: bool => no_echo,
        /// How the connection is called in the server's monitoring; it has no name.
        name: impl Into<String> => Some(name.into()),
        /// User name, with [`password`](Self::password); none.
        user: impl Into<String> => Some(user.into()),
        /// Password of [`user`](Self::user); none.
        password: impl Into<Secret> => Some(password.into()),
        /// Authentication token; none.
        token: impl Into<Secret> => Some(token.into()),
        /// Path of a `.creds` file (JWT and seed), or of one with the JWT alone; none.
        credentials: impl Into<PathBuf> => Some(credentials.into()),
        /// Path of a file with the seed, where [`credentials`](Self::credentials) has only the JWT; none.
        credentials_seed: impl Into<PathBuf> => Some(credentials_seed.into()),
        /// Asked for the authentication token at each connection; nothing is asked.
        token_source: TokenSource => Some(token_source),
        /// What the subjects of the JetStream API begin with; `$JS.API`.
        api_prefix: impl Into<String> => Some(api_prefix.into()),
        /// Seed of an nkey; none.
        nkey_seed: impl Into<Secret> => Some(nkey_seed.into()),
        /// Path of a PEM file with the certificate authorities to trust; those of the system.
        tls_ca: impl Into<PathBuf> => Some(tls_ca.into()),
        /// Path of the client certificate, with [`tls_key`](Self::tls_key); none.
        tls_cert: impl Into<PathBuf> => Some(tls_cert.into()),
        /// Path of the client certificate's key; none.
        tls_key: impl Into<PathBuf> => Some(tls_key.into()),
        /// Whether a connection without TLS is refused; where a password or token would cross a network in the clear.
        tls_required: bool => Some(tls_required),
        /// Prefix of the reply subjects; `_INBOX`.
        inbox_prefix: impl Into<String> => Some(inbox_prefix.into()),
        /// How often a lost connection is tried again before it counts as closed; without limit.
        max_reconnects: usize => Some(max_reconnects),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The worker asks for as many as it has places for.
    Pull,
    /// The server sends as they come, up to `max_ack_pending`.
    Push,
}

/// Where a durable that does not exist yet begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the first message of the stream.
    All,
    /// At the last message of the stream.
    Last,
    /// At the last message of each subject.
    LastPerSubject,
    /// With what is published from now on.
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

/// What one consumer consumes, and how.
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
    /// How long a delivery may go without a sign of life before the server delivers it again.
    pub ack_wait: Duration,
    /// How many deliveries may be unsettled, delayed retries included. `None` makes it fit: a push consumer is sent
    /// what its handlers use up.
    pub max_ack_pending: Option<i64>,
    /// Whether the durable is made and changed to fit. Otherwise it must exist, and is consumed as it is.
    pub manages_durable: bool,
    /// Where a new durable begins.
    pub start: Start,
    /// When and how often a failed message is tried again.
    pub retry: RetryPolicy,
    /// What becomes of a message whose last attempt failed.
    pub exhausted: Exhausted,
    /// How long a handler may run: then it is cancelled, and its attempt has failed.
    pub handler_timeout: Option<Duration>,
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

    /// Only the messages whose subject matches; may be called again for more patterns.
    #[must_use]
    pub fn filter(mut self, pattern: impl Into<String>) -> Self {
        self.filter_subjects.push(pattern.into());
        self
    }

    setters! {
        /// How logs and metrics call it; the durable's name unless set.
        name: impl Into<String> => name.into(),
        /// The durable consumer on the server; the one given to [`pull`](Self::pull) or [`push`](Self::push).
        durable: impl Into<String> => durable.into(),
        /// How many handlers may run at once; 100 for pull, 1 for push.
        concurrency: usize => concurrency,
        /// The least a pull asks for at once while there are places; 100.
        batch_size: usize => batch_size,
        /// How long the server keeps a pull request open; 30 s.
        fetch_timeout: Duration => fetch_timeout,
        /// How long a delivery may go without a sign of life before the server delivers it again; 30 s. A handler may
        /// run longer: the engine gives the signs of life.
        ack_wait: Duration => ack_wait,
        /// Whether the durable is made and changed to fit; `true`. Otherwise it must exist.
        manages_durable: bool => manages_durable,
        /// Where a new durable begins; [`Start::All`].
        start: Start => start,
        /// When and how often a failed message is tried again; 4 attempts, after 1, 2 and 4 s.
        retry: RetryPolicy => retry,
        /// What becomes of a message whose last attempt failed; [`Exhausted::Retry`].
        exhausted: Exhausted => exhausted,
        /// Another durable to take over, with its position; none.
        inherits: impl Into<String> => Some(inherits.into()),
        /// How many deliveries may be unsettled, delayed retries included; what fits the other options.
        max_ack_pending: i64 => Some(max_ack_pending),
        /// How long a handler may run before it is cancelled and its attempt has failed; without limit.
        handler_timeout: Duration => Some(handler_timeout),
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
            start: Start::All,
            retry: RetryPolicy::default(),
            exhausted: Exhausted::Retry,
            handler_timeout: None,
        }
    }

    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the option and the rule.
    pub fn validate(&self) -> Result<()> {
        validate_name("stream", &self.stream)?;
        validate_name("durable", &self.durable)?;
        for pattern in &self.filter_subjects {
            Pattern::parse(pattern).map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
        }
        let positive = [
            ("concurrency", self.concurrency > 0),
            ("batch_size", self.batch_size > 0),
            ("fetch_timeout", self.fetch_timeout >= Duration::from_secs(1)),
            ("ack_wait", self.ack_wait >= Duration::from_millis(100)),
        ];
        match positive.iter().find(|(_, holds)| !holds) {
            Some((option, _)) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{}: `{option}` is too small; concurrency and batch_size need at least 1, \
                     fetch_timeout 1 s, ack_wait 0.1 s.",
                    self.name
                ),
            )),
            None => Ok(()),
        }
    }
}

/// Names of streams and durables are part of subjects, which is what limits them.
fn validate_name(what: &str, name: &str) -> Result<()> {
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
    fn a_malformed_filter_is_refused_before_the_server_sees_it() {
        let error = ConsumerOptions::pull("orders", "d").filter("orders..x").validate().unwrap_err();
        assert!(error.to_string().contains("orders..x"), "{error}");
    }

    #[test]
    fn a_concurrency_of_nothing_is_refused() {
        let options = ConsumerOptions { concurrency: 0, ..ConsumerOptions::pull("orders", "d") };
        assert!(options.validate().unwrap_err().to_string().contains("concurrency"));
    }
}
