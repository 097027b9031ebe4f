//! Each message arrives, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use nats_consumer::{ConsumerOptions, Message, consume};

use crate::stage::{SOON, Seen, Stage, pull, push};

const MANY: usize = 3000;

async fn everything_is_handled_once(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..MANY).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();

    stage.all_settled().await;
    assert_eq!(seen.numbers(), (0..MANY).collect::<Vec<_>>());
    assert_eq!(stage.billing().await["num_redelivered"], 0);
    assert_eq!(consumption.drain(SOON).await, 0);
    let counters = consumption.counters();
    assert_eq!((counters.received, counters.succeeded), (MANY as u64, MANY as u64));
    assert_eq!((counters.failed, counters.handed_back, counters.in_flight), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_handled_once_by_pull() {
    everything_is_handled_once(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_handled_once_by_push() {
    everything_is_handled_once(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_later_arrives_too() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        let seen = Seen::default();
        let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
        stage.publish(0..10).await;
        seen.covers(0..10).await;
        stage.publish(10..20).await;
        seen.covers(0..20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn push_is_handled_in_order_one_at_a_time() {
    let stage = Stage::set().await;
    stage.publish(0..500).await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), push(), seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    let in_order: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(seen.payloads(), in_order);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_handlers_run_at_once_as_the_concurrency_allows_and_no_more() {
    let stage = Stage::set().await;
    stage.publish(0..60).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = most.clone();
    let handler = move |_: Message| {
        let (running, highest) = (running.clone(), highest.clone());
        async move {
            highest.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            // Long enough that the others begin meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            running.fetch_sub(1, SeqCst);
        }
    };
    let options = ConsumerOptions { concurrency: 3, ..pull() };
    let _consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(most.load(SeqCst), 3);
}
