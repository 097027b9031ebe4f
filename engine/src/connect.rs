//! Options become a connected client, and what happens to it later becomes a state one can watch.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, Event, ServerAddr, ServerError};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::config::{ConnectOptions, Secret};
use crate::error::{Error, ErrorKind, Result};

/// The pause between two tries of the first connection.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long a request waits for a lost connection to come back.
const RECONNECT_GRACE: Duration = Duration::from_secs(1);

/// Commands async-nats buffers before a send waits; acknowledgements of a full prefetch fit in.
const COMMAND_CAPACITY: usize = 16_384;

/// Happenings kept for whoever listens slowly.
const EVENT_CAPACITY: usize = 256;

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was lost; it comes back by itself.
    Disconnected,
    /// It is back.
    Reconnected,
    /// The server is about to shut down.
    LameDuck,
    /// The server refused something, or something failed in the background.
    Error(String),
    /// A subscription to this subject is full: what comes now is dropped.
    SlowConsumer(String),
}

/// What is known of the link to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether the server can be reached now.
    pub is_up: bool,
    /// Counts the connections made: a change means that requests to the old one are gone.
    pub generation: u64,
}

/// A connection to NATS that reconnects by itself.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    link: watch::Receiver<Link>,
    /// Weak, so that listeners notice the end of async-nats' connection task.
    happenings: broadcast::WeakSender<Happening>,
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
            let (sender, link) = watch::channel(Link::default());
            let (happening, _) = broadcast::channel(EVENT_CAPACITY);
            let happenings = happening.downgrade();
            let attempt = client_options(options, &addresses, sender, happening).await?.connect(&addresses);
            match timeout_at(deadline, attempt).await {
                Ok(Ok(client)) => return Ok(Self { client, link, happenings }.settled(deadline).await),
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

    /// The address of the server that is connected, without credentials.
    #[must_use]
    pub fn server(&self) -> String {
        let info = self.client.server_info();
        format!("nats://{}:{}", info.host, info.port)
    }

    /// The largest message the server takes, headers included, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// The link's state, to look at or to wait on.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// What happens from now on; it ends when the connection is closed.
    #[must_use]
    pub fn happenings(&self) -> Option<broadcast::Receiver<Happening>> {
        self.happenings.upgrade().map(|sender| sender.subscribe())
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, happening: Happening) {
        if let Some(sender) = self.happenings.upgrade() {
            // Nobody has to listen.
            let _ = sender.send(happening);
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
            self.client.flush().await?;
            // Nobody listens on a fresh inbox, and the server says so: behind everything that was written.
            let inbox = self.client.new_inbox();
            let question = async_nats::Request::new().timeout(None);
            tokio::select! {
                _ = self.client.send_request(inbox.clone(), question) => {}
                // Where publishing there is not permitted, the refusal is as good an answer.
                () = refusal(self.happenings(), &inbox) => {}
            }
            Ok::<_, async_nats::client::FlushError>(())
        };
        match timeout(limit, flushing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Closed, "The connection is closed.").because(error)),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("The server did not read what was queued within {limit:?}: is it reachable?"),
            )),
        }
    }

    /// Writes out what is queued, then closes; returns when closed or after `limit`.
    pub async fn close(&self, limit: Duration) {
        let mut link = self.link.clone();
        let closing = async {
            // A drain alone would leave behind what the socket does not take at once.
            let _ = self.client.flush().await;
            if self.client.drain().await.is_ok() {
                while link.changed().await.is_ok() {}
            }
        };
        let _ = timeout(limit, closing).await;
    }
}

fn parse_servers(servers: &[Secret]) -> Result<Vec<ServerAddr>> {
    if servers.is_empty() {
        return Err(Error::new(ErrorKind::Config, "`servers` is empty: name at least one NATS server."));
    }
    servers.iter().map(parse_server).collect()
}

fn parse_server(server: &Secret) -> Result<ServerAddr> {
    ServerAddr::from_str(server.reveal()).map_err(|error| {
        // The address itself may hold a password, so it is not repeated.
        Error::new(
            ErrorKind::Config,
            "An entry of `servers` is no server address: write `nats://host:port` or `host:port`.",
        )
        .because(error)
    })
}

async fn client_options(
    options: &ConnectOptions,
    addresses: &[ServerAddr],
    link: watch::Sender<Link>,
    events: broadcast::Sender<Happening>,
) -> Result<async_nats::ConnectOptions> {
    let longest = options.reconnect_wait;
    let losses = Arc::new(Losses::default());
    let noted = losses.clone();
    let mut client = async_nats::ConnectOptions::new()
        .connection_timeout(options.connect_timeout)
        .ping_interval(options.ping_interval)
        .max_reconnects(options.max_reconnects)
        .client_capacity(COMMAND_CAPACITY)
        .require_tls(options.tls_required.unwrap_or_else(|| exposes_a_secret(options, addresses)))
        .custom_inbox_prefix(inbox_prefix(options)?)
        .reconnect_delay_callback(move |attempts| reconnect_delay(attempts + losses.in_a_row(), longest))
        .event_callback(move |event| {
            noted.note(&event);
            note(&link, &event);
            if let Some(happening) = happens(&event, link.borrow().generation) {
                // Nobody has to listen.
                let _ = events.send(happening);
            }
            std::future::ready(())
        });
    if let Some(name) = &options.name {
        client = client.name(name);
    }
    if let Some(path) = &options.tls_ca {
        client = client.add_root_certificates(path.clone());
    }
    match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => client = client.add_client_certificate(cert.clone(), key.clone()),
        (None, None) => {}
        _ => return Err(Error::new(ErrorKind::Config, "`tls_cert` and `tls_key` go together: set both.")),
    }
    if options.no_echo {
        client = client.no_echo();
    }
    authenticate(client, options, addresses).await
}

/// Whether a password or token would cross a network. (With nkeys and credentials files nothing secret is
/// sent: the client signs what the server asks.)
fn exposes_a_secret(options: &ConnectOptions, addresses: &[ServerAddr]) -> bool {
    let in_url = addresses.iter().any(|address| address.username().is_some());
    let has_secret = options.password.is_some() || options.token.is_some() || in_url;
    has_secret && !addresses.iter().all(is_loopback)
}

fn is_loopback(address: &ServerAddr) -> bool {
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn authenticate(
    mut client: async_nats::ConnectOptions,
    options: &ConnectOptions,
    addresses: &[ServerAddr],
) -> Result<async_nats::ConnectOptions> {
    if let Some(path) = &options.credentials {
        client = client.credentials_file(path).await.map_err(|error| unreadable(path, error))?;
    }
    if let Some(seed) = &options.nkey_seed {
        client = client.nkey(seed.reveal().to_owned());
    }
    if let Some(token) = &options.token {
        client = client.token(token.reveal().to_owned());
    }
    match (&options.user, &options.password) {
        (Some(user), Some(password)) => {
            return Ok(client.user_and_password(user.clone(), password.reveal().to_owned()));
        }
        (None, None) => {}
        _ => return Err(Error::new(ErrorKind::Config, "`user` and `password` go together: set both.")),
    }
    // async-nats ignores credentials inside a URL; a lone user name there is a token, as in nats-py.
    let Some(address) = addresses.iter().find(|address| address.username().is_some()) else {
        return Ok(client);
    };
    let user = address.username().unwrap_or_default().to_owned();
    Ok(match address.password() {
        Some(password) => client.user_and_password(user, password.to_owned()),
        None => client.token(user),
    })
}

/// Where answers go: a name of this very connection. A generator that lives in the process would give a
/// forked child the names of its parent, and the child the answers meant for a sibling.
fn inbox_prefix(options: &ConnectOptions) -> Result<String> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorKind::Config, format!("The operating system gives no random numbers: {error}."))
    })?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}.{name}", options.inbox_prefix.as_deref().unwrap_or("_INBOX")))
}

/// Counts connections that were lost soon after they were made: async-nats begins its pauses anew at each
/// success, so credentials that are accepted and then expire would reconnect a hundred times a second.
#[derive(Debug, Default)]
struct Losses {
    connected: Mutex<Option<Instant>>,
    count: AtomicUsize,
}

/// A connection that lasted this long is sound.
const SOUND: Duration = Duration::from_secs(5);

impl Losses {
    fn note(&self, event: &Event) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => *connected = Some(Instant::now()),
            Event::Disconnected if connected.is_some_and(|since| since.elapsed() < SOUND) => {
                self.count.fetch_add(1, Relaxed);
            }
            Event::Disconnected => self.count.store(0, Relaxed),
            _ => {}
        }
    }

    fn in_a_row(&self) -> usize {
        self.count.load(Relaxed)
    }
}

/// Doubles from 10 ms up to the longest pause, so that a short outage costs little.
fn reconnect_delay(attempts: usize, longest: Duration) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    Duration::from_millis(10).saturating_mul(1 << doublings).min(longest)
}

fn note(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            link.send_modify(|link| {
                link.is_up = true;
                link.generation += 1;
            });
            if link.borrow().generation > 1 {
                info!("connected to NATS again");
            }
        }
        Event::Disconnected => {
            link.send_modify(|link| link.is_up = false);
            warn!("lost the connection to NATS; reconnecting");
        }
        Event::Closed => {
            link.send_modify(|link| link.is_up = false);
        }
        Event::LameDuckMode => warn!("the NATS server is shutting down; expect a reconnect"),
        Event::ServerError(ServerError::Other(text)) => {
            warn!(error = text, "the NATS server reported an error");
        }
        // What matters of these is told by the loss of the connection itself.
        Event::Draining | Event::ClientError(_) => debug!("NATS connection: {event}"),
        other => warn!("NATS connection: {other}"),
    }
}

fn happens(event: &Event, generation: u64) -> Option<Happening> {
    match event {
        Event::Connected if generation > 1 => Some(Happening::Reconnected),
        Event::Disconnected => Some(Happening::Disconnected),
        Event::LameDuckMode => Some(Happening::LameDuck),
        Event::ServerError(error) => Some(Happening::Error(error.to_string())),
        Event::ClientError(error) => Some(Happening::Error(error.to_string())),
        _ => None,
    }
}

/// Waits until the server has refused something about the subject.
async fn refusal(happenings: Option<broadcast::Receiver<Happening>>, subject: &str) {
    let Some(mut happenings) = happenings else { return std::future::pending().await };
    loop {
        match happenings.recv().await {
            Ok(Happening::Error(text)) if text.contains(subject) => return,
            Err(broadcast::error::RecvError::Closed) => return,
            _ => {}
        }
    }
}

fn is_refusal(kind: ConnectErrorKind) -> bool {
    matches!(kind, ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation)
}

fn describe(error: &async_nats::ConnectError) -> String {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    if error.kind() != ConnectErrorKind::Tls {
        return cause;
    }
    format!(
        "the TLS handshake failed, {cause}; name the authority of the server's certificate in `tls_ca`, or, for a \
         server without TLS on a trusted network, set `tls` to False"
    )
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
        "The NATS server at {} refused the connection ({error}). \
         Check the user, password, token, nkey or credentials file.",
        spell(addresses)
    );
    Error::new(ErrorKind::Denied, message)
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let message = format!("The credentials file {} cannot be used: {error}.", path.display());
    Error::new(ErrorKind::Config, message).because(error)
}

/// Addresses without the credentials that a URL may hold.
fn spell(addresses: &[ServerAddr]) -> String {
    let bare = |address: &ServerAddr| format!("{}://{}:{}", address.scheme(), address.host(), address.port());
    addresses.iter().map(bare).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_pauses_double_up_to_the_longest() {
        let longest = Duration::from_secs(2);
        assert_eq!(reconnect_delay(1, longest), Duration::from_millis(10));
        assert_eq!(reconnect_delay(3, longest), Duration::from_millis(40));
        assert_eq!(reconnect_delay(usize::MAX, longest), longest);
    }

    #[test]
    fn an_address_is_spelled_without_its_password() {
        let addresses = parse_servers(&["nats://me:hunter2@localhost:4333".into()]).unwrap();
        assert_eq!(spell(&addresses), "nats://localhost:4333");
    }

    #[test]
    fn a_password_crosses_a_network_only_with_tls() {
        let exposed = |servers: &[&str], password: Option<&str>| {
            let options = ConnectOptions { password: password.map(Into::into), ..ConnectOptions::default() };
            let servers: Vec<Secret> = servers.iter().map(|server| (*server).into()).collect();
            exposes_a_secret(&options, &parse_servers(&servers).unwrap())
        };
        assert!(exposed(&["nats://nats.example.org"], Some("hunter2")));
        assert!(exposed(&["nats://me:hunter2@10.0.0.7"], None));
        assert!(exposed(&["localhost", "10.0.0.7"], Some("hunter2")));
        assert!(!exposed(&["nats://10.0.0.7"], None));
        assert!(!exposed(&["localhost:4222", "127.0.0.1", "[::1]:4222"], Some("hunter2")));
    }

    #[test]
    fn a_bare_host_is_an_address() {
        let addresses = parse_servers(&["localhost".into(), "127.0.0.1:4333".into()]).unwrap();
        assert_eq!(spell(&addresses), "nats://localhost:4222, nats://127.0.0.1:4333");
    }
}
