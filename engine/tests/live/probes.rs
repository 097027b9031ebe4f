//! Probes and metrics of a Rust program.

use std::net::SocketAddr;
use std::time::Duration;

use nats_consumer::observe::{Metrics, Probes};
use nats_consumer::{ErrorKind, Message, consume, consume_observed};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{Seen, Stage, eventually, pull, within};

/// The answer to a request, with its head.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn probes(metrics: &Metrics, address: &str) -> Probes {
    Probes::start(metrics.clone(), address, Duration::ZERO).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_ready_while_it_consumes_and_counts_what_it_does() {
    let stage = Stage::set().await;
    let metrics = Metrics::default();
    let probes = probes(&metrics, "127.0.0.1:0");
    let address = probes.bound().await.unwrap();
    assert!(get(address, "/readyz").await.ends_with("No consumer is declared.\n"));
    let seen = Seen::default();
    let consumption = consume_observed(stage.address(), pull(), seen.and_ack(), &metrics).await.unwrap();
    eventually("it is ready", async || get(address, "/readyz").await.starts_with("HTTP/1.1 200")).await;
    stage.publish(0..3).await;
    stage.all_settled().await;
    let line = r#"nats_consumer_settled_total{consumer="billing",handler="handle",outcome="ack"} 3"#;
    assert!(get(address, "/metrics").await.contains(line));
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    eventually("it says why", async || {
        let answer = get(address, "/readyz").await;
        answer.starts_with("HTTP/1.1 503") && answer.contains("[-] billing no stream")
    })
    .await;
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    consumption.drain(Duration::from_secs(1)).await;
    assert!(get(address, "/readyz").await.contains("billing stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_used_when_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let probes = probes(&Metrics::default(), &address.to_string());
    assert_eq!(probes.address(), None);
    drop(taken);
    within(Duration::from_secs(10), "it answers", async || probes.address() == Some(address)).await;
    drop(probes);
    assert!(TcpStream::connect(address).await.is_err(), "dropped, it answers no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumption_without_metrics_has_a_state_too() {
    let stage = Stage::set().await;
    let consumption = consume(stage.address(), pull(), async |_: Message| ()).await.unwrap();
    eventually("it consumes", async || consumption.status().is_ready(Duration::ZERO)).await;
    let elsewhere = nats_consumer::ConsumerOptions::pull("letters", "billing");
    let started = consume(stage.address(), elsewhere, async |_: Message| ()).await;
    assert_eq!(started.unwrap_err().kind(), ErrorKind::StreamNotFound);
}
