//! Durables of one process each, which the server forgets after it.

use std::time::Duration;

use nats_consumer::{ConsumerOptions, Start, consume};
use serde_json::{Value, json};

use crate::stage::{Seen, Stage, eventually, pull, push};

const THRESHOLD: Duration = Duration::from_secs(2);

fn of_process(name: &str, options: ConsumerOptions) -> ConsumerOptions {
    options.durable(name).start(Start::New).ephemeral(THRESHOLD)
}

async fn durables(stage: &Stage) -> Vec<String> {
    let names = stage.api("CONSUMER.NAMES.orders", &Value::Null).await;
    let names = names["consumers"].as_array().cloned().unwrap_or_default();
    names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_gets_what_is_new_and_leaves_nothing_behind() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        stage.publish(0..1).await;
        let (first, second) = (Seen::default(), Seen::default());
        let one =
            consume(stage.address(), of_process("one", options.clone()), first.and_ack()).await.unwrap();
        let two = consume(stage.address(), of_process("two", options), second.and_ack()).await.unwrap();
        stage.publish(1..4).await;
        first.covers(1..4).await;
        second.covers(1..4).await;
        one.drain(Duration::from_secs(1)).await;
        assert_eq!(durables(&stage).await, ["two"]);
        two.drain(Duration::from_secs(1)).await;
        assert_eq!(durables(&stage).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_forgets_the_durable_of_a_process_that_was_lost() {
    let stage = Stage::set().await;
    let lost = consume(stage.address(), of_process("one", pull()), Seen::default().and_ack()).await.unwrap();
    assert_eq!(durables(&stage).await, ["one"]);
    drop(lost);
    eventually("it is forgotten", async || durables(&stage).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_reconnects_misses_nothing() {
    let mut stage = Stage::set().await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), of_process("one", pull()), seen.and_ack()).await.unwrap();
    stage.publish(0..5).await;
    seen.covers(0..5).await;
    stage.server.kill().await.unwrap();
    stage.server.restart().await.unwrap();
    stage.client = stage.server.client().await.unwrap();
    stage.publish(5..9).await;
    seen.covers(0..9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_durable_is_deleted_goes_on_where_it_stood() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), of_process("one", pull()), seen.and_ack()).await.unwrap();
    stage.publish(0..5).await;
    seen.covers(0..5).await;
    stage.api("CONSUMER.DELETE.orders.one", &Value::Null).await;
    stage.publish(5..9).await;
    seen.covers(0..9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_is_retried_in_the_same_process() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let fails_once = seen.and(|attempt, _| if attempt == 1 { Err("busy") } else { Ok(()) });
    let _consumption = consume(stage.address(), of_process("one", pull()), fails_once).await.unwrap();
    stage.publish(0..1).await;
    seen.reaches(2).await;
    assert_eq!(seen.attempts(), [1, 2]);
    let config = stage.api("CONSUMER.INFO.orders.one", &Value::Null).await["config"].clone();
    assert_eq!(config["inactive_threshold"], json!(2_000_000_000_u64));
}
