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

/// Cargo builds these as tests: what an earlier run left of the programs would be old.
const WITH_TESTS: [&str; 2] = ["service", "state"];

/// Cargo has built it with the tests, unless it was asked for some of the tests alone.
fn start(name: &str, stage: &Stage) -> Example {
    let tests = std::env::current_exe().unwrap();
    let built: PathBuf = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    if !built.exists() || WITH_TESTS.contains(&name) {
        let build = ["build", "--quiet", "--package", "nats-consumer", "--example", name];
        assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    }
    let child = Command::new(built).arg(stage.server.url()).stdout(Stdio::piped()).spawn();
    Example(child.unwrap())
}

/// Ctrl-C; returns what the example has printed.
async fn interrupt(example: Example) -> String {
    stop(example, "INT").await
}

async fn stop(mut example: Example, signal: &str) -> String {
    let kill = format!("kill -s {signal} {}", example.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
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
async fn batch_inserts_many_rows_at_once_and_finds_the_one_that_is_none() {
    let stage = Stage::set().await;
    for payload in ["1", "2", "three", "4", "5"] {
        stage.client.publish("orders.created", payload.into()).await.unwrap();
    }
    stage.client.flush().await.unwrap();
    let example = start("batch", &stage);
    durable_settles(&stage, "batch").await;
    let printed = interrupt(example).await;
    for line in ["inserted 2 rows: [1, 2]", "inserted 1 rows: [4]"] {
        assert!(printed.contains(line), "{printed}");
    }
    assert_eq!(stage.stored("orders-dlq").await, 1);
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
async fn graceful_stop_finishes_what_two_consumers_have_begun() {
    for signal in ["INT", "TERM"] {
        let stage = Stage::set().await;
        stage.publish(0..9).await;
        let example = start("graceful_stop", &stage);
        for durable in ["one", "two"] {
            eventually("it has begun", async || {
                let info = stage.ask(&format!("CONSUMER.INFO.orders.{durable}"), &Value::Null).await;
                info["num_ack_pending"].as_u64() > Some(0)
            })
            .await;
        }
        let printed = stop(example, signal).await;
        assert!(printed.contains("0 cancelled") && !printed.contains(" 0 done"), "{signal}: {printed}");
        let (begun, done) = (printed.matches(": begun").count(), printed.matches(": done").count());
        assert_eq!(begun, done, "{signal}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_shared_by_the_attempts_and_an_unreadable_order_is_kept() {
    let stage = Stage::set().await;
    for order in [r#"{"item": "pen", "count": 6}"#, r#"{"item": "pen", "count": 4}"#, "six pens"] {
        stage.client.publish("orders.created", order.into()).await.unwrap();
    }
    let example = start("state", &stage);
    eventually("the unreadable order is kept", async || stage.stored("orders-dlq").await == 1).await;
    durable_settles(&stage, "state").await;
    let printed = interrupt(example).await;
    assert!(printed.lines().any(|line| line == "0 left") && printed.lines().count() == 2, "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_counts_each_attempt_by_its_outcome() {
    let stage = Stage::set().await;
    for amount in ["7", "8", "nine"] {
        stage.client.publish("orders.created", amount.into()).await.unwrap();
    }
    let example = start("metrics", &stage);
    durable_settles(&stage, "metrics").await;
    let printed = interrupt(example).await;
    for line in [
        "attempts_total{outcome=\"ack\"} 2",
        "attempts_total{outcome=\"dead_letter\"} 1",
        "consumer_succeeded 2",
        "consumer_dead_lettered 1",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dedup_publishes_one_invoice_although_the_order_comes_twice() {
    let stage = Stage::set().await;
    stage.publish(7..8).await;
    let example = start("dedup", &stage);
    durable_settles(&stage, "dedup").await;
    assert_eq!(stage.stored("invoices").await, 1);
    let printed = interrupt(example).await;
    let expected = "invoice-1: attempt 1, a duplicate: false\ninvoice-1: attempt 2, a duplicate: true\n";
    assert_eq!(printed, expected);
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
    let printed = stop(example, "TERM").await;
    assert!(printed.contains("0 unfinished") && printed.matches("audit: ").count() == 3, "{printed}");
}
