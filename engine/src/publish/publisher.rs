//! One connection to publish on: opened on first use, and again after it was closed.

use std::collections::HashSet;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{StatusCode, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::{ConnectOptions, LONGEST};
use crate::connect::denial::{Denial, Permission};
use crate::connect::denials::Denials;
use crate::connect::{Connection, LINK_CHECK_TIMEOUT, no_answers};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::observe::Metrics;
use crate::observe::published::Published;
use crate::publish::{Outgoing, PublishAck, later, no_stream, publish, read_ack, request, send, unconfirmed};

/// Messages under way at once when many are published; the confirmations of more could overflow the
/// subscription.
const WINDOW: usize = 4096;

/// How long confirmations may take before the server is asked whether it has read the messages. Most come sooner.
const CONFIRM_GRACE: Duration = Duration::from_millis(100);

/// How long [`Publisher::publish`] waits where the caller gives no limit.
const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// Publishes from anywhere in a program. Cloning is cheap: clones share the connection.
///
/// ```no_run
/// use nats_consumer::{ConnectOptions, Outgoing, Publisher};
/// use std::time::Duration;
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let publisher = Publisher::new(ConnectOptions::to(["nats://127.0.0.1:4222"]));
/// let outgoing = Outgoing::json("orders.7.created", &7)?.id("order-7")?;
/// let stored = publisher.publish(outgoing, Duration::from_secs(5)).await?;
/// println!("message {} of {}, a duplicate: {}", stored.sequence, stored.stream, stored.duplicate);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    /// None on a connection that somebody else opened.
    connect: Option<ConnectOptions>,
    is_in_order: bool,
    cached: Arc<Mutex<Cached>>,
    published: Option<Arc<Published>>,
}

#[derive(Debug, Default)]
struct Cached {
    connection: Option<Connection>,
    /// When the last try to connect failed, and its error.
    failed: Option<(Instant, ErrorKind, String)>,
    /// Streams that keep messages for later.
    keeping: HashSet<String>,
}

/// How long callers get the error of the last failed connection at once. Otherwise each of them would wait for a try
/// of its own, one behind the other.
const FAILURE_REPEATED_FOR: Duration = Duration::from_secs(1);

impl Publisher {
    /// A publisher that connects when it is first used.
    #[must_use]
    pub fn new(connect: ConnectOptions) -> Self {
        Self { connect: Some(connect), is_in_order: false, cached: Arc::default(), published: None }
    }

    /// A publisher on a connection that you opened and close.
    ///
    /// ```
    /// use nats_consumer::{ConnectOptions, Connection, Publisher};
    ///
    /// # async fn example(connect: ConnectOptions) -> nats_consumer::Result<()> {
    /// let connection = Connection::open(&connect).await?;
    /// let publisher = Publisher::on(connection.clone());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on(connection: Connection) -> Self {
        let cached = Cached { connection: Some(connection), ..Cached::default() };
        Self { connect: None, is_in_order: false, cached: Arc::new(Mutex::new(cached)), published: None }
    }

    /// Lets messages that failed be published again in their order. When the connection is lost, nothing that waits to be
    /// sent is sent over another one, after the messages that were lost. And [`publish_many`](Self::publish_many) tells
    /// failures apart: [`ErrorKind::Unconfirmed`] means that the server has read the message and no stream answered,
    /// [`ErrorKind::Disconnected`] that nothing is known. Open a connection for [`on`](Self::on) with
    /// [`max_reconnects(0)`](ConnectOptions::max_reconnects).
    ///
    /// ```
    /// use nats_consumer::{ConnectOptions, Publisher};
    ///
    /// let publisher = Publisher::new(ConnectOptions::default()).in_order();
    /// ```
    #[must_use]
    pub fn in_order(self) -> Self {
        let connect = self.connect.map(|connect| connect.max_reconnects(0));
        Self { connect, is_in_order: true, ..self }
    }

    /// Counts what it publishes into these metrics: messages that a stream stored, by stream, and those that failed.
    ///
    /// ```
    /// use nats_consumer::observe::Metrics;
    /// use nats_consumer::{ConnectOptions, Publisher};
    ///
    /// # fn example(connect: ConnectOptions, metrics: &Metrics) {
    /// let publisher = Publisher::new(connect).observed(metrics);
    /// # }
    /// ```
    #[must_use]
    pub fn observed(self, metrics: &Metrics) -> Self {
        Self { published: Some(metrics.published()), ..self }
    }

    /// The largest size of a message that the server accepts, in bytes, with its headers. `None` without a connection,
    /// also while one is being opened.
    #[must_use]
    pub fn max_payload(&self) -> Option<usize> {
        let cached = self.cached.try_lock().ok()?;
        cached.connection.as_ref().map(Connection::max_payload)
    }

    /// Publishes and waits, at most `limit`, until a stream has stored the message; `None` is 5 seconds. If the future is
    /// dropped before, the message may be stored or not; [`id`](Outgoing::id) lets you publish it again.
    ///
    /// ```
    /// # async fn example(publisher: nats_consumer::Publisher) -> nats_consumer::Result<()> {
    /// use nats_consumer::Outgoing;
    /// use std::time::Duration;
    ///
    /// publisher.publish(Outgoing::to("orders.7.paid", "")?, None).await?;
    /// publisher.publish(Outgoing::to("orders.8.paid", "")?, Duration::from_secs(30)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`publish`] and [`Connection::open`].
    pub async fn publish(
        &self,
        outgoing: Outgoing,
        limit: impl Into<Option<Duration>>,
    ) -> Result<PublishAck> {
        let result = self.publish_within(outgoing, limit.into().unwrap_or(DEFAULT_LIMIT)).await;
        if let Some(published) = &self.published {
            published.count([stored_in(&result)]);
        }
        result
    }

    async fn publish_within(&self, outgoing: Outgoing, limit: Duration) -> Result<PublishAck> {
        let began = Instant::now();
        let connection = self.connection(limit).await?;
        let is_for_later = outgoing.is_for_later();
        let published = publish(&connection, outgoing, limit.saturating_sub(began.elapsed())).await;
        if published.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unconfirmed) {
            // The caller has waited long enough; the next one finds a sound link.
            tokio::spawn(async move { connection.renew_if_silent(LINK_CHECK_TIMEOUT).await });
        } else if is_for_later {
            let ack = published?;
            self.check_kept(&connection, &ack.stream, began + limit.min(LONGEST)).await?;
            return Ok(ack);
        }
        published
    }

    /// Publishes many messages without waiting for each: in their order, and the results in that order too.
    /// What is not confirmed after `limit` has failed, also what could not be sent until then.
    ///
    /// ```
    /// use nats_consumer::{Outgoing, Publisher};
    /// use std::time::Duration;
    ///
    /// # async fn example(publisher: Publisher) -> nats_consumer::Result<()> {
    /// let messages = (1..=1000).map(|order| Outgoing::json(&format!("orders.{order}.created"), &order));
    /// let results = publisher.publish_many(messages.collect::<Result<_, _>>()?, Duration::from_secs(30)).await?;
    /// for error in results.into_iter().filter_map(Result::err) {
    ///     println!("not stored: {error}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish) where nothing could be sent at all; else each message has a result of
    /// its own.
    pub async fn publish_many(
        &self,
        messages: Vec<Outgoing>,
        limit: Duration,
    ) -> Result<Vec<Result<PublishAck>>> {
        let count = messages.len() as u64;
        let results = self.pipelined(messages, limit).await;
        match (&self.published, &results) {
            (Some(published), Ok(results)) => published.count(results.iter().map(stored_in)),
            (Some(published), Err(error)) => published.failed(error, count),
            (None, _) => {}
        }
        results
    }

    async fn pipelined(&self, messages: Vec<Outgoing>, limit: Duration) -> Result<Vec<Result<PublishAck>>> {
        let limit = limit.min(LONGEST);
        let deadline = Instant::now() + limit;
        let connection = self.connection(limit).await?;
        connection.check_answers()?;
        let inbox = connection.client().new_inbox();
        let closed =
            |error| Error::new(ErrorKind::Closed, "The connection to NATS is closed.").because(error);
        // While the link is down, what async-nats buffers fills up and subscribing would wait forever.
        let answers = timeout_at(deadline, connection.client().subscribe(format!("{inbox}.*"))).await;
        let answers = answers.map_err(|_| no_connection(limit))?.map_err(closed)?;
        let is_for_later: Vec<bool> = messages.iter().map(Outgoing::is_for_later).collect();
        let pipeline = Pipeline::new(&connection, self.is_in_order, answers, inbox, limit, deadline);
        let mut results = pipeline.run(messages).await;
        for (result, _) in results.iter_mut().zip(is_for_later).filter(|(_, is_for_later)| *is_for_later) {
            let Ok(ack) = result else { continue };
            if let Err(error) = self.check_kept(&connection, &ack.stream, deadline).await {
                *result = Err(error);
            }
        }
        Ok(results)
    }

    /// [`later::check_kept`], asked once for a stream that has kept one.
    async fn check_kept(&self, connection: &Connection, stream: &str, deadline: Instant) -> Result<()> {
        if self.cached.lock().await.keeping.contains(stream) {
            return Ok(());
        }
        timeout_at(deadline, later::check_kept(connection, stream)).await.unwrap_or(Ok(()))?;
        self.cached.lock().await.keeping.insert(stream.to_owned());
        Ok(())
    }

    /// [`send`] on this connection: no stream confirms the message, and it may be lost.
    ///
    /// # Errors
    /// As [`send`], as [`Connection::open`], and [`ErrorKind::Unreachable`] without a connection after `limit`.
    pub async fn send(&self, outgoing: Outgoing, limit: Duration) -> Result<()> {
        send(&self.connection(limit).await?, outgoing, None).await
    }

    /// Publishes and waits, at most `limit`, for somebody's answer. Returns the answer, and the connection that it came by.
    ///
    /// ```
    /// use nats_consumer::{Outgoing, Publisher};
    /// use std::time::Duration;
    ///
    /// # async fn example(publisher: Publisher) -> nats_consumer::Result<()> {
    /// let (answer, _) = publisher.request(Outgoing::to("shop.price", "7")?, Duration::from_secs(2)).await?;
    /// println!("{} bytes", answer.payload().len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NoResponders`] if nobody listens, [`ErrorKind::Timeout`] if nobody answered in time, and as
    /// [`publish`](Self::publish).
    pub async fn request(&self, outgoing: Outgoing, limit: Duration) -> Result<(Message, Connection)> {
        let began = Instant::now();
        let connection = self.connection(limit).await?;
        let answer = request(&connection, outgoing, limit.saturating_sub(began.elapsed())).await?;
        Ok((answer, connection))
    }

    /// Closes the connection; the next publish opens another one. A connection of [`on`](Self::on) stays open.
    pub async fn close(&self, limit: Duration) {
        if self.connect.is_none() {
            return;
        }
        let began = Instant::now();
        // While a connection is being opened, there is none to close.
        let Ok(mut cached) = timeout(limit, self.cached.lock()).await else { return };
        if let Some(connection) = cached.connection.take() {
            connection.close(limit.saturating_sub(began.elapsed())).await;
        }
    }

    async fn connection(&self, limit: Duration) -> Result<Connection> {
        let connecting = async {
            if let Some(connection) = self.usable(&*self.cached.lock().await) {
                return Ok(connection);
            }
            // In a task of its own: a caller may have less time than a connection takes, and the next one uses it.
            let publisher = self.clone();
            let connected = tokio::spawn(async move { publisher.connect().await }).await;
            connected.unwrap_or_else(|_| Err(no_connection(limit)))
        };
        timeout(limit, connecting).await.unwrap_or_else(|_| Err(no_connection(limit)))
    }

    fn usable(&self, cached: &Cached) -> Option<Connection> {
        // One that must not reconnect takes a moment to end.
        let is_over = |one: &Connection| if self.is_in_order { !one.is_up() } else { one.is_closed() };
        cached.connection.as_ref().filter(|connection| !is_over(connection)).cloned()
    }

    async fn connect(&self) -> Result<Connection> {
        let mut cached = self.cached.lock().await;
        if let Some(connection) = self.usable(&cached) {
            return Ok(connection);
        }
        let Some(connect) = &self.connect else {
            let text = "The connection of this publisher is closed: make a publisher with another one.";
            return Err(Error::new(ErrorKind::Closed, text));
        };
        if let Some((when, kind, text)) = &cached.failed
            && when.elapsed() < FAILURE_REPEATED_FOR
        {
            return Err(Error::new(*kind, text.clone()));
        }
        let opened = Connection::open(connect).await;
        cached.failed =
            opened.as_ref().err().map(|error| (Instant::now(), error.kind(), error.message().to_owned()));
        cached.connection = opened.as_ref().ok().cloned();
        opened
    }
}

/// The stream that stored the message, for the metrics.
fn stored_in(result: &Result<PublishAck>) -> std::result::Result<&str, &Error> {
    result.as_ref().map(|ack| ack.stream.as_str())
}

/// Waits for the loss of a connection that does not come back.
async fn until_lost(connection: &Connection, is_in_order: bool) {
    if !is_in_order {
        return pending().await;
    }
    let _ = connection.link().wait_for(|link| !link.is_up).await;
}

fn unknown(subject: &str) -> Error {
    let text = format!(
        "The server was lost before it confirmed the message for {subject}, which may have been stored. Publish it \
         again with the same `Nats-Msg-Id`."
    );
    Error::new(ErrorKind::Disconnected, text)
}

fn no_connection(limit: Duration) -> Error {
    let text = format!("No connection to NATS within {limit:?}, so nothing was published.");
    Error::new(ErrorKind::Unreachable, text)
}

/// Messages under way, known by the last token of their reply subject.
struct Pipeline<'a> {
    connection: &'a Connection,
    is_in_order: bool,
    answers: Subscriber,
    inbox: String,
    limit: Duration,
    deadline: Instant,
    /// Whether the server has read all that was sent.
    is_read: bool,
    /// Whether nothing more is sent, because it is too late or no answer can come.
    is_over: bool,
    /// Subjects by number; `None` has its result.
    under_way: Vec<Option<Subject>>,
    count: usize,
    denials: Denials,
    /// Hears of what is denied while an answer is waited for.
    answers_denied: Denials,
    results: Vec<Option<Result<PublishAck>>>,
}

impl<'a> Pipeline<'a> {
    fn new(
        connection: &'a Connection,
        is_in_order: bool,
        answers: Subscriber,
        inbox: String,
        limit: Duration,
        deadline: Instant,
    ) -> Self {
        let (denials, answers_denied) = (connection.denials(), connection.denials());
        let (under_way, results) = (Vec::new(), Vec::new());
        let (count, is_read, is_over) = (0, false, false);
        Self {
            connection,
            is_in_order,
            answers,
            inbox,
            limit,
            deadline,
            is_read,
            is_over,
            under_way,
            count,
            denials,
            answers_denied,
            results,
        }
    }

    async fn run(mut self, messages: Vec<Outgoing>) -> Vec<Result<PublishAck>> {
        self.results.resize_with(messages.len(), || None);
        self.under_way.resize(messages.len(), None);
        for (index, message) in messages.into_iter().enumerate() {
            self.take_what_is_there();
            if self.count >= WINDOW {
                self.wait_until(WINDOW / 2).await;
            }
            if self.is_over {
                self.results[index] = Some(Err(self.unsent(message.subject())));
            } else {
                self.send(index, message).await;
            }
        }
        self.wait_for_the_rest().await;
        self.results.into_iter().flatten().collect()
    }

    async fn send(&mut self, index: usize, message: Outgoing) {
        let message = if message.is_for_later() {
            match later::waiting(self.connection, message) {
                Ok(waiting) => waiting,
                Err(error) => {
                    self.results[index] = Some(Err(error));
                    return;
                }
            }
        } else {
            message
        };
        let (subject, headers, payload) = message.into_parts();
        let reply = format!("{}.{index}", self.inbox);
        let client = self.connection.client();
        let sending = async {
            if headers.is_empty() {
                client.publish_with_reply(subject.clone(), reply, payload).await
            } else {
                client.publish_with_reply_and_headers(subject.clone(), reply, headers, payload).await
            }
        };
        // While the link is down, what async-nats buffers fills up and sending would wait forever.
        match timeout_at(self.deadline, sending).await {
            Ok(Ok(())) => {
                self.under_way[index] = Some(subject);
                self.count += 1;
            }
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    async_nats::PublishErrorKind::MaxPayloadExceeded => ErrorKind::TooLarge,
                    _ => ErrorKind::Closed,
                };
                let text = format!("The message for {subject} could not be sent: {error}.");
                self.results[index] = Some(Err(Error::new(kind, text).because(error)));
            }
            Err(_) => {
                self.is_over = true;
                self.results[index] = Some(Err(self.unsent(&subject)));
            }
        }
    }

    /// The error of a message that was certainly not stored.
    fn unsent(&self, subject: &str) -> Error {
        if let Err(error) = self.connection.check_answers() {
            return error;
        }
        let text = format!(
            "The message for {subject} was not sent: the timeout of {:?} for all messages ended first. Publish it \
             again, publish fewer at once, or allow more time.",
            self.limit
        );
        Error::new(self.silence(), text)
    }

    fn silence(&self) -> ErrorKind {
        if self.is_in_order && !self.is_read { ErrorKind::Disconnected } else { ErrorKind::Unconfirmed }
    }

    fn take_what_is_there(&mut self) {
        while let Some(Some(answer)) = self.answers.next().now_or_never() {
            self.note(&answer);
        }
    }

    async fn wait_for_the_rest(&mut self) {
        let (connection, deadline) = (self.connection, self.deadline);
        let mut reading = pin!(async move {
            sleep(CONFIRM_GRACE).await;
            connection.flush(deadline.saturating_duration_since(Instant::now())).await?;
            // What it denies, it says before it has read what follows, but another task hears of it.
            sleep(CONFIRM_GRACE).await;
            Ok::<_, Error>(())
        });
        tokio::select! {
            biased;
            () = self.wait_until(0) => return,
            Ok(()) = &mut reading => {}
        }
        self.is_read = true;
        self.give_up_denied();
        self.wait_until(0).await;
    }

    /// Waits until no more than `most` are under way; what stays silent for too long is given up.
    async fn wait_until(&mut self, most: usize) {
        while self.count > most {
            let denied = self.connection.until_answers_are_denied(&mut self.answers_denied);
            let lost = until_lost(self.connection, self.is_in_order);
            let answer = async {
                tokio::select! {
                    biased;
                    answer = self.answers.next() => answer,
                    () = denied => None,
                    () = lost => None,
                }
            };
            let Ok(Some(answer)) = timeout_at(self.deadline, answer).await else {
                self.is_over = true;
                self.give_up();
                return;
            };
            self.note(&answer);
            self.take_what_is_there();
        }
    }

    fn give_up(&mut self) {
        self.give_up_denied();
        let are_answers_denied = self.connection.check_answers().is_err();
        let silence = self.silence();
        for (subject, result) in self.under_way.iter_mut().zip(&mut self.results) {
            if let Some(subject) = subject.take() {
                *result = Some(Err(match silence {
                    _ if are_answers_denied => no_answers("it is unknown whether the message was stored"),
                    ErrorKind::Disconnected => unknown(&subject),
                    _ => unconfirmed(&subject, self.limit),
                }));
            }
        }
        self.count = 0;
    }

    fn give_up_denied(&mut self) {
        let denials = self.denials.so_far();
        for (under_way, result) in self.under_way.iter_mut().zip(&mut self.results) {
            let Some(subject) = under_way else { continue };
            let denial = Denial { permission: Permission::Publish, subject: subject.to_string() };
            if denials.contains(&denial) {
                *under_way = None;
                *result = Some(Err(denial.error()));
                self.count -= 1;
            }
        }
    }

    fn note(&mut self, answer: &async_nats::Message) {
        let index =
            answer.subject.strip_prefix(self.inbox.as_str()).and_then(|rest| rest.get(1..)?.parse().ok());
        let Some(index): Option<usize> = index else { return };
        let Some(subject) = self.under_way.get_mut(index).and_then(Option::take) else { return };
        self.count -= 1;
        let result = match answer.status {
            Some(StatusCode::NO_RESPONDERS) => Err(no_stream(&subject)),
            _ => read_ack(&subject, &answer.payload),
        };
        self.results[index] = Some(result);
    }
}
