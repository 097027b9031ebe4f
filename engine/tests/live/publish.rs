//! Publishing: confirmed, refused, or told quickly that it cannot be.

use std::time::{Duration, SystemTime};

use nats_consumer::publish::publish;
use nats_consumer::{Connection, ErrorKind, Outgoing, Publisher};
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{SOON, Stage, eventually};

fn order(payload: &'static [u8]) -> Outgoing {
    Outgoing::to("orders.created", payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_counts_when_the_stream_has_it() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let outgoing = || order(b"{}").header("Nats-Msg-Id", "1").unwrap();
    let ack = publish(&connection, outgoing(), SOON).await.unwrap();
    assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("orders", 1, false));
    let again = publish(&connection, outgoing(), SOON).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(stage.stored("orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_refused_and_nothing_is_stored() {
    let stage = Stage::set().await;
    for subject in ["orders.*", "orders.>", "orders..x", "orders created", ""] {
        let error = Outgoing::to(subject, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{subject:?}");
    }
    assert_eq!(stage.stored("orders").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_no_stream_has_is_said_at_once() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let began = Instant::now();
    let error = publish(&connection, Outgoing::to("invoices.sent", "").unwrap(), SOON * 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStream);
    assert!(error.to_string().contains("invoices.sent"), "{error}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_before_it_is_sent() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let outgoing = Outgoing::to("orders.created", vec![b'x'; 2 * 1024 * 1024]).unwrap();
    let error = publish(&connection, outgoing, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(connection.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_without_a_connection_answers_quickly_and_works_again_later() {
    let mut stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    stage.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !connection.is_up()).await;
    let began = Instant::now();
    let error = publish(&connection, order(b"lost"), SOON * 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    stage.server.restart().await.unwrap();
    eventually("it works again", async || publish(&connection, order(b"{}"), SOON).await.is_ok()).await;
    assert_eq!(stage.stored("orders").await, 1, "what was refused is not sent later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_waited_for_no_longer_than_asked() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    stage.server.pause().unwrap();
    let began = Instant::now();
    let error = publish(&connection, order(b"{}"), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_limit_a_frozen_server_is_waited_for_a_few_seconds() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address());
    publisher.publish(order(b"1"), None).await.unwrap();
    stage.server.pause().unwrap();
    let began = Instant::now();
    let error = publisher.publish(order(b"2"), None).await.unwrap_err();
    stage.server.resume().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(began.elapsed() < SOON * 3, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_published_under_a_limit_that_no_clock_can_tell() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address());
    let results = publisher.publish_many(vec![order(b"1"), order(b"2")], Duration::MAX).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(stage.stored("orders").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_later_waits_apart_and_is_published_at_its_time() {
    let stage = Stage::set().await;
    let config = json!({
        "name": "reminders", "subjects": ["reminders.>", "_later.*.reminders.>"],
        "allow_msg_schedules": true, "allow_msg_ttl": true,
    });
    stage.api("STREAM.CREATE.reminders", &config).await;
    let publisher = Publisher::new(stage.address());
    let outgoing = |number: &str| Outgoing::to("reminders.7", "").unwrap().id(number).unwrap();
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    publisher.publish(outgoing("later").at(tomorrow).unwrap(), SOON).await.unwrap();
    let due = ["1", "2"].map(|number| outgoing(number).at(SystemTime::now()).unwrap().ttl(SOON * 100));
    let stored = publisher.publish_many(due.to_vec(), SOON).await.unwrap();
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let subjects = async || {
        let asked = json!({ "subjects_filter": ">" });
        stage.api("STREAM.INFO.reminders", &asked).await["state"]["subjects"].clone()
    };
    let expected = json!({ "_later.later.reminders.7": 1, "reminders.7": 2 });
    eventually("those that are due are published", async || subjects().await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_place_for_later_is_told_what_it_needs() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address());
    let outgoing = order(b"{}").at(SystemTime::now()).unwrap();
    let error = publisher.publish(outgoing, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStream);
    assert!(error.to_string().contains("\"_later.*.orders.>\" beside \"orders.>\""), "{error}");
}
