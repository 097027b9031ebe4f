//! The stage of the tests: a server with the stream `orders`, observers, and handlers that remember.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::{FutureExt, StreamExt};
use nats_consumer::testing::{NatsServer, NatsServerBuilder};
use nats_consumer::{
    ConnectOptions, ConsumerOptions, Delivery, Handler, Inbox, IntoOutcome, Message, RetryPolicy, Schedule,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long may pass until what happens "at once" is seen.
pub(crate) const SOON: Duration = Duration::from_secs(3);

pub(crate) struct Stage {
    pub(crate) server: NatsServer,
    /// A connection beside the engine's own.
    pub(crate) client: Client,
}

impl Stage {
    /// A server with the empty stream `orders`.
    pub(crate) async fn set() -> Self {
        Self::set_on(NatsServer::builder()).await
    }

    pub(crate) async fn set_on(builder: NatsServerBuilder) -> Self {
        let server = builder.start().await.unwrap();
        let client = server.client().await.unwrap();
        let stage = Self { server, client };
        stage.create_stream("orders", &["orders.>"]).await;
        stage
    }

    pub(crate) async fn create_stream(&self, name: &str, subjects: &[&str]) {
        let config = json!({ "name": name, "subjects": subjects });
        self.api(&format!("STREAM.CREATE.{name}"), &config).await;
    }

    /// How to reach the server; after an outage at once.
    pub(crate) fn address(&self) -> ConnectOptions {
        ConnectOptions {
            reconnect_wait: Duration::from_millis(100),
            ..ConnectOptions::to([self.server.url()])
        }
    }

    /// How to reach the server by a way on which everything that a client says takes so much longer.
    pub(crate) async fn slow_address(&self, delay: Duration) -> ConnectOptions {
        let server = self.server.url().trim_start_matches("nats://").parse().unwrap();
        let way = slow_way_to(server, delay).await;
        ConnectOptions { servers: vec![format!("nats://{way}").into()], ..self.address() }
    }

    /// The answer of the JetStream API, which must not be an error.
    pub(crate) async fn api(&self, subject: &str, body: &Value) -> Value {
        let answer = self.ask(subject, body).await;
        assert_eq!(answer["error"], Value::Null, "{subject}");
        answer
    }

    /// The answer of the JetStream API.
    pub(crate) async fn ask(&self, subject: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.client.request(format!("$JS.API.{subject}"), body.into()).await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }

    /// Publishes the numbers of `range` to `orders.created`, and waits until they are stored.
    pub(crate) async fn publish(&self, range: std::ops::Range<usize>) {
        let before = self.stored("orders").await;
        let count = range.len() as u64;
        for number in range {
            self.client.publish("orders.created", number.to_string().into()).await.unwrap();
        }
        self.client.flush().await.unwrap();
        eventually("everything is stored", async || self.stored("orders").await == before + count).await;
    }

    /// How many messages the stream holds; none where there is no such stream.
    pub(crate) async fn stored(&self, stream: &str) -> u64 {
        let info = self.ask(&format!("STREAM.INFO.{stream}"), &Value::Null).await;
        info["state"]["messages"].as_u64().unwrap_or_default()
    }

    /// The server's state of the durable `billing`.
    pub(crate) async fn billing(&self) -> Value {
        self.ask("CONSUMER.INFO.orders.billing", &Value::Null).await
    }

    /// Makes the durable `billing` as an older version of something might have.
    pub(crate) async fn create_durable(&self, name: &str, mut config: Value) {
        config["durable_name"] = name.into();
        let body = json!({ "stream_name": "orders", "config": config });
        self.api(&format!("CONSUMER.DURABLE.CREATE.orders.{name}"), &body).await;
    }

    /// Waits until the server has nothing left for `billing`, neither to deliver nor to hear of.
    pub(crate) async fn all_settled(&self) {
        eventually("everything is settled", async || {
            let billing = self.billing().await;
            billing["num_pending"] == 0 && billing["num_ack_pending"] == 0
        })
        .await;
    }

    /// Hears every word that consumers say about the deliveries of `billing`.
    pub(crate) async fn hear_settlements(&self) -> Heard {
        Heard { hears_signs: false, ..self.hear("$JS.ACK.orders.billing.>").await }
    }

    /// Hears what anybody publishes to `subject`.
    pub(crate) async fn hear(&self, subject: &str) -> Heard {
        let subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        // The server has the subscription when it has answered what was sent behind it.
        self.ask("INFO", &Value::Null).await;
        Heard { subscriber, hears_signs: true }
    }
}

/// The heartbeat for no message, by which a worker asks whether its durable is there.
pub(crate) const SIGNS: &str = "$JS.ACK.orders.billing.1.4611686018427387904.>";

/// Messages that were published to a subject.
pub(crate) struct Heard {
    subscriber: Subscriber,
    hears_signs: bool,
}

impl Heard {
    /// The next message.
    pub(crate) async fn next(&mut self) -> async_nats::Message {
        loop {
            let message =
                timeout(PATIENCE, self.subscriber.next()).await.expect("nothing was published").unwrap();
            if self.counts(&message) {
                return message;
            }
        }
    }

    /// Hears no more.
    pub(crate) async fn stop(mut self) {
        self.subscriber.unsubscribe().await.unwrap();
    }

    /// The payloads until now.
    pub(crate) fn so_far(&mut self) -> Vec<String> {
        let mut payloads = Vec::new();
        while let Some(Some(message)) = self.subscriber.next().now_or_never() {
            if self.counts(&message) {
                payloads.push(String::from_utf8_lossy(&message.payload).into_owned());
            }
        }
        payloads
    }

    fn counts(&self, message: &async_nats::Message) -> bool {
        self.hears_signs || !message.subject.starts_with(SIGNS.trim_end_matches('>'))
    }
}

/// The pull consumer `billing`: three attempts, 50 and 100 ms apart.
pub(crate) fn pull() -> ConsumerOptions {
    ConsumerOptions { retry: delays(3, &[50, 100]), ..ConsumerOptions::pull("orders", "billing") }
}

/// The push consumer `billing`: three attempts, 50 and 100 ms apart.
pub(crate) fn push() -> ConsumerOptions {
    ConsumerOptions { retry: delays(3, &[50, 100]), ..ConsumerOptions::push("orders", "billing") }
}

pub(crate) fn delays(attempts: u64, millis: &[u64]) -> RetryPolicy {
    let delays = millis.iter().copied().map(Duration::from_millis).collect();
    RetryPolicy::new(attempts, Schedule::Delays(delays)).unwrap()
}

/// The attempts that a handler saw, each with its payload, its number and its time.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<(String, u64, Instant)>>>);

impl Seen {
    /// A handler that remembers each message and says of it what `answer` says, given the attempt's number.
    pub(crate) fn and<T: IntoOutcome + Send>(
        &self,
        answer: impl Fn(u64, &Message) -> T + Send + Sync + 'static,
    ) -> impl Handler {
        let seen = self.clone();
        move |message: Message| std::future::ready(answer(seen.note(&message), &message))
    }

    /// A handler that remembers each message and succeeds.
    pub(crate) fn and_ack(&self) -> impl Handler {
        self.and(|_, _| ())
    }

    /// A handler that remembers each message and never ends.
    pub(crate) fn and_hang(&self) -> impl Handler {
        let seen = self.clone();
        move |message: Message| {
            seen.note(&message);
            std::future::pending::<()>()
        }
    }

    /// Remembers the message; returns the number of the attempt.
    pub(crate) fn note(&self, message: &Message) -> u64 {
        let attempt = message.metadata().unwrap().delivered;
        self.0.lock().unwrap().push((text(message), attempt, Instant::now()));
        attempt
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn attempts(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().map(|(_, attempt, _)| *attempt).collect()
    }

    /// The payloads in their order, repeats included.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(payload, ..)| payload.clone()).collect()
    }

    /// The payloads as numbers, sorted.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        let mut numbers: Vec<_> = self.payloads().iter().map(|text| text.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The times between one attempt and the next.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        let seen = self.0.lock().unwrap();
        seen.windows(2).map(|pair| pair[1].2 - pair[0].2).collect()
    }

    pub(crate) async fn reaches(&self, count: usize) {
        eventually(&format!("{count} attempts"), async || self.count() >= count).await;
    }

    /// Waits until each of the numbers was seen at least once.
    pub(crate) async fn covers(&self, range: std::ops::Range<usize>) {
        let all: Vec<_> = range.collect();
        eventually("each number is seen", async || {
            let mut numbers = self.numbers();
            numbers.dedup();
            numbers == all
        })
        .await;
    }
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// An inbox whose deliveries nobody handles: the test settles them.
#[derive(Debug, Default)]
pub(crate) struct Basket(Mutex<Vec<Delivery>>);

impl Basket {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Takes the oldest delivery, waiting for it.
    pub(crate) async fn take(&self) -> Delivery {
        eventually("a delivery", async || self.count() > 0).await;
        self.0.lock().unwrap().remove(0)
    }
}

impl Inbox for Basket {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        self.0.lock().unwrap().append(deliveries);
    }

    fn waiting(&self) -> usize {
        self.count()
    }

    fn recall(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn cancel(&self) {}

    fn close(&self) {}
}

/// Waits, at most [`PATIENCE`], until the condition holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, holds).await;
}

/// Waits, at most `limit`, until the condition holds.
pub(crate) async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Forwards one connection after the other to the server, and lets what a client says wait on its way.
async fn slow_way_to(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            let ((mut says, mut hears), (mut answers, mut asks)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { copy(&mut answers, &mut hears).await });
            tokio::spawn(async move {
                let mut said = vec![0; 65536];
                while let Ok(size @ 1..) = says.read(&mut said).await {
                    tokio::time::sleep(delay).await;
                    asks.write_all(&said[..size]).await.unwrap();
                }
            });
        }
    });
    address
}
