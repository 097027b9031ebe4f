//! Fetching batches by hand.

use std::time::Duration;

use nats_consumer::acknowledge::{Verdict, ack_confirmed, settle};
use nats_consumer::api::PREFIX;
use nats_consumer::pull::{PullFrom, Puller};
use nats_consumer::{Connection, ErrorKind};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::stage::{PATIENCE, SOON, Stage, eventually};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_returns_what_is_there_without_waiting_for_more() {
    let (stage, _connection, puller) = pulling().await;
    stage.publish(0..7).await;
    let began = Instant::now();
    puller.fetch(100, Some(PATIENCE), None).await.unwrap();
    assert_eq!(take(&puller), 7);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_a_first_message() {
    let (stage, _connection, puller) = pulling().await;
    let puller = std::sync::Arc::new(puller);
    let waiting = tokio::spawn({
        let puller = puller.clone();
        async move { puller.fetch(100, None, None).await }
    });
    eventually("it is asked for", async || stage.billing().await["num_waiting"] == 1).await;
    stage.publish(0..1).await;
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(take(&puller), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_without_messages_ends_in_time() {
    let (_stage, _connection, puller) = pulling().await;
    let began = Instant::now();
    for batch in [1, 10] {
        let error = puller.fetch(batch, Some(SHORT), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    assert!(began.elapsed() > SHORT && began.elapsed() < SHORT * 2 + SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_fetch_asked_for_is_there_for_the_next_one() {
    let (stage, _connection, puller) = pulling().await;
    assert!(timeout(SHORT, puller.fetch(1, Some(PATIENCE), None)).await.is_err(), "cancelled");
    stage.publish(0..1).await;
    puller.fetch(1, Some(PATIENCE), None).await.unwrap();
    assert_eq!(take(&puller), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_deleted_meanwhile_is_said_at_once() {
    let (stage, _connection, puller) = pulling().await;
    let waiting = tokio::spawn(async move { puller.fetch(1, Some(PATIENCE), None).await });
    eventually("it is asked for", async || stage.billing().await["num_waiting"] == 1).await;
    stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;
    let error = timeout(SOON, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_does_not_exist_is_said_at_once() {
    let (_stage, connection, _puller) = pulling().await;
    let puller = Puller::open(&connection, from("nobody")).await.unwrap();
    let error = timeout(SOON, puller.fetch(1, Some(PATIENCE), None)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
    assert!(error.to_string().contains("`nobody`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_after_an_outage() {
    let (mut stage, connection, puller) = pulling().await;
    let waiting = tokio::spawn(async move {
        puller.fetch(1, Some(PATIENCE), None).await.unwrap();
        take(&puller)
    });
    eventually("it is asked for", async || stage.billing().await["num_waiting"] == 1).await;
    stage.server.restart().await.unwrap();
    eventually("it is back", async || connection.is_up()).await;
    stage.publish(0..1).await;
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_word_reaches_the_server() {
    let (stage, connection, puller) = pulling().await;
    stage.publish(0..3).await;
    let mut words = stage.hear_settlements().await;
    puller.fetch(3, Some(PATIENCE), None).await.unwrap();
    let messages = puller.subscription().take(3);
    settle(&connection, &messages[0], Verdict::InProgress).await.unwrap();
    settle(&connection, &messages[0], Verdict::Term("not\nfor us".into())).await.unwrap();
    settle(&connection, &messages[1], Verdict::Nak(Duration::from_secs(3600))).await.unwrap();
    ack_confirmed(&connection, &messages[2], PATIENCE).await.unwrap();
    for word in ["+WPI", "+TERM not for us", "-NAK {\"delay\":3600000000000}", "+ACK"] {
        assert_eq!(words.next().await.payload, word);
    }
}

async fn pulling() -> (Stage, Connection, Puller) {
    let stage = Stage::set().await;
    stage.create_durable("billing", json!({ "ack_policy": "explicit" })).await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let puller = Puller::open(&connection, from("billing")).await.unwrap();
    (stage, connection, puller)
}

fn from(consumer: &str) -> PullFrom {
    PullFrom {
        prefix: PREFIX.into(),
        stream: "orders".into(),
        consumer: consumer.into(),
        max_messages: usize::MAX,
        max_bytes: usize::MAX,
    }
}

fn take(puller: &Puller) -> usize {
    puller.subscription().take(usize::MAX).len()
}
