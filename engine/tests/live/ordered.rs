//! A stream read in order, each message once.

use std::time::Duration;

use nats_consumer::subscribe::{Ordered, Subscription, subscribe_in_order};
use nats_consumer::{Connection, ErrorKind};
use serde_json::Value;
use tokio::time::timeout;

use crate::stage::{PATIENCE, Stage, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_consumer_is_recreated_behind_the_last_message() {
    let (stage, connection) = connected().await;
    let subscription = subscribe_in_order(&connection, orders()).await.unwrap();
    stage.publish(0..10).await;
    assert_eq!(numbers(&subscription, 10).await, (0..10).collect::<Vec<_>>());
    let before = subscription.consumer().unwrap();
    stage.api(&format!("CONSUMER.DELETE.orders.{before}"), &Value::Null).await;
    stage.publish(10..20).await;
    assert_eq!(numbers(&subscription, 10).await, (10..20).collect::<Vec<_>>());
    assert_ne!(subscription.consumer().unwrap(), before);
    assert_eq!(subscription.received(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_read_on_from() {
    let (mut stage, connection) = connected().await;
    let subscription = subscribe_in_order(&connection, orders()).await.unwrap();
    stage.publish(0..10).await;
    assert_eq!(numbers(&subscription, 10).await, (0..10).collect::<Vec<_>>());
    stage.server.restart().await.unwrap();
    eventually("it is back", async || connection.is_up()).await;
    stage.publish(10..20).await;
    assert_eq!(numbers(&subscription, 10).await, (10..20).collect::<Vec<_>>());
    assert_eq!(subscription.received(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_read_again_when_there_is_room() {
    let (stage, connection) = connected().await;
    stage.publish(0..100).await;
    let few = Ordered { max_messages: 7, ..orders() };
    let subscription = subscribe_in_order(&connection, few).await.unwrap();
    eventually("it is full", async || subscription.pending().0 == 7).await;
    assert_eq!(numbers(&subscription, 100).await, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_exist_is_an_error() {
    let (_stage, connection) = connected().await;
    let nothing = Ordered { stream: "nothing".into(), ..orders() };
    let error = subscribe_in_order(&connection, nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamNotFound);
}

async fn connected() -> (Stage, Connection) {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    (stage, connection)
}

fn orders() -> Ordered {
    Ordered {
        prefix: nats_consumer::api::PREFIX.into(),
        stream: "orders".into(),
        config: Ordered::read_config(br#"{"filter_subject": "orders.>"}"#).unwrap(),
        heartbeat: Duration::from_millis(300),
        max_messages: usize::MAX,
        max_bytes: usize::MAX,
    }
}

async fn numbers(subscription: &Subscription, count: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    while taken.len() < count {
        timeout(PATIENCE, subscription.ready()).await.unwrap();
        let messages = subscription.take(count - taken.len());
        taken.extend(
            messages.iter().map(|m| std::str::from_utf8(m.payload()).unwrap().parse::<usize>().unwrap()),
        );
    }
    taken
}
