//! Several workers on one durable share the work.

use std::time::Duration;

use nats_consumer::{ConsumerOptions, consume};
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{SOON, Seen, Stage, eventually, pull, push};

async fn two_share_the_work(options: ConsumerOptions) {
    let stage = Stage::set().await;
    let (one, two) = (Seen::default(), Seen::default());
    let first = consume(stage.address(), options.clone(), one.and_ack()).await.unwrap();
    let second = consume(stage.address(), options, two.and_ack()).await.unwrap();
    stage.publish(0..2000).await;
    stage.all_settled().await;
    let mut all = [one.numbers(), two.numbers()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..2000).collect::<Vec<_>>(), "each is handled once");
    assert!(one.count() > 0 && two.count() > 0, "{} and {}", one.count(), two.count());

    // One goes; the other has all of it.
    first.drain(SOON).await;
    stage.publish(2000..2100).await;
    stage.all_settled().await;
    assert_eq!(one.count() + two.count(), 2100);
    second.drain(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_pull_durable() {
    two_share_the_work(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_push_durable() {
    two_share_the_work(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_worker_held_is_handled_by_the_other_one() {
    let stage = Stage::set().await;
    stage.publish(0..10).await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(1), ..pull() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (lost, other) = (Seen::default(), Seen::default());
    let losing = consume(stage.address(), options.clone(), lost.and_hang());
    let _consumption = runtime.spawn(losing).await.unwrap().unwrap();
    lost.reaches(10).await;
    // Nothing of it runs any more, as if its process had been killed.
    runtime.shutdown_background();
    let _other = consume(stage.address(), options, other.and_ack()).await.unwrap();
    other.covers(0..10).await;
    stage.all_settled().await;
    assert!(other.attempts().iter().all(|attempt| *attempt == 2), "{:?}", other.attempts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_takes_no_more_requests_is_asked_without_haste() {
    let stage = Stage::set().await;
    stage.create_durable("billing", json!({ "ack_policy": "explicit", "max_waiting": 1 })).await;
    let mut asked = stage.hear("$JS.API.CONSUMER.MSG.NEXT.orders.billing").await;
    let began = Instant::now();
    let seen = Seen::default();
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(consume(stage.address(), pull(), seen.and_ack()).await.unwrap());
    }
    eventually("two are not heard again and again", async || {
        workers.iter().map(|worker| worker.counters().repairs).sum::<u64>() >= 4
    })
    .await;
    assert!(asked.so_far().len() as u64 <= 3 * (2 + began.elapsed().as_secs()));
    stage.publish(0..500).await;
    stage.all_settled().await;
    assert_eq!(seen.numbers(), (0..500).collect::<Vec<_>>(), "each is handled once");
}
