//! Pulling messages of a consumer by hand, batch by batch.

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::client::subscribe::{Interest, Statuses, Subscription, subscribe};
use crate::connect::{Connection, Link};
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::{API_TIMEOUT, nanoseconds};
use crate::jetstream::info::consumer_info_behind;
use crate::jetstream::status::{Meaning, request_of};
use crate::jitter::jittered;
use crate::message::Message;

/// Pause before a request that got no answer is made again: a leader is being elected.
const REQUEST_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Longest duration of one request; then it is made again.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// A consumer that is asked for messages.
#[derive(Debug)]
pub struct Puller {
    connection: Connection,
    subscription: Subscription,
    from: PullFrom,
    next: String,
    inbox: String,
    requests: AtomicU64,
}

/// A wait without a deadline.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The consumer that a [`Puller`] reads, and the messages that it may hold.
#[derive(Clone, Debug)]
pub struct PullFrom {
    /// Prefix of the API's subjects: [`api::PREFIX`](crate::jetstream::api::PREFIX), or that of a domain.
    pub prefix: String,
    /// The stream.
    pub stream: String,
    /// Its consumer, which exists.
    pub consumer: String,
    /// Messages that may wait to be taken.
    pub max_messages: usize,
    /// Bytes that may wait to be taken.
    pub max_bytes: usize,
}

/// How a request for messages ended.
enum End {
    Full,
    Over,
    /// The consumer did not answer.
    Unanswered,
    Late,
}

impl Puller {
    /// Subscribes to an inbox for the consumer's messages.
    ///
    /// # Errors
    /// As [`subscribe`].
    pub async fn open(connection: &Connection, from: PullFrom) -> Result<Self> {
        let inbox = connection.client().new_inbox();
        let interest = Interest {
            subject: format!("{inbox}.*"),
            queue: None,
            max_messages: from.max_messages,
            max_bytes: from.max_bytes,
            statuses: Statuses::Apart,
        };
        Ok(Self {
            connection: connection.clone(),
            subscription: subscribe(connection, interest).await?,
            next: format!("{}.CONSUMER.MSG.NEXT.{}.{}", from.prefix, from.stream, from.consumer),
            from,
            inbox,
            requests: AtomicU64::new(0),
        })
    }

    /// The messages that arrived, those of a cancelled fetch included.
    #[must_use]
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Waits until up to `batch` messages can be taken: those that are there now; if there are none, those
    /// that come within `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when none came, [`ErrorKind::Gone`] when the consumer was deleted,
    /// [`ErrorKind::Api`] when the server refused, [`ErrorKind::Disconnected`], [`ErrorKind::Closed`].
    pub async fn fetch(
        &self,
        batch: usize,
        limit: Option<Duration>,
        heartbeat: Option<Duration>,
    ) -> Result<()> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            if self.has(1) {
                return Ok(());
            }
            let id = self.ask(batch, deadline, heartbeat).await?;
            let end = self.collect(id, batch, deadline).await?;
            if self.has(1) {
                return Ok(());
            }
            if matches!(end, End::Unanswered) {
                self.look_for_consumer(left(deadline)).await?;
            }
            let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now() + REQUEST_RETRY_PAUSE);
            if is_late || matches!(end, End::Late) {
                let text = format!("The consumer `{}` had no message in time.", self.from.consumer);
                return Err(Error::new(ErrorKind::Timeout, text));
            }
            sleep(jittered(REQUEST_RETRY_PAUSE)).await;
        }
    }

    async fn ask(&self, batch: usize, deadline: Option<Instant>, heartbeat: Option<Duration>) -> Result<u64> {
        let id = self.requests.fetch_add(1, Relaxed);
        // With both, the server waits for a first message, and then for no other.
        let mut request = json!({
            "batch": batch,
            "expires": nanoseconds(left(deadline).min(REQUEST_LIMIT)),
            "no_wait": true,
        });
        if let Some(heartbeat) = heartbeat {
            request["idle_heartbeat"] = nanoseconds(heartbeat).into();
        }
        let reply = format!("{}.{id}", self.inbox);
        self.connection
            .wait_until_up(left(deadline), || {
                format!("no messages were requested from `{}`", self.from.consumer)
            })
            .await?;
        let client = self.connection.client();
        let request = request.to_string();
        self.connection.counted().sent(request.len());
        let sent = client.publish_with_reply(self.next.clone(), reply, request.into()).await;
        sent.map_err(|error| Error::new(ErrorKind::Closed, "The connection is closed.").because(error))?;
        Ok(id)
    }

    /// Waits for the answers to a request.
    async fn collect(&self, id: u64, batch: usize, deadline: Option<Instant>) -> Result<End> {
        let mut changes = self.subscription.changes();
        let mut link = self.connection.link();
        let generation = link.borrow().generation;
        loop {
            if self.has(batch) {
                return Ok(End::Full);
            }
            if self.subscription.has_ended() {
                return Err(Error::new(ErrorKind::Closed, "The subscription has ended: subscribe again."));
            }
            if let Some(end) = self.answer(id)? {
                return Ok(end);
            }
            let changed = async {
                tokio::select! {
                    _ = changes.changed() => false,
                    () = reconnected(&mut link, generation) => true,
                }
            };
            match timeout(left(deadline), changed).await {
                Ok(false) => {}
                Ok(true) => return Ok(End::Over),
                Err(_) => return Ok(End::Late),
            }
        }
    }

    /// How the server ended the request, if it did.
    fn answer(&self, id: u64) -> Result<Option<End>> {
        for status in self.subscription.take_statuses(|status| self.request_of(status) == Some(id)) {
            if let Some(end) = self.end(&status)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// # Errors
    /// [`ErrorKind::Gone`] or [`ErrorKind::StreamNotFound`] when there is none. While a server starts or a
    /// leader is elected, nobody knows, and that is not an error.
    async fn look_for_consumer(&self, limit: Duration) -> Result<()> {
        let PullFrom { prefix, stream, consumer, .. } = &self.from;
        let limit = limit.min(API_TIMEOUT);
        match consumer_info_behind(&self.connection, prefix, stream, consumer, limit).await {
            Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::StreamNotFound) => Err(error),
            _ => Ok(()),
        }
    }

    fn request_of(&self, status: &Message) -> Option<u64> {
        request_of(&self.inbox, status.subject())
    }

    /// How the status ends its request; `None` if it does not.
    fn end(&self, status: &Message) -> Result<Option<End>> {
        let (code, text) = status.status().unwrap_or_default();
        let consumer = &self.from.consumer;
        match Meaning::of(code, text) {
            Meaning::Alive => Ok(None),
            Meaning::Ended | Meaning::TooSmall | Meaning::Busy => Ok(Some(End::Over)),
            Meaning::Unanswered => Ok(Some(End::Unanswered)),
            Meaning::Deleted => Err(Error::new(
                ErrorKind::Gone,
                format!("The consumer `{consumer}` was deleted on the server."),
            )),
            Meaning::PushBased | Meaning::Refused => Err(Error::new(
                ErrorKind::Api { code, err_code: 0 },
                format!("The consumer `{consumer}` refused the request: {text} ({code})."),
            )
            .because(text)),
        }
    }

    fn has(&self, count: usize) -> bool {
        self.subscription.pending().0 >= count
    }
}

/// A lost connection takes the request with it.
async fn reconnected(link: &mut watch::Receiver<Link>, generation: u64) {
    if link.wait_for(|link| link.generation != generation).await.is_err() {
        // Closed: the subscription has ended, which is noticed there.
        std::future::pending::<()>().await;
    }
}

fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(FOREVER, |deadline| deadline.saturating_duration_since(Instant::now()))
}
