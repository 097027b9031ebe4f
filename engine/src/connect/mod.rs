//! Options become a connected client, and what happens to it later becomes a state one can watch.

mod credentials;
pub(crate) mod denial;
pub(crate) mod denials;
mod dial;
pub(crate) mod link;
mod traffic;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use crate::config::ConnectOptions;
use crate::connect::denial::Act;
use crate::connect::denials::Denials;
use crate::connect::dial::{client_options, inboxes, parse_servers, spell, spell_one};
use crate::connect::link::Events;
pub use crate::connect::link::{Happening, Link};
use crate::connect::traffic::Counted;
pub use crate::connect::traffic::Traffic;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::target::CONNECTION;

/// The pause between two tries of the first connection.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long a request waits for a lost connection to come back.
const RECONNECT_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether something was received: nobody announces it.
const GLANCE: Duration = Duration::from_millis(20);

/// A connection to NATS that reconnects by itself.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    link: watch::Receiver<Link>,
    /// Weak: they end with async-nats' connection task.
    events: Weak<Events>,
    addresses: Arc<[ServerAddr]>,
    counted: Arc<Counted>,
}

impl Connection {
    /// Connects, trying again until `connect_timeout` has passed.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] when no server answered in time, [`ErrorKind::Denied`] at once when
    /// one refused the credentials, [`ErrorKind::Config`] for options that cannot be used.
    pub async fn open(options: &ConnectOptions) -> Result<Self> {
        let addresses = parse_servers(&options.servers)?;
        let deadline = Instant::now() + options.connect_timeout;
        let mut last = String::from("no answer");
        loop {
            let (events, link) = Events::new(spell(&addresses), inboxes(options).to_owned());
            let noting = Arc::new(events);
            let events = Arc::downgrade(&noting);
            let attempt = client_options(options, &addresses, noting)?.connect(&addresses);
            match timeout_at(deadline, attempt).await {
                Ok(Ok(client)) => {
                    let addresses = addresses.into();
                    let counted = Arc::default();
                    return Ok(Self { client, link, events, addresses, counted }.settled(deadline).await);
                }
                Ok(Err(error)) if is_refusal(error.kind()) => return Err(denied(&addresses, &error)),
                Ok(Err(error)) => last = describe(&error),
                Err(_) => return Err(unreachable(&addresses, options.connect_timeout, &last)),
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(unreachable(&addresses, options.connect_timeout, &last));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// A connection that never comes about.
    #[cfg(feature = "testing")]
    pub(crate) async fn to_nowhere() -> Result<Self> {
        const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
        let (events, link) = Events::new(String::new(), String::new());
        let options =
            async_nats::ConnectOptions::new().retry_on_initial_connect().reconnect_delay_callback(|_| NEVER);
        let client = options.connect("127.0.0.1:9").await.map_err(|error| {
            Error::new(ErrorKind::Unreachable, "The client does not wait for its server.").because(error)
        })?;
        let events = Arc::downgrade(&Arc::new(events));
        Ok(Self { client, link, events, addresses: Arc::default(), counted: Arc::default() })
    }

    /// The event that marks the link as up follows the connection by a moment.
    async fn settled(mut self, deadline: Instant) -> Self {
        let _ = timeout_at(deadline, self.link.wait_for(|link| link.is_up)).await;
        self
    }

    /// The async-nats client underneath.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The address of the server that is connected, without credentials: the one that the options name, where
    /// that can be told, or else what the server calls itself.
    #[must_use]
    pub fn server(&self) -> String {
        let info = self.client.server_info();
        match &*self.addresses {
            [only] if info.connect_urls.is_empty() => spell_one(only),
            _ => format!("nats://{}:{}", info.host, info.port),
        }
    }

    /// The addresses that the options name, without credentials.
    #[must_use]
    pub fn named_servers(&self) -> Vec<String> {
        self.addresses.iter().map(spell_one).collect()
    }

    /// The addresses of the cluster that the server told of and the options do not name.
    #[must_use]
    pub fn discovered_servers(&self) -> Vec<String> {
        let told = self.client.server_info().connect_urls;
        let addresses = told.iter().filter_map(|address| address.parse::<ServerAddr>().ok());
        let is_named = |one: &ServerAddr| {
            self.addresses.iter().any(|other| (one.host(), one.port()) == (other.host(), other.port()))
        };
        addresses.filter(|address| !is_named(address)).map(|address| spell_one(&address)).collect()
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

    /// What happens from now on; it ends when the connection is closed.
    #[must_use]
    pub fn happenings(&self) -> Option<broadcast::Receiver<Happening>> {
        self.events.upgrade()?.happenings()
    }

    /// What the server denies from now on.
    pub(crate) fn denials(&self) -> Denials {
        Denials::new(self.happenings())
    }

    /// Has the log name the consumer that the connection is for.
    pub(crate) fn name(&self, consumer: &str) {
        if let Some(events) = self.events.upgrade() {
            events.name(consumer);
        }
    }

    /// What `asking` comes to; [`ErrorKind::Denied`] as soon as the server denies publishing to one of the
    /// subjects, for then nobody answers.
    pub(crate) async fn unless_denied<T>(
        &self,
        subjects: &[&str],
        asking: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut denials = self.denials();
        tokio::select! {
            biased;
            asked = asking => asked,
            denial = denials.about(Act::Publish, subjects) => Err(denial.error()),
        }
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, happening: Happening) {
        if let Some(events) = self.events.upgrade() {
            events.tell(happening);
        }
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
        match timeout(limit.min(RECONNECT_GRACE), link.wait_for(|link| link.is_up)).await {
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
            // async-nats answers no PING to whoever asks for one. Nobody listens on a fresh subject, and the server
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
                _ = async { unheard.about(Act::Subscribe, &[&inbox]).await } => {}
                _ = async { unsent.about(Act::Publish, &[&question]).await } => {}
            }
            Ok(())
        };
        match timeout(limit, flushing).await {
            Ok(flushed) => flushed,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("The server did not read what was queued within {limit:?}: is it reachable?"),
            )),
        }
    }

    /// Makes the link anew where it counts as up and yet nothing comes over it within `limit`, not even an
    /// answer. Where the server's side is gone and nobody told us, async-nats would wait until three pings went
    /// unanswered. Returns whether it did.
    pub(crate) async fn renew_if_silent(&self, limit: Duration) -> bool {
        if !self.is_up() {
            return false;
        }
        let before = self.received();
        // A slow link is not silent: what was asked for before may be on its way.
        let something = async {
            self.ping().await;
            while self.received() == before {
                sleep(GLANCE).await;
            }
        };
        if timeout(limit, something).await.is_ok() || !self.is_up() {
            return false;
        }
        if let Some(events) = self.events.upgrade() {
            warn!(target: CONNECTION, consumer = events.consumer(), "The connection to NATS is silent; opening a new one.");
        }
        timeout(limit, self.client.force_reconnect()).await.is_ok()
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

fn is_refusal(kind: ConnectErrorKind) -> bool {
    matches!(kind, ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation)
}

fn describe(error: &async_nats::ConnectError) -> String {
    let cause = cause(error);
    if cause.contains("InvalidContentType") {
        return format!(
            "{cause}: the server does not speak TLS there; enable TLS on the server, or, on a trusted network, write \
             `nats://` instead of `tls://` and leave out the `tls` options"
        );
    }
    if error.kind() != ConnectErrorKind::Tls {
        return cause;
    }
    format!(
        "the TLS handshake failed, {cause}; name the authority of the server's certificate in `tls_ca`, or, for a \
         server without TLS on a trusted network, set `tls` to False"
    )
}

fn cause(error: &async_nats::ConnectError) -> String {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    cause.trim_start_matches("nats: ").to_owned()
}

fn unreachable(addresses: &[ServerAddr], waited: Duration, last: &str) -> Error {
    let message = format!(
        "No NATS server answered at {} within {waited:?} (last: {last}). \
         Check that a server listens there and that `servers` names it.",
        spell(addresses)
    );
    Error::new(ErrorKind::Unreachable, message)
}

fn denied(addresses: &[ServerAddr], error: &async_nats::ConnectError) -> Error {
    let message = format!(
        "The NATS server at {} refused the connection ({}). \
         Check the user, password, token, nkey or credentials file.",
        spell(addresses),
        cause(error)
    );
    Error::new(ErrorKind::Denied, message)
}
