//! Subscriptions that somebody takes messages from.

use nats_consumer::publish::{request, send};
use nats_consumer::subscribe::{Interest, Statuses, Subscription, subscribe};
use nats_consumer::{Connection, ConnectionEvent, ErrorKind, Outgoing};
use serde_json::json;
use tokio::time::timeout;

use crate::stage::{PATIENCE, SOON, Stage, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_kept_in_order_until_they_are_taken() {
    let (_stage, connection) = connected().await;
    let subscription = subscribe(&connection, interest("numbers.*")).await.unwrap();
    say(&connection, "numbers.a", 0..500).await;
    eventually("everything has come", async || subscription.pending().0 == 500).await;
    assert_eq!(payloads(&subscription, 10), (0..10).collect::<Vec<_>>());
    assert_eq!(payloads(&subscription, 1000), (10..500).collect::<Vec<_>>());
    assert_eq!(subscription.pending(), (0, 0));
    assert_eq!(subscription.received(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_dropped_and_said_once() {
    let (_stage, connection) = connected().await;
    let few = Interest { max_messages: 10, ..interest("numbers.*") };
    let subscription = subscribe(&connection, few).await.unwrap();
    let mut events = connection.events().unwrap();
    say(&connection, "numbers.a", 0..100).await;
    connection.flush(SOON).await.unwrap();
    let slow = ConnectionEvent::SlowConsumer("numbers.*".into());
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Ok(slow.clone()));
    eventually("it is full", async || subscription.pending().0 == 10).await;
    assert!(events.try_recv().is_err(), "said twice");
    assert_eq!(payloads(&subscription, 100), (0..10).collect::<Vec<_>>());
    say(&connection, "numbers.a", 100..120).await;
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Ok(slow));
    assert_eq!(payloads(&subscription, 100), (100..110).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_after_as_many_messages_as_asked() {
    let (_stage, connection) = connected().await;
    let subscription = subscribe(&connection, interest("numbers.*")).await.unwrap();
    subscription.unsubscribe(Some(3));
    say(&connection, "numbers.a", 0..10).await;
    eventually("it has ended", async || subscription.has_ended()).await;
    assert_eq!(payloads(&subscription, 100), vec![0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_subscription_ends_on_the_server_too() {
    let (_stage, connection) = connected().await;
    let subscription = subscribe(&connection, interest("numbers.*")).await.unwrap();
    let ask = || Outgoing::to("numbers.a", "").unwrap();
    let heard = request(&connection, ask(), std::time::Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::Timeout, "somebody listens, and nobody answers");
    drop(subscription);
    eventually("nobody listens", async || {
        let answer = request(&connection, ask(), SOON).await;
        answer.is_err_and(|error| error.kind() == ErrorKind::NoResponders)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_survives_an_outage_and_ends_with_its_connection() {
    let (mut stage, connection) = connected().await;
    let subscription = subscribe(&connection, interest("numbers.*")).await.unwrap();
    stage.server.restart().await.unwrap();
    eventually("it is back", async || connection.is_up()).await;
    say(&connection, "numbers.a", 0..1).await;
    timeout(PATIENCE, subscription.ready()).await.unwrap();
    assert_eq!(payloads(&subscription, 10), vec![0]);
    connection.close(SOON).await;
    timeout(PATIENCE, subscription.ready()).await.unwrap();
    assert!(subscription.has_ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_is_answered_when_what_came_before_is_taken() {
    let (stage, connection) = connected().await;
    let answering = Interest { statuses: Statuses::Answered, ..interest("delivered.here") };
    let subscription = subscribe(&connection, answering).await.unwrap();
    stage.publish(0..3000).await;
    let config = json!({
        "durable_name": "pushing", "deliver_subject": "delivered.here", "ack_policy": "none",
        "flow_control": true, "idle_heartbeat": 1_000_000_000u64,
    });
    let body = json!({ "stream_name": "orders", "config": config });
    stage.api("CONSUMER.CREATE.orders.pushing", &body).await;
    // Without answers the server would stop after some hundred messages.
    let mut taken = Vec::new();
    while taken.len() < 3000 {
        timeout(PATIENCE, subscription.ready()).await.unwrap();
        taken.extend(payloads(&subscription, 100));
    }
    assert_eq!(taken, (0..3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_subject_is_refused() {
    let (_stage, connection) = connected().await;
    for subject in ["", "two words", "a..b", "a.>.b"] {
        let error = subscribe(&connection, interest(subject)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{subject:?}");
    }
}

async fn connected() -> (Stage, Connection) {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    (stage, connection)
}

fn interest(subject: &str) -> Interest {
    Interest {
        subject: subject.into(),
        queue: None,
        max_messages: usize::MAX,
        max_bytes: usize::MAX,
        statuses: Statuses::Included,
    }
}

async fn say(connection: &Connection, subject: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        send(connection, Outgoing::to(subject, number.to_string()).unwrap(), None).await.unwrap();
    }
}

fn payloads(subscription: &Subscription, most: usize) -> Vec<usize> {
    let messages = subscription.take(most);
    messages.iter().map(|m| std::str::from_utf8(m.payload()).unwrap().parse().unwrap()).collect()
}
