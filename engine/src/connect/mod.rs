//! Options become a connected client, and what happens to it later becomes a state one can watch.

#[cfg(feature = "nkeys")]
mod credentials;
mod customize;
pub(crate) mod denial;
pub(crate) mod denials;
mod dial;
mod failure;
pub(crate) mod link;
#[cfg_attr(not(feature = "nkeys"), path = "no_proof.rs")]
mod proof;
mod scout;
pub(crate) mod seat;
mod servers;
mod traffic;
mod version;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::net::lookup_host;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::config::ConnectOptions;
use crate::connect::denial::{Denial, Permission};
use crate::connect::denials::Denials;
use crate::connect::dial::{client_options, inbox_prefix};
use crate::connect::failure::{Cause, Failure, not_connected};
use crate::connect::link::Events;
pub use crate::connect::link::{ConnectionEvent, Link};
use crate::connect::scout::Scout;
use crate::connect::servers::Servers;
use crate::connect::traffic::Counted;
pub use crate::connect::traffic::Traffic;
pub use crate::connect::version::OLDEST_SERVER;
use crate::error::{Error, ErrorKind, Result};
use crate::jitter::jittered;
use crate::observe::target::CONNECTION;

/// Prefix of the JetStream API's subjects, unless the options say otherwise.
pub const API_PREFIX: &str = "$JS.API";

/// The subjects of the NATS service protocol, on which workers tell what they do.
pub(crate) const SERVICES: &str = "$SRV.>";

/// The text of async-nats.
const TIMED_OUT: &str = "timed out";

/// The pause between two tries of the first connection.
const CONNECT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long a request waits for a lost connection to come back.
pub(crate) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a link that should carry something, and does not, has to prove that it works.
pub(crate) const LINK_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a message may take to be handed to the connection; a frozen server lets them pile up.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked whether something was received: nobody announces it.
const RECEIVE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A connection to NATS that reconnects by itself.
///
/// ```
/// use nats_consumer::{ConnectOptions, Connection, Publisher};
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connection = Connection::open(&ConnectOptions::to(["nats://127.0.0.1:4222"])).await?;
/// let publisher = Publisher::on(connection.clone());
/// // What this crate does not do, the client of async-nats does:
/// connection.client().publish("prices.pen", "EUR 2".into()).await?;
/// connection.close(Duration::from_secs(5)).await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    link: watch::Receiver<Link>,
    /// Weak: they end with async-nats' connection task.
    events: Weak<Events>,
    servers: Arc<Servers>,
    api_prefix: Arc<str>,
    counted: Arc<Counted>,
    /// The link that was given up last because it was silent, by its generation.
    renewed: Arc<AtomicU64>,
    /// It ends with the last copy.
    _scout: Option<Arc<Scout>>,
}

impl Connection {
    /// Connects to one of the servers. Each has `connect_timeout`; they are tried again for as long as that is for all
    /// together.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] when no server answered in time, [`ErrorKind::Denied`] at once when
    /// one refused the credentials and no other can be connected, [`ErrorKind::Config`] for options that cannot be
    /// used.
    pub async fn open(options: &ConnectOptions) -> Result<Self> {
        let servers = Arc::new(Servers::new(options)?);
        let began = Instant::now();
        let limit =
            options.connect_timeout.saturating_mul(u32::try_from(options.servers.len()).unwrap_or(u32::MAX));
        let mut failures: Vec<Failure> = Vec::new();
        loop {
            for address in servers.in_any_order() {
                // In the first round each has its time; later ones end with the limit.
                let is_first = failures.len() < servers.named().len();
                let left = (!is_first).then(|| limit.saturating_sub(began.elapsed()));
                match Self::try_one(options, &servers, address, left).await? {
                    Ok(connection) => return Ok(connection),
                    Err(failure) => note(&mut failures, failure),
                }
            }
            let is_final = |failure: &Failure| failure.is_refusal() || failure.is_of_the_options();
            if failures.iter().any(is_final) || began.elapsed() + CONNECT_RETRY_PAUSE >= limit {
                return Err(not_connected(&failures, limit));
            }
            sleep(jittered(CONNECT_RETRY_PAUSE)).await;
        }
    }

    /// Connects to this server, within `left` where that is given.
    async fn try_one(
        options: &ConnectOptions,
        servers: &Arc<Servers>,
        address: ServerAddr,
        left: Option<Duration>,
    ) -> Result<std::result::Result<Self, Failure>> {
        let inbox = inbox_prefix(options)?;
        let (events, link) = Events::new(inbox.clone());
        let noting = Arc::new(events);
        let events = Arc::downgrade(&noting);
        let dialling = client_options(options, servers, &inbox, noting)?;
        servers.turn_to(&address);
        let limit = options.connect_timeout;
        let attempt = async {
            // Each address that a name stands for has the whole limit.
            let looked_up = timeout(limit, lookup_host((address.host(), address.port()))).await;
            let places = looked_up.map_err(|_| (String::from("DNS error: timed out"), None))?;
            let places = places.map_or(1, |places| places.count().max(1));
            let most = limit
                .saturating_mul(u32::try_from(places).unwrap_or(u32::MAX))
                .saturating_add(CONNECT_RETRY_PAUSE);
            match timeout(most.min(left.unwrap_or(most)), dialling.connect(servers.addresses())).await {
                Ok(connected) => {
                    connected.map_err(|error| (error.to_string(), Some(Arc::new(error) as Cause)))
                }
                Err(_) => Err((TIMED_OUT.into(), None)),
            }
        };
        Ok(match attempt.await {
            Ok(client) => {
                let scout = Scout::start(client.clone(), link.clone(), servers.clone());
                let connection = Self {
                    client,
                    link,
                    events,
                    servers: servers.clone(),
                    api_prefix: options.api_prefix.as_deref().unwrap_or(API_PREFIX).into(),
                    counted: Arc::default(),
                    renewed: Arc::default(),
                    _scout: Some(Arc::new(scout)),
                };
                Ok(connection.settled(limit).await)
            }
            Err((text, error)) => Err(servers.failure(&address, text, error)),
        })
    }

    /// A connection that never comes about.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn to_nowhere() -> Result<Self> {
        const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
        let (events, link) = Events::new(String::new());
        let options =
            async_nats::ConnectOptions::new().retry_on_initial_connect().reconnect_delay_callback(|_| NEVER);
        let client = options.connect("127.0.0.1:9").await.map_err(|error| {
            Error::new(ErrorKind::Unreachable, "The client does not wait for its server.").because(error)
        })?;
        let events = Arc::downgrade(&Arc::new(events));
        let servers = Arc::new(Servers::new(&ConnectOptions::default())?);
        let (counted, api_prefix) = (Arc::default(), API_PREFIX.into());
        let renewed = Arc::default();
        Ok(Self { client, link, events, servers, api_prefix, counted, renewed, _scout: None })
    }

    /// The event that marks the link as up follows the connection by a moment.
    async fn settled(mut self, limit: Duration) -> Self {
        let _ = timeout(limit, self.link.wait_for(|link| link.is_up)).await;
        self
    }

    /// The async-nats client underneath.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The address of the server that is connected, or was last, without credentials.
    #[must_use]
    pub fn server(&self) -> String {
        self.servers.current().map_or_else(String::new, |(spelled, _)| spelled)
    }

    /// The addresses that the options name, without credentials.
    #[must_use]
    pub fn named_servers(&self) -> Vec<String> {
        self.servers.named()
    }

    /// The addresses of the cluster that a server told of and the options do not name. One that joins is known within a
    /// minute.
    #[must_use]
    pub fn discovered_servers(&self) -> Vec<String> {
        self.servers.learned()
    }

    /// Prefix of the JetStream API's subjects on this connection.
    #[must_use]
    pub fn api_prefix(&self) -> &str {
        &self.api_prefix
    }

    /// Whether the server is new enough for consumers.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the server's version and the oldest one that is supported.
    pub(crate) fn check_version(&self) -> Result<()> {
        version::check(&self.client.server_info().version, &self.server())
    }

    /// Whether the server has this version or a later one.
    ///
    /// # Errors
    /// Its version.
    pub(crate) fn server_since(&self, oldest: (u64, u64)) -> std::result::Result<(), String> {
        let version = self.client.server_info().version;
        if version::is_since(&version, oldest) { Ok(()) } else { Err(version) }
    }

    /// The largest message the server takes, headers included, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// The messages sent and received, and the bytes of their payloads, without those of consumptions.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.counted.so_far()
    }

    /// Counts what is sent and received.
    pub(crate) fn counted(&self) -> &Counted {
        &self.counted
    }

    /// The link's state, to look at or to wait on.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// The events from now on; the receiver ends when the connection is closed.
    #[must_use]
    pub fn events(&self) -> Option<broadcast::Receiver<ConnectionEvent>> {
        self.events.upgrade()?.subscribe()
    }

    /// Permissions that the server denies from now on.
    pub(crate) fn denials(&self) -> Denials {
        Denials::new(self.events())
    }

    /// Has the log leave out one denial: its asker tells what follows.
    pub(crate) fn expect_denial(&self, permission: Permission, subject: &str) {
        if let Some(events) = self.events.upgrade() {
            events.expect_denial(Denial { permission, subject: subject.to_owned() });
        }
    }

    /// A consumer begins to use the connection; the log names it.
    pub(crate) fn enter(&self, consumer: &str) {
        if let Some(events) = self.events.upgrade() {
            events.enter(consumer);
        }
    }

    /// A consumer does not use the connection any more. Returns how many still do.
    fn leave(&self, consumer: &str) -> usize {
        self.events.upgrade().map_or(0, |events| events.leave(consumer))
    }

    /// Whether both are copies of one connection.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counted, &other.counted)
    }

    /// How many consumers use the connection.
    pub(crate) fn company(&self) -> usize {
        self.events.upgrade().map_or(0, |events| events.company())
    }

    /// Returns the result of `asking`, or [`ErrorKind::Denied`] as soon as the server denies publishing to one of the
    /// subjects or receiving answers. If that is known already, nothing is asked.
    pub(crate) async fn unless_denied<T>(
        &self,
        subjects: &[&str],
        asking: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.check_answers()?;
        let mut denials = self.denials();
        let mut answers = self.denials();
        tokio::select! {
            biased;
            asked = asking => asked,
            denial = denials.about(Permission::Publish, subjects) => Err(denial.error()),
            () = self.until_answers_are_denied(&mut answers) => Err(no_answers("the result of this request is unknown")),
        }
    }

    /// # Errors
    /// [`ErrorKind::Denied`] where the server does not let this connection receive answers.
    pub(crate) fn check_answers(&self) -> Result<()> {
        if self.are_answers_denied() { Err(no_answers("nothing was sent")) } else { Ok(()) }
    }

    fn are_answers_denied(&self) -> bool {
        self.events.upgrade().is_some_and(|events| events.are_answers_denied())
    }

    /// Waits until the server has said that this connection may not receive answers.
    pub(crate) async fn until_answers_are_denied(&self, denials: &mut Denials) {
        while !self.are_answers_denied() {
            denials.any().await;
        }
    }

    /// Sends the event to all listeners.
    pub(crate) fn emit(&self, event: ConnectionEvent) {
        if let Some(events) = self.events.upgrade() {
            events.emit(event);
        }
    }

    /// The id of the server, which is another one after it has restarted.
    pub(crate) fn server_id(&self) -> String {
        self.client.server_info().server_id
    }

    /// Whether the server can be reached now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.borrow().is_up && !self.is_closed()
    }

    /// Whether it will never be up again, because it was closed or gave up reconnecting.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // The sender lives in async-nats' connection task, so it ends with it, also by a panic.
        self.link.has_changed().is_err()
    }

    /// Waits for a lost connection, which is usually back within some ten milliseconds; at most a second, and
    /// at most `limit`. After that the caller hears of it rather than waits; `lost` says what was not done.
    pub(crate) async fn wait_until_up(&self, limit: Duration, lost: impl FnOnce() -> String) -> Result<()> {
        if self.is_up() {
            return Ok(());
        }
        let mut link = self.link();
        match timeout(limit.min(RECONNECT_TIMEOUT), link.wait_for(|link| link.is_up)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => {
                let text = format!("The connection to NATS is closed, so {}. Open another one.", lost());
                Err(Error::new(ErrorKind::Closed, text))
            }
            Err(_) => {
                let text = format!("Not connected to NATS, so {}. Try again when it is back.", lost());
                Err(Error::new(ErrorKind::Disconnected, text))
            }
        }
    }

    /// Writes out what is queued, and waits until the server has read it.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when that took longer than `limit`, [`ErrorKind::Disconnected`],
    /// [`ErrorKind::Closed`].
    pub async fn flush(&self, limit: Duration) -> Result<()> {
        self.wait_until_up(limit, || "nothing was flushed".into()).await?;
        let flushing = async {
            // async-nats has no PING that a caller can wait for. Nobody listens on a fresh subject, and the server
            // says so: behind everything that was written.
            let (question, inbox) = (self.client.new_inbox(), self.client.new_inbox());
            let (mut unheard, mut unsent) = (self.denials(), self.denials());
            let mut answers = self.client.subscribe(inbox.clone()).await.map_err(closed)?;
            let sent = self.client.publish_with_reply(question.clone(), inbox.clone(), Bytes::new()).await;
            sent.map_err(closed)?;
            self.client.flush().await.map_err(closed)?;
            tokio::select! {
                _ = answers.next() => {}
                // Where the one or the other is not permitted, the refusal is as good an answer.
                _ = async { unheard.about(Permission::Subscribe, &[&inbox]).await } => {}
                _ = async { unsent.about(Permission::Publish, &[&question]).await } => {}
            }
            Ok(())
        };
        match timeout(limit, flushing).await {
            Ok(flushed) => flushed,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "The server did not read what was queued within {limit:?}. Check that it is reachable."
                ),
            )),
        }
    }

    /// Reconnects if the link counts as up but not even an answer arrives within `limit`. If the server's side is gone
    /// without notice, async-nats would wait until three pings went unanswered. Returns whether it reconnected.
    pub(crate) async fn renew_if_silent(&self, limit: Duration) -> bool {
        if !self.is_up() {
            return false;
        }
        let before = self.received();
        let generation = self.link.borrow().generation;
        // A slow link is not silent: what was asked for before may be on its way.
        let something = async {
            self.ping().await;
            while self.received() == before {
                sleep(RECEIVE_POLL_INTERVAL).await;
            }
        };
        if timeout(limit, something).await.is_ok() || !self.is_up() {
            return false;
        }
        // Others who use the connection notice it in the same moment.
        let is_first = self.renewed.swap(generation, Relaxed) != generation;
        if !is_first || self.link.borrow().generation != generation {
            return false;
        }
        if let Some(events) = self.events.upgrade() {
            let consumer = events.consumers();
            warn!(target: CONNECTION, consumer, "The connection to NATS is silent; opening a new one.");
        }
        let is_asked = timeout(limit, self.client.force_reconnect()).await.is_ok();
        if !is_asked {
            self.renewed.store(0, Relaxed);
        }
        is_asked
    }

    fn received(&self) -> u64 {
        self.client.statistics().in_bytes.load(Relaxed)
    }

    /// Has the server say something. async-nats sends a PING behind a subscription that is drained, and no request
    /// is as good: a permission may be missing for it, or somebody may listen on every subject and never answer.
    async fn ping(&self) {
        if let Ok(mut subscriber) = self.client.subscribe(self.client.new_inbox()).await {
            let _ = subscriber.drain().await;
        }
    }

    /// Returns when the connection is closed.
    pub(crate) async fn closed(&self) {
        let mut link = self.link();
        while link.changed().await.is_ok() {}
    }

    /// Writes out what is queued, then closes; returns when closed or after `limit`. Then it is closed,
    /// although what was queued may not have been written.
    pub async fn close(&self, limit: Duration) {
        let closing = async {
            // A drain alone would leave behind what the socket does not take at once.
            let _ = self.client.flush().await;
            if self.client.drain().await.is_ok() {
                self.closed().await;
            }
        };
        let _ = timeout(limit, closing).await;
        if let Some(events) = self.events.upgrade() {
            events.end();
        }
    }
}

fn closed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Closed, "The connection is closed.").because(error)
}

/// The last failure of each server; but a try that was cut short says nothing.
fn note(failures: &mut Vec<Failure>, failure: Failure) {
    match failures.iter_mut().find(|other| other.server == failure.server) {
        Some(_) if failure.text == TIMED_OUT => {}
        Some(other) => *other = failure,
        None => failures.push(failure),
    }
}

/// The error of who may not receive answers; `known` says what became of the request.
pub(crate) fn no_answers(known: &str) -> Error {
    let text = format!(
        "The NATS server does not let this user receive answers, so {known}. Allow `_INBOX.>` under `subscribe` in \
         the user's permissions, or set `inbox_prefix` to what is allowed there."
    );
    Error::new(ErrorKind::Denied, text)
}
