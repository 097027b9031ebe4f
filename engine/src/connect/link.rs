//! State of the link to the server, from the events of async-nats.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_nats::{ClientError, Event, ServerError};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::connect::denial::{Denial, Permission};
use crate::connect::failure::Failure;
use crate::jitter::jittered;
use crate::lock::lock;
use crate::observe::target::CONNECTION;

/// Events kept for a slow listener.
const EVENT_CAPACITY: usize = 256;

/// An event of a connection.
///
/// ```
/// use nats_consumer::{Connection, ConnectionEvent};
///
/// # async fn example(connection: Connection) -> Option<()> {
/// let mut events = connection.events()?;
/// while let Ok(event) = events.recv().await {
///     if event == ConnectionEvent::Disconnected {
///         println!("lost {}", connection.server());
///     }
/// }
/// # Some(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The connection was lost. The client reconnects.
    Disconnected,
    /// The connection is back.
    Reconnected,
    /// The server is about to shut down.
    LameDuck,
    /// The server refused something, or something failed in the background.
    Error(String),
    /// A subscription to this subject is full: what comes now is dropped.
    SlowConsumer(String),
}

/// State of the link to the server.
///
/// ```
/// # async fn example(connection: nats_consumer::Connection) {
/// let mut link = connection.link();
/// while link.changed().await.is_ok() {
///     println!("connected: {}", link.borrow().is_up);
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Whether the server can be reached now.
    pub is_up: bool,
    /// Counts the connections made: a change means that requests to the old one are gone.
    pub generation: u64,
    /// Whether a server refused the credentials at the last try to connect again.
    pub is_refused: bool,
}

/// Takes note of the events of one connection.
#[derive(Debug)]
pub(crate) struct Events {
    /// None when the connection was closed. Who listens notices the end of the senders, which is also that
    /// of async-nats' connection task.
    listeners: Mutex<Option<Listeners>>,
    losses: Losses,
    connect_errors: ConnectErrorLog,
    denials: DenialLog,
    /// The consumers that use the connection.
    consumers: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Listeners {
    link: watch::Sender<Link>,
    events: broadcast::Sender<ConnectionEvent>,
}

impl Events {
    /// Events of a connection whose answers go to subjects below `inbox`.
    pub(crate) fn new(inbox: String) -> (Self, watch::Receiver<Link>) {
        let (link, receiver) = watch::channel(Link::default());
        let listeners = Listeners { link, events: broadcast::Sender::new(EVENT_CAPACITY) };
        (
            Self {
                listeners: Mutex::new(Some(listeners)),
                losses: Losses::default(),
                connect_errors: ConnectErrorLog::default(),
                denials: DenialLog {
                    inbox,
                    are_answers_denied: AtomicBool::new(false),
                    subjects: Mutex::default(),
                    expected: Mutex::default(),
                },
                consumers: Mutex::default(),
            },
            receiver,
        )
    }

    pub(crate) fn subscribe(&self) -> Option<broadcast::Receiver<ConnectionEvent>> {
        self.listeners().as_ref().map(|listeners| listeners.events.subscribe())
    }

    pub(crate) fn note(&self, event: &Event) {
        let consumer = self.consumers();
        let consumer = consumer.as_deref();
        self.losses.note(event);
        if *event == Event::Connected {
            self.connect_errors.end();
            self.denials.are_answers_denied.store(false, Relaxed);
        }
        if let Event::ServerError(ServerError::Other(text)) = event {
            self.denials.note(text, consumer);
        }
        let told = self.listeners().as_ref().and_then(|Listeners { link, .. }| {
            note(link, event, consumer);
            connection_event(event, link.borrow().generation)
        });
        if let Some(event) = told {
            self.emit(event);
        }
    }

    /// Whether a server was connected before.
    pub(crate) fn was_connected(&self) -> bool {
        self.listeners().as_ref().is_some_and(|listeners| listeners.link.borrow().generation > 0)
    }

    /// Whether the server has said that this connection may not receive answers.
    pub(crate) fn are_answers_denied(&self) -> bool {
        self.denials.are_answers_denied.load(Relaxed)
    }

    /// Leaves this denial out of the log.
    pub(crate) fn expect_denial(&self, denial: Denial) {
        let mut expected = lock(&self.denials.expected);
        if !expected.contains(&denial) {
            expected.truncate(MOST_EXPECTED - 1);
            expected.push_front(denial);
        }
    }

    /// Tells why a server could not be connected again.
    pub(crate) fn trouble(&self, failure: &Failure) {
        // Closed, it only seems to reconnect.
        if let Some(Listeners { link, .. }) = &*self.listeners() {
            link.send_if_modified(|link| {
                std::mem::replace(&mut link.is_refused, failure.is_refusal()) != failure.is_refusal()
            });
            self.connect_errors.note(failure, self.consumers().as_deref());
        }
    }

    /// A consumer begins to use the connection; the log names it.
    pub(crate) fn enter(&self, consumer: &str) {
        lock(&self.consumers).push(consumer.to_owned());
    }

    /// A consumer does not use the connection any more. Returns how many still do.
    pub(crate) fn leave(&self, consumer: &str) -> usize {
        let mut consumers = lock(&self.consumers);
        if let Some(place) = consumers.iter().position(|name| name == consumer) {
            consumers.remove(place);
        }
        consumers.len()
    }

    /// How many consumers use the connection.
    pub(crate) fn company(&self) -> usize {
        lock(&self.consumers).len()
    }

    /// The consumers that use the connection, for the log.
    pub(crate) fn consumers(&self) -> Option<String> {
        let consumers = lock(&self.consumers);
        let (first, others) = consumers.split_first()?;
        Some(match others.len() {
            0 => first.clone(),
            1 => format!("{first} and {}", others[0]),
            more => format!("{first} and {more} others"),
        })
    }

    pub(crate) fn emit(&self, event: ConnectionEvent) {
        if let Some(listeners) = &*self.listeners() {
            // Nobody has to listen.
            let _ = listeners.events.send(event);
        }
    }

    /// The connection is closed, whatever async-nats is still about: while it reconnects, it hears nothing.
    pub(crate) fn end(&self) {
        self.listeners().take();
    }

    fn listeners(&self) -> MutexGuard<'_, Option<Listeners>> {
        lock(&self.listeners)
    }

    /// The pause before the next try to reconnect. Doubles from 10 ms up to the longest one, so that a short
    /// outage costs little, and differs from client to client.
    pub(crate) fn pause(&self, attempts: usize, longest: Duration) -> Duration {
        if self.listeners().is_none() {
            return NEVER;
        }
        jittered(reconnect_delay(attempts + self.losses.in_a_row(), longest))
    }
}

/// A pause that no process outlives.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Counts connections that were lost soon after they were made: async-nats starts its pauses again at each
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
        let mut connected = lock(&self.connected);
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

/// Logs each reason of a failed reconnect once: refused credentials stay refused.
#[derive(Debug, Default)]
struct ConnectErrorLog(Mutex<HashSet<String>>);

impl ConnectErrorLog {
    fn note(&self, failure: &Failure, consumer: Option<&str>) {
        let reason = failure.reason();
        if lock(&self.0).insert(reason.clone()) {
            warn!(
                target: CONNECTION,
                consumer,
                "Not connected to NATS yet: {reason}; still trying. {}",
                failure.advice()
            );
        }
    }

    fn end(&self) {
        lock(&self.0).clear();
    }
}

/// Logs each error of the server once: a worker asks for the same things again and again.
#[derive(Debug)]
struct DenialLog {
    inbox: String,
    are_answers_denied: AtomicBool,
    subjects: Mutex<HashSet<String>>,
    /// Those that somebody else tells of, the last one first.
    expected: Mutex<VecDeque<Denial>>,
}

/// Denials that are expected at once: some of each consumer on the connection.
const MOST_EXPECTED: usize = 512;

/// Most denials that are logged for one connection: some of each consumer on it.
const MOST_LOGGED: usize = 1024;

impl DenialLog {
    fn note(&self, text: &str, consumer: Option<&str>) {
        let Some(mut denial) = Denial::read(text) else {
            warn!(target: CONNECTION, consumer, error = text, "The NATS server reported an error.");
            return;
        };
        if denial.subject.starts_with(&self.inbox) {
            if denial.permission == Permission::Subscribe {
                self.are_answers_denied.store(true, Relaxed);
            }
            // Each connection has a name of its own below that.
            let (inboxes, _) = self.inbox.rsplit_once('.').unwrap_or((&self.inbox, ""));
            denial.subject = format!("{inboxes}.>");
        }
        if lock(&self.expected).contains(&denial) {
            return;
        }
        let mut subjects = lock(&self.subjects);
        if subjects.len() < MOST_LOGGED
            && subjects.insert(format!("{:?} {}", denial.permission, kind_of(&denial.subject)))
        {
            warn!(target: CONNECTION, consumer, "{denial}");
        }
    }
}

/// The part that subjects have in common which are denied for one reason. Behind four tokens, that of an acknowledgement
/// has numbers; one of the API names the durable there.
fn kind_of(subject: &str) -> String {
    let tokens = if subject.contains(".CONSUMER.") { usize::MAX } else { 4 };
    subject.split('.').take(tokens).collect::<Vec<_>>().join(".")
}

fn reconnect_delay(attempts: usize, longest: Duration) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    Duration::from_millis(10).saturating_mul(1 << doublings).min(longest)
}

fn note(link: &watch::Sender<Link>, event: &Event, consumer: Option<&str>) {
    match event {
        Event::Connected => {
            link.send_modify(|link| {
                link.is_up = true;
                link.is_refused = false;
                link.generation += 1;
            });
            if link.borrow().generation > 1 {
                info!(target: CONNECTION, consumer, "Connected to NATS again.");
            }
        }
        Event::Disconnected => {
            link.send_modify(|link| link.is_up = false);
            warn!(target: CONNECTION, consumer, "Lost the connection to NATS; reconnecting.");
        }
        Event::Closed => {
            link.send_modify(|link| link.is_up = false);
        }
        Event::LameDuckMode => {
            warn!(target: CONNECTION, consumer, "The NATS server is shutting down; a reconnect follows.");
        }
        Event::ServerError(ServerError::Other(_)) => {}
        // What matters of these is told by the loss of the connection itself.
        Event::Draining | Event::ClientError(_) => debug!(target: CONNECTION, "NATS connection: {event}"),
        other => warn!(target: CONNECTION, consumer, "NATS connection: {other}"),
    }
}

fn connection_event(event: &Event, generation: u64) -> Option<ConnectionEvent> {
    match event {
        Event::Connected if generation > 1 => Some(ConnectionEvent::Reconnected),
        Event::Disconnected => Some(ConnectionEvent::Disconnected),
        Event::LameDuckMode => Some(ConnectionEvent::LameDuck),
        Event::ServerError(error) => Some(ConnectionEvent::Error(error.to_string())),
        // Each try to reconnect that fails is one of these too, but of interest is only the last.
        Event::ClientError(error @ ClientError::MaxReconnects) => {
            Some(ConnectionEvent::Error(error.to_string()))
        }
        _ => None,
    }
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
    fn a_permission_lacked_by_two_durables_is_two_kinds_and_one_for_two_acknowledgements() {
        let next = |durable: &str| kind_of(&format!("$JS.API.CONSUMER.MSG.NEXT.orders.{durable}"));
        assert_ne!(next("billing"), next("audit"));
        let ack = |sequence: u64| kind_of(&format!("$JS.ACK.orders.billing.1.{sequence}.{sequence}.0.0"));
        assert_eq!(ack(1), ack(2));
    }

    #[test]
    fn the_log_names_those_who_share_a_connection() {
        let (events, _link) = Events::new("_INBOX.abc".into());
        let mut names = vec![events.consumers()];
        for consumer in ["Orders", "Billing", "Audit"] {
            events.enter(consumer);
            names.push(events.consumers());
        }
        assert_eq!(events.leave("Billing"), 2);
        names.push(events.consumers());
        let expected = [
            None,
            Some("Orders"),
            Some("Orders and Billing"),
            Some("Orders and 2 others"),
            Some("Orders and Audit"),
        ];
        assert_eq!(names, expected.map(|name| name.map(String::from)));
    }

    #[tokio::test]
    async fn a_connection_that_is_lost_as_soon_as_it_is_made_is_made_less_and_less_often() {
        let (events, _link) = Events::new("_INBOX.abc".into());
        for _ in 0..5 {
            events.note(&Event::Connected);
            events.note(&Event::Disconnected);
        }
        let pause = events.pause(1, Duration::from_secs(2));
        assert!((Duration::from_millis(160)..=Duration::from_millis(320)).contains(&pause), "{pause:?}");
    }
}
