//! How much is asked for, and how often.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{ConsumerOptions, Outcome, consume, consume_into};
use tokio::time::{Instant, sleep_until};

use crate::stage::{Basket, Seen, Stage, eventually, pull, push};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pull_asks_seldom() {
    let stage = Stage::set().await;
    let mut requests = stage.hear("$JS.API.CONSUMER.MSG.NEXT.>").await;
    let options = ConsumerOptions { fetch_timeout: Duration::from_secs(2), ..pull() };
    let began = Instant::now();
    let consumption = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    // Long enough for two requests to run out.
    sleep_until(began + Duration::from_secs(5)).await;
    let asked = requests.so_far().len();
    assert!((2..=5).contains(&asked), "{asked} requests");
    assert_eq!(consumption.counters().repairs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pull_asks_for_nothing_until_there_is_a_place() {
    let stage = Stage::set().await;
    stage.publish(0..100).await;
    let options = ConsumerOptions { concurrency: 4, ..pull() };
    let basket = Arc::new(Basket::default());
    let mut requests = stage.hear("$JS.API.CONSUMER.MSG.NEXT.>").await;
    let _consumption = consume_into(stage.address(), options, basket.clone()).await.unwrap();
    eventually("it is full", async || basket.count() >= 4).await;
    let asked = requests.so_far().len();
    assert!(asked <= 4, "{asked} requests for 4 places");
    basket.take().await.settle(Outcome::Ack).unwrap();
    requests.next().await;
    eventually("it is full again", async || basket.count() >= 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_are_held_by_their_bytes() {
    let stage = Stage::set().await;
    publish_large(&stage, 100).await;
    let options = ConsumerOptions { concurrency: 90, ..pull() };
    let basket = Arc::new(Basket::default());
    let consumption = consume_into(stage.address(), options, basket.clone()).await.unwrap();
    eventually("it is full", async || basket.count() >= 30).await;
    for _ in 0..100 {
        assert!(consumption.counters().in_flight <= 33, "{} MiB", consumption.counters().in_flight);
        basket.take().await.settle(Outcome::Ack).unwrap();
    }
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_behind_small_ones_do_not_cost_the_connection() {
    let stage = Stage::set().await;
    stage.publish(0..20_000).await;
    publish_large(&stage, 150).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), pull(), seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.count(), 20_150);
    assert_eq!(consumption.counters().repairs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_do_not_cost_a_push_consumer_its_connection() {
    let stage = Stage::set().await;
    publish_large(&stage, 200).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), push(), seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.count(), 200);
    assert_eq!((consumption.counters().received, consumption.counters().repairs), (200, 0));
    let allowed = stage.billing().await["config"]["max_ack_pending"].as_i64().unwrap();
    assert!(allowed <= 32, "{allowed} messages of a mebibyte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_is_sent_less_at_once_when_its_messages_become_large() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), push(), seen.and_ack()).await.unwrap();
    let allowed = async || stage.billing().await["config"]["max_ack_pending"].as_i64().unwrap();
    stage.publish(0..20_000).await;
    stage.all_settled().await;
    assert!(allowed().await >= 100);
    publish_large(&stage, 5).await;
    eventually("less is allowed", async || allowed().await < 40).await;
    stage.publish(0..5).await;
    eventually("all is handled", async || seen.count() == 20_010).await;
}

/// Messages of a mebibyte each, as large as the server takes them.
async fn publish_large(stage: &Stage, count: u64) {
    let before = stage.stored("orders").await;
    for _ in 0..count {
        stage.client.publish("orders.created", vec![b'x'; 1024 * 1024].into()).await.unwrap();
    }
    eventually("everything is stored", async || stage.stored("orders").await == before + count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_is_asked_for_with_pauses() {
    let stage = Stage::set().await;
    let consumption = consume(stage.address(), pull(), Seen::default().and_ack()).await.unwrap();
    stage.api("STREAM.DELETE.orders", &serde_json::Value::Null).await;
    let mut questions = stage.hear("$JS.API.>").await;
    sleep_until(Instant::now() + Duration::from_secs(3)).await;
    let asked = questions.so_far().len();
    assert!((1..=12).contains(&asked), "{asked} questions");
    assert!(consumption.is_running());
}
