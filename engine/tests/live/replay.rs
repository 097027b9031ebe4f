//! A dead letter comes back as the message it was, once, and goes only when that is stored.

use async_nats::HeaderMap;
use nats_consumer::dead_letters::{delete, get};
use nats_consumer::replay::{replay, replay_many};
use nats_consumer::testing::NatsServer;
use nats_consumer::{
    Connection, ConsumerOptions, DeadLetters, ErrorKind, Message, Outcome, Selection, StoredLetter, consume,
};
use serde_json::{Value, json};

use crate::stage::{SOON, Seen, Stage, eventually, pull};

/// Gives up what is published to `orders` until there are as many dead letters.
async fn give_up(stage: &Stage, count: u64) {
    let giving_up = Seen::default().and(|_, _| Outcome::DeadLetter { reason: "given up".into() });
    let consumption = consume(stage.address(), pull(), giving_up).await.unwrap();
    eventually("all are dead letters", async || stage.stored("orders-dlq").await == count).await;
    stage.all_settled().await;
    consumption.drain(SOON).await;
}

async fn connected(stage: &Stage) -> Connection {
    Connection::open(&stage.address()).await.unwrap()
}

async fn letters(connection: &Connection, selection: Selection) -> Vec<StoredLetter> {
    let mut open = DeadLetters::open(connection, "orders", selection).await.unwrap();
    let mut letters = Vec::new();
    while let Some(letter) = open.next().await.unwrap() {
        letters.push(letter);
    }
    letters
}

async fn first(connection: &Connection) -> StoredLetter {
    letters(connection, Selection::default()).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_message_is_the_one_it_was_and_no_duplicate_to_the_server() {
    let stage = Stage::set().await;
    let mut headers = HeaderMap::new();
    headers.insert("Trace", "abc");
    headers.append("Tag", "one");
    headers.append("Tag", "two");
    headers.insert("Nats-Msg-Id", "order-1");
    headers.insert("Nats-Expected-Last-Sequence", "0");
    let payload = bytes::Bytes::from_static(b"\x00\xff{not json");
    stage.client.publish_with_headers("orders.created.eu", headers, payload.clone()).await.unwrap();
    give_up(&stage, 1).await;

    let connection = connected(&stage).await;
    let letter = first(&connection).await;
    assert_eq!((letter.subject.as_str(), letter.reason.as_str()), ("orders.created.eu", "given up"));
    assert_eq!((letter.stream.as_str(), letter.sequence, letter.consumer.as_str()), ("orders", 1, "billing"));
    let ack = replay(&connection, &letter).await.unwrap();

    assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("orders", 2, false));
    assert_eq!(stage.stored("orders-dlq").await, 0);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Message>::new()));
    let keep = seen.clone();
    let handler = Seen::default().and(move |_, message| keep.lock().unwrap().push(message.clone()));
    let _consumption = consume(stage.address(), pull(), handler).await.unwrap();
    stage.all_settled().await;
    let message = seen.lock().unwrap().remove(0);
    assert_eq!((message.subject().as_str(), message.payload()), ("orders.created.eu", &payload));
    let mut lines: Vec<_> = message.header_lines().filter(|(name, _)| *name != "Nats-Msg-Id").collect();
    lines.sort_unstable();
    let expected = [
        ("Dlq-Header-Nats-Expected-Last-Sequence", "0"),
        ("Dlq-Original-Msg-Id", "order-1"),
        ("Dlq-Replays", "1"),
        ("Tag", "one"),
        ("Tag", "two"),
        ("Trace", "abc"),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_replayed_at_once_keep_their_order_and_one_that_fails_stays() {
    let stage = Stage::set().await;
    for number in 0..100 {
        stage.client.publish(format!("orders.{number}"), "".into()).await.unwrap();
    }
    give_up(&stage, 100).await;
    let connection = connected(&stage).await;
    let mut letters = letters(&connection, Selection::default()).await;
    let mut unwanted = letters.remove(50);
    unwanted.subject = "nobody.stores.this".into();
    letters.insert(50, unwanted);
    let answers = replay_many(&connection, &letters).await.unwrap();

    let (stored, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let places: Vec<_> = stored.into_iter().map(|ack| ack.unwrap().sequence).collect();
    assert_eq!(places, (101..200).collect::<Vec<_>>());
    assert_eq!(failed.len(), 1);
    assert_eq!(stage.stored("orders-dlq").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_repeated_is_stored_once() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    give_up(&stage, 1).await;
    let connection = connected(&stage).await;
    let letter = first(&connection).await;
    assert!(!replay(&connection, &letter).await.unwrap().duplicate);
    // As when the first confirmation was lost.
    assert!(replay(&connection, &letter).await.unwrap().duplicate);
    assert_eq!(stage.stored("orders").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_stays_when_no_stream_takes_its_message() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    give_up(&stage, 1).await;
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    let connection = connected(&stage).await;
    let error = replay(&connection, &first(&connection).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStream);
    assert_eq!(stage.stored("orders-dlq").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_was_kept_apart_is_replayed_and_deleted_with_its_dead_letter() {
    let stage = Stage::set_on(NatsServer::builder().config("max_payload: 4096")).await;
    let payload = vec![b'x'; 4096];
    stage.client.publish("orders.created", payload.clone().into()).await.unwrap();
    give_up(&stage, 2).await; // with its payload
    let connection = connected(&stage).await;
    let letter = first(&connection).await;
    assert_eq!(letter.payload, None);
    // As a work queue would: what is ended there is gone.
    stage.api("STREAM.PURGE.orders", &Value::Null).await;
    replay(&connection, &letter).await.unwrap();
    assert_eq!(stage.stored("orders-dlq").await, 0);
    let again = Seen::default();
    let _consumption = consume(stage.address(), pull(), again.and_ack()).await.unwrap();
    again.reaches(1).await;
    assert_eq!(again.payloads(), [String::from_utf8(payload).unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_were_kept_apart_are_replayed_and_deleted_with_their_dead_letter() {
    let stage = Stage::set().await;
    let mut headers = HeaderMap::new();
    headers.insert("Large", "x".repeat(65_500));
    stage.client.publish_with_headers("orders.created", headers.clone(), "{}".into()).await.unwrap();
    give_up(&stage, 2).await; // with its headers
    let connection = connected(&stage).await;
    let mut again = stage.hear("orders.created").await;
    replay(&connection, &first(&connection).await).await.unwrap();
    assert_eq!(stage.stored("orders-dlq").await, 0);
    let message = again.next().await;
    assert_eq!(message.headers.unwrap().get("Large"), headers.get("Large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_gone_is_named_and_its_dead_letter_stays() {
    let stage = Stage::set_on(NatsServer::builder().config("max_payload: 4096")).await;
    let publish = async || stage.client.publish("orders.created", vec![b'x'; 4000].into()).await.unwrap();
    publish().await;
    give_up(&stage, 2).await; // with its payload
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    let connection = connected(&stage).await;
    let letter = first(&connection).await;
    stage.api("STREAM.PURGE.orders-dlq", &json!({ "filter": "dlq.orders.billing.payload.>" })).await;
    assert_eq!(replay(&connection, &letter).await.unwrap_err().kind(), ErrorKind::NotReplayable);
    // Another message has its sequence and its subject now.
    stage.create_stream("orders", &["orders.>"]).await;
    publish().await;
    eventually("it is stored", async || stage.stored("orders").await == 1).await;
    assert_eq!(replay(&connection, &letter).await.unwrap_err().kind(), ErrorKind::NotReplayable);
    assert_eq!(stage.stored("orders-dlq").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_a_dead_letter_meanwhile_is_not_among_the_open_ones() {
    let stage = Stage::set().await;
    stage.publish(0..3).await;
    give_up(&stage, 3).await;
    let connection = connected(&stage).await;
    let mut open = DeadLetters::open(&connection, "orders", Selection::default()).await.unwrap();
    let mut numbers = vec![open.next().await.unwrap().unwrap().number];
    stage.publish(3..5).await;
    give_up(&stage, 5).await;
    while let Some(letter) = open.next().await.unwrap() {
        numbers.push(letter.number);
    }
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_found_by_its_number_and_deleted_by_itself() {
    let stage = Stage::set().await;
    stage.publish(0..3).await;
    give_up(&stage, 3).await;
    let connection = connected(&stage).await;
    let letter = get(&connection, "orders", 2).await.unwrap().unwrap();
    delete(&connection, &letter).await.unwrap();
    delete(&connection, &letter).await.unwrap();
    assert_eq!(get(&connection, "orders", 2).await.unwrap(), None);
    let left = letters(&connection, Selection::default()).await;
    assert_eq!(left.iter().map(|letter| letter.number).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_of_one_consumer_are_found_among_those_of_others() {
    let stage = Stage::set().await;
    stage.publish(0..2).await;
    give_up(&stage, 2).await;
    let giving_up = Seen::default().and(|_, _| Outcome::DeadLetter { reason: "not for me".into() });
    let mailing = ConsumerOptions::pull("orders", "mailing");
    let _consumption = consume(stage.address(), mailing, giving_up).await.unwrap();
    eventually("all are dead letters", async || stage.stored("orders-dlq").await == 4).await;
    let connection = connected(&stage).await;
    let of = async |consumer: &str, reason: Option<&str>| {
        let selection = Selection::default().consumer(consumer).reason(reason.unwrap_or_default());
        letters(&connection, selection).await.len()
    };
    assert_eq!((of("billing", None).await, of("mailing", Some("not for")).await), (2, 2));
    assert_eq!((of("nobody", None).await, of("mailing", Some("given up")).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_dead_letters_has_none_and_an_unknown_stream_is_an_error() {
    let stage = Stage::set().await;
    let connection = connected(&stage).await;
    assert_eq!(letters(&connection, Selection::default()).await, []);
    let unknown = DeadLetters::open(&connection, "oders", Selection::default()).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::StreamNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_only_the_servers_may_write_hinder_neither_dead_letter_nor_replay() {
    let stage = Stage::set().await;
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    stage.create_stream("shop", &["shop.>"]).await;
    let sourcing = json!({ "name": "orders", "subjects": ["orders.>"], "sources": [{ "name": "shop" }] });
    stage.api("STREAM.CREATE.orders", &sourcing).await;
    stage.client.publish("shop.sold", "one".into()).await.unwrap();
    eventually("it has arrived", async || stage.stored("orders").await == 1).await;
    give_up(&stage, 1).await;
    let connection = connected(&stage).await;
    let ack = replay(&connection, &first(&connection).await).await.unwrap();
    assert_eq!(ack.stream, "shop", "it goes where it was published first");
}
