//! Messages whose headers break the connection end as dead letters, and their neighbours are handled.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nats_consumer::{ConsumerOptions, Exhausted, HandlerError, consume};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{PATIENCE, Seen, Stage, delays, eventually, pull, push};

/// Publishes header bytes that no client library would send.
pub(crate) async fn publish_raw(stage: &Stage, headers: &[u8], payload: &str) {
    let before = stage.stored("orders").await;
    let address = stage.server.url().trim_start_matches("nats://").to_owned();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let block = [b"NATS/1.0\r\n", headers, b"\r\n\r\n"].concat();
    let line = format!("HPUB orders.created {} {}\r\n", block.len(), block.len() + payload.len());
    let connect = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n";
    let whole = [connect.as_slice(), line.as_bytes(), &block, payload.as_bytes(), b"\r\nPING\r\n"].concat();
    socket.write_all(&whole).await.unwrap();
    let mut answer = Vec::new();
    let pong = async {
        while !answer.ends_with(b"PONG\r\n") {
            assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(PATIENCE, pong).await.unwrap();
    eventually("the raw message is stored", async || stage.stored("orders").await > before).await;
}

async fn is_put_away(options: ConsumerOptions, headers: &[u8]) {
    let stage = Stage::set().await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(2), ..options };
    stage.publish(0..3).await;
    publish_raw(&stage, headers, "poison").await;
    stage.publish(3..6).await;

    let seen = Seen::default();
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    seen.covers(0..6).await;
    let letter = letters.next().await;
    stage.all_settled().await;
    stage.publish(6..9).await;
    seen.covers(0..9).await;
    consumption.drain(Duration::ZERO).await;

    assert_eq!(letter.payload, "poison");
    let kept = letter.headers.unwrap();
    let raw = STANDARD.decode(kept.get("Dlq-Headers").unwrap().as_str()).unwrap();
    assert_eq!(raw, [b"NATS/1.0\r\n", headers, b"\r\n\r\n"].concat());
    assert_eq!(kept.get("Dlq-Sequence").unwrap().as_str(), "4");
    eventually("the copy is stored once", async || stage.stored("orders-dlq").await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_carriage_return_in_a_header_ends_as_a_dead_letter() {
    is_put_away(pull(), b"Trace: a\rb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_bytes_that_are_no_text_end_as_a_dead_letter() {
    is_put_away(pull(), b"Trace: \xff\xfe").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_line_without_a_colon_ends_as_a_dead_letter() {
    is_put_away(ConsumerOptions { exhausted: Exhausted::DeadLetter, ..pull() }, b"no colon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_survives_them_too() {
    is_put_away(push(), b"two words: x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_a_recreated_stream_is_found_though_its_sequence_was_looked_at_before() {
    let stage = Stage::set().await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(2), ..pull() };
    stage.publish(0..6).await;
    publish_raw(&stage, b"no colon", "first").await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    assert_eq!(letters.next().await.payload, "first");
    stage.all_settled().await;

    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    stage.create_stream("orders", &["orders.>"]).await;
    publish_raw(&stage, b"no colon", "second").await;
    stage.publish(6..9).await;
    assert_eq!(letters.next().await.payload, "second");
    seen.covers(0..9).await;
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_put_away_is_found_again_when_its_durable_is_recreated() {
    let stage = Stage::set().await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(2), ..pull() };
    let mut letters = stage.hear("dlq.orders.billing").await;
    publish_raw(&stage, b"no colon", "poison").await;
    let first = consume(stage.address(), options.clone(), Seen::default().and_ack()).await.unwrap();
    assert_eq!(letters.next().await.payload, "poison");
    eventually("it has its mark", async || stage.stored("orders-marks").await == 1).await;
    first.drain(Duration::from_secs(1)).await;

    stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;
    let _second = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    assert_eq!(letters.next().await.payload, "poison");
    stage.all_settled().await;
}

/// A message that waits an hour for its retry holds the ack floor below everything behind it.
async fn hold_the_floor(stage: &Stage) -> ConsumerOptions {
    let options =
        ConsumerOptions { ack_wait: Duration::from_secs(2), retry: delays(9, &[3_600_000]), ..pull() };
    let failing = Seen::default().and(|_, _| Err::<(), _>(HandlerError::from("later")));
    stage.publish(0..1).await;
    let consumption = consume(stage.address(), options.clone(), failing).await.unwrap();
    eventually("it waits", async || consumption.counters().retried == 1).await;
    consumption.drain(Duration::from_secs(1)).await;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn one_far_above_a_message_that_waits_for_a_retry_is_found() {
    let stage = Stage::set().await;
    let options = hold_the_floor(&stage).await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    stage.publish(1..700).await;
    seen.covers(1..700).await;
    publish_raw(&stage, b"no colon", "poison").await;
    assert_eq!(letters.next().await.payload, "poison");
    stage.publish(700..701).await;
    seen.covers(1..701).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_put_away_is_not_put_away_again_by_the_next_worker() {
    let mut stage = Stage::set().await;
    let options = hold_the_floor(&stage).await;
    let window =
        json!({ "name": "orders-dlq", "subjects": ["dlq.orders.>"], "duplicate_window": 100_000_000 });
    stage.api("STREAM.CREATE.orders-dlq", &window).await;
    publish_raw(&stage, b"no colon", "poison").await;
    let first = consume(stage.address(), options.clone(), Seen::default().and_ack()).await.unwrap();
    eventually("it is kept", async || stage.stored("orders-dlq").await == 1).await;
    first.drain(Duration::from_secs(1)).await;

    let seen = Seen::default();
    let second = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    // The second loss in a row may have been by a message.
    for _ in 0..2 {
        let before = second.counters().repairs;
        stage.server.restart().await.unwrap();
        eventually("it is back", async || second.counters().repairs > before).await;
    }
    stage.publish(1..2).await;
    seen.covers(1..2).await;
    assert_eq!(stage.stored("orders-dlq").await, 1);
}
