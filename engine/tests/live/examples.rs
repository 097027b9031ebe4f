//! The examples do what they say.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::stage::{Stage, eventually};

/// Ends the example also when its test fails.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Cargo has built it with the tests, unless it was asked for some of the tests alone.
fn start(name: &str, stage: &Stage) -> Example {
    let tests = std::env::current_exe().unwrap();
    let built: PathBuf = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    if !built.exists() {
        let build = ["build", "--quiet", "--package", "nats-consumer", "--example", name];
        assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    }
    let child = Command::new(built).arg(stage.server.url()).stdout(Stdio::piped()).spawn();
    Example(child.unwrap())
}

/// Ctrl-C; returns what the example has printed.
async fn interrupt(mut example: Example) -> String {
    let interrupt = format!("kill -s INT {}", example.0.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    eventually("the example ends", async || example.0.try_wait().unwrap().is_some()).await;
    assert!(example.0.wait().unwrap().success());
    std::io::read_to_string(example.0.stdout.take().unwrap()).unwrap()
}

async fn durable_settles(stage: &Stage, durable: &str) {
    eventually("everything is settled", async || {
        let info = stage.ask(&format!("CONSUMER.INFO.orders.{durable}"), &Value::Null).await;
        info["num_pending"] == 0 && info["num_ack_pending"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_consumes_until_it_is_interrupted() {
    let stage = Stage::set().await;
    stage.client.publish("orders.created", r#"{"id": 7}"#.into()).await.unwrap();
    stage.client.publish("orders.paid", "7".into()).await.unwrap();
    let example = start("hello", &stage);
    durable_settles(&stage, "hello").await;
    let printed = interrupt(example).await;
    for line in ["created: {\"id\":7}", "something else: orders.paid"] {
        assert!(printed.contains(line), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_tries_again_until_it_succeeds() {
    let stage = Stage::set().await;
    stage.publish(1..3).await;
    let example = start("retry", &stage);
    durable_settles(&stage, "retry").await;
    let printed = interrupt(example).await;
    assert!(printed.contains("2: attempt 3") && !printed.contains("1: attempt 2"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_shows_what_became_one_and_why() {
    let stage = Stage::set().await;
    stage.client.publish("orders.created", r#"{"address": "Ely"}"#.into()).await.unwrap();
    stage.client.publish("orders.created", "no json".into()).await.unwrap();
    let example = start("dead_letter", &stage);
    durable_settles(&stage, "dead_letter").await;
    let printed = interrupt(example).await;
    for part in ["shipped to Ely", "dead letter: b\"no json\"", "expected"] {
        assert!(printed.contains(part), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_stop_finishes_what_it_has_begun() {
    let stage = Stage::set().await;
    stage.publish(0..5).await;
    let example = start("graceful_stop", &stage);
    eventually("it has begun", async || {
        let info = stage.ask("CONSUMER.INFO.orders.graceful_stop", &Value::Null).await;
        info["num_ack_pending"].as_u64() > Some(0)
    })
    .await;
    let printed = interrupt(example).await;
    assert!(printed.contains("0 cancelled") && !printed.contains("0 done"), "{printed}");
    assert_eq!(printed.matches(": begun").count(), printed.matches(": done").count(), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_stores_a_repeated_message_once_and_reads_its_subject() {
    let stage = Stage::set().await;
    let example = start("topics", &stage);
    eventually("the message is stored", async || stage.stored("orders").await == 1).await;
    eventually("the durable exists", async || {
        stage.ask("CONSUMER.INFO.orders.topics", &Value::Null).await["delivered"]["stream_seq"] == 1
    })
    .await;
    durable_settles(&stage, "topics").await;
    let printed = interrupt(example).await;
    assert_eq!(printed, "duplicate: false\nduplicate: true\norder 7 is paid\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_publishes_one_invoice_for_each_order() {
    let stage = Stage::set().await;
    for order in [r#"{"id": 7, "amount": 12}"#, r#"{"id": 7, "amount": 12}"#, r#"{"id": 8, "amount": 0}"#] {
        stage.client.publish("orders.7.created", order.into()).await.unwrap();
    }
    let example = start("service", &stage);
    durable_settles(&stage, "billing").await;
    durable_settles(&stage, "audit").await;
    assert_eq!(stage.stored("invoices").await, 1);
    assert_eq!(stage.stored("orders-dlq").await, 1);
    let printed = interrupt(example).await;
    assert!(printed.contains("0 unfinished") && printed.matches("audit: ").count() == 3, "{printed}");
}
