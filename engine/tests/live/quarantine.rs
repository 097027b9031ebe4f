//! Messages whose headers break the connection end as dead letters, and their neighbours are handled.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nats_consumer::{ConsumerOptions, Exhausted, consume};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{PATIENCE, Seen, Stage, eventually, pull, push};

/// Publishes header bytes that no client library would send.
async fn publish_raw(stage: &Stage, headers: &[u8], payload: &str) {
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
async fn one_in_a_stream_that_was_made_anew_is_found_though_its_sequence_was_looked_at_before() {
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
