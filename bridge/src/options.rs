//! `ConnectOptions` and `ConsumerOptions` of Python, read attribute by attribute into the engine's.

use nats_consumer as engine;
use nats_consumer::config::{Secret, TokenError, TokenSource};
use nats_consumer::{Batching, Exhausted, Kind, RetryPolicy, Schedule, Start};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::host::seconds::seconds;

/// Mirror of `nats_consumer.connect.options.ConnectOptions`.
#[derive(FromPyObject)]
pub(crate) struct ConnectOptions {
    servers: Vec<String>,
    name: Option<String>,
    user: Option<String>,
    password: Option<String>,
    token: Option<Token>,
    credentials: Option<String>,
    credentials_seed: Option<String>,
    nkey_seed: Option<String>,
    tls_ca: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    tls_required: Option<bool>,
    api_prefix: Option<String>,
    inbox_prefix: Option<String>,
    allow_reconnect: bool,
    max_reconnect_attempts: i64,
    reconnect_time_wait: f64,
    connect_timeout: f64,
    ping_interval: f64,
    no_echo: bool,
}

/// The token itself, or a callable that gives it for each connection.
#[derive(FromPyObject)]
enum Token {
    Text(String),
    Source(Py<PyAny>),
}

impl Token {
    fn split(self) -> (Option<Secret>, Option<TokenSource>) {
        match self {
            Self::Text(text) => (Some(text.into()), None),
            Self::Source(source) => (None, Some(TokenSource::new(move || ask(&source)))),
        }
    }
}

/// Asks in another thread, which may wait for the GIL.
fn ask(source: &Py<PyAny>) -> Result<String, TokenError> {
    let asked = Python::try_attach(|py| source.call0(py)?.extract::<String>(py));
    let answer = asked.ok_or("Python is about to end")?;
    answer.map_err(|error| format!("the callable `token` raised {error}").into())
}

impl ConnectOptions {
    /// The engine's options for a connection that gives up as its user asked.
    pub(crate) fn into_options(self) -> PyResult<engine::ConnectOptions> {
        // As for nats-py, 0 is without limit.
        let limit = usize::try_from(self.max_reconnect_attempts).ok().filter(|most| *most > 0);
        let (token, token_source) = self.token.map(Token::split).unwrap_or_default();
        Ok(engine::ConnectOptions {
            servers: self.servers.into_iter().map(Into::into).collect(),
            name: self.name,
            user: self.user,
            password: self.password.map(Into::into),
            token,
            token_source,
            credentials: self.credentials.map(Into::into),
            credentials_seed: self.credentials_seed.map(Into::into),
            nkey_seed: self.nkey_seed.map(Into::into),
            tls_ca: self.tls_ca.map(Into::into),
            tls_cert: self.tls_cert.map(Into::into),
            tls_key: self.tls_key.map(Into::into),
            tls_required: self.tls_required,
            api_prefix: self.api_prefix,
            inbox_prefix: self.inbox_prefix,
            max_reconnects: if self.allow_reconnect { limit } else { Some(1) },
            reconnect_wait: seconds("reconnect_time_wait", self.reconnect_time_wait)?,
            connect_timeout: seconds("connect_timeout", self.connect_timeout)?,
            ping_interval: seconds("ping_interval", self.ping_interval)?,
            no_echo: self.no_echo,
            custom: None,
        })
    }

    /// The engine's options for a worker, which never gives up: a worker that is alive but no longer
    /// consumes is what users of the older packages met.
    pub(crate) fn into_lasting_options(self) -> PyResult<engine::ConnectOptions> {
        Ok(engine::ConnectOptions { max_reconnects: None, ..self.into_options()? })
    }
}

/// Mirror of `nats_consumer.declare.options.ConsumerOptions`.
#[derive(FromPyObject)]
pub(crate) struct ConsumerOptions {
    name: String,
    stream: String,
    durable: String,
    durable_is_derived: bool,
    kind: String,
    filter_subjects: Vec<String>,
    concurrency: usize,
    batch_size: usize,
    fetch_timeout: f64,
    ack_wait: f64,
    max_ack_pending: Option<i64>,
    manages_durable: bool,
    ephemeral: Option<f64>,
    announce: bool,
    deliver_policy: String,
    start_sequence: Option<u64>,
    start_time: Option<String>,
    max_attempts: u64,
    initial_retry_delay: f64,
    max_retry_delay: f64,
    backoff_factor: f64,
    retry_delays: Vec<f64>,
    exhausted: String,
    handler_timeout: Option<f64>,
    max_batch: Option<usize>,
    max_batch_bytes: usize,
    max_batch_wait: f64,
}

/// Name that older versions gave to the durable of every class that named none.
const OLDER_DURABLE: &str = "default";

impl ConsumerOptions {
    pub(crate) fn into_options(self) -> PyResult<engine::ConsumerOptions> {
        let wait = seconds("max_batch_wait", self.max_batch_wait)?;
        let batching =
            self.max_batch.map(|messages| Batching { messages, bytes: self.max_batch_bytes, wait });
        let timeout = self.handler_timeout.map(|limit| seconds("handler_timeout", limit)).transpose()?;
        Ok(engine::ConsumerOptions {
            start: self.start()?,
            retry: self.retry()?,
            kind: choose("kind", &self.kind, &[("pull", Kind::Pull), ("push", Kind::Push)])?,
            exhausted: choose(
                "exhausted",
                &self.exhausted,
                &[
                    ("ack", Exhausted::Ack),
                    ("nak", Exhausted::Retry),
                    ("term", Exhausted::Drop),
                    ("dead_letter", Exhausted::DeadLetter),
                ],
            )?,
            name: self.name,
            stream: self.stream,
            durable: self.durable,
            inherits: self.durable_is_derived.then(|| OLDER_DURABLE.into()),
            filter_subjects: self.filter_subjects,
            concurrency: self.concurrency,
            batch_size: self.batch_size,
            fetch_timeout: seconds("fetch_timeout", self.fetch_timeout)?,
            ack_wait: seconds("ack_wait", self.ack_wait)?,
            max_ack_pending: self.max_ack_pending,
            manages_durable: self.manages_durable,
            ephemeral: self.ephemeral.map(|limit| seconds("ephemeral", limit)).transpose()?,
            announce: self.announce,
            handler_timeout: timeout,
            batching,
        })
    }

    fn start(&self) -> PyResult<Start> {
        let missing = |what: &str| {
            PyValueError::new_err(format!("deliver_policy {:?} needs {what}", self.deliver_policy))
        };
        match self.deliver_policy.as_str() {
            "by_start_sequence" => {
                self.start_sequence.map(Start::Sequence).ok_or_else(|| missing("start_sequence"))
            }
            "by_start_time" => self.start_time.clone().map(Start::Time).ok_or_else(|| missing("start_time")),
            policy => {
                let choices = [
                    ("all", Start::All),
                    ("last", Start::Last),
                    ("new", Start::New),
                    ("last_per_subject", Start::LastPerSubject),
                ];
                choose("deliver_policy", policy, &choices)
            }
        }
    }

    fn retry(&self) -> PyResult<RetryPolicy> {
        let schedule = if self.retry_delays.is_empty() {
            Schedule::Exponential {
                initial: seconds("initial_retry_delay", self.initial_retry_delay)?,
                factor: self.backoff_factor,
                max: seconds("max_retry_delay", self.max_retry_delay)?,
            }
        } else {
            let delays = self.retry_delays.iter().map(|delay| seconds("backoff_delays", *delay));
            Schedule::Delays(delays.collect::<PyResult<_>>()?)
        };
        RetryPolicy::new(self.max_attempts, schedule)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

fn choose<T: Clone>(option: &str, value: &str, choices: &[(&str, T)]) -> PyResult<T> {
    match choices.iter().find(|(name, _)| *name == value) {
        Some((_, choice)) => Ok(choice.clone()),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Err(PyValueError::new_err(format!("{option} must be one of {}, not {value:?}", names.join(", "))))
        }
    }
}
