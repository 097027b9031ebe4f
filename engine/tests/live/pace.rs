//! A push consumer is sent what its handlers use up, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nats_consumer::{ConsumerOptions, Handler, Message, RetryPolicy, Schedule, consume};
use tokio::time::Instant;

use crate::stage::{SOON, Seen, Stage, eventually, pull, push, within};

/// Far longer than a test may wait: what is left to `ack_wait` is missed.
const NEVER: Duration = Duration::from_secs(3600);

/// A handler that remembers each message and then works for a time.
fn working(seen: &Seen, time: Duration) -> impl Handler + use<> {
    let seen = seen.clone();
    move |message: Message| {
        seen.note(&message);
        tokio::time::sleep(time)
    }
}

async fn ten_deploys_take_no_attempt(options: ConsumerOptions, work: Duration) {
    let options = ConsumerOptions { ack_wait: NEVER, ..options };
    let stage = Stage::set().await;
    stage.publish(0..3000).await;
    let seen = Seen::default();
    for round in 1..=10 {
        let consumption = consume(stage.address(), options.clone(), working(&seen, work)).await.unwrap();
        seen.reaches(round * 20).await;
        assert_eq!(consumption.drain(NEVER).await, 0);
        assert_eq!(consumption.counters().handed_back, 0, "in round {round}");
    }
    assert_ne!(stage.billing().await["num_pending"], 0, "there was no load");
    assert!(seen.attempts().iter().all(|attempt| *attempt == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_deploys_of_a_slow_push_consumer_take_no_attempt_from_what_did_not_run() {
    ten_deploys_take_no_attempt(push(), Duration::from_millis(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_deploys_of_a_busy_push_consumer_take_no_attempt_from_what_did_not_run() {
    ten_deploys_take_no_attempt(ConsumerOptions { concurrency: 10, ..push() }, Duration::from_millis(2))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_deploys_of_a_pull_consumer_take_no_attempt_from_what_did_not_run() {
    ten_deploys_take_no_attempt(ConsumerOptions { concurrency: 10, ..pull() }, Duration::from_millis(5))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_worker_that_joins_gets_its_share_of_the_backlog_within_seconds() {
    let stage = Stage::set().await;
    stage.publish(0..500).await;
    let (one, two) = (Seen::default(), Seen::default());
    let work = Duration::from_millis(100);
    let first = consume(stage.address(), push(), working(&one, work)).await.unwrap();
    one.reaches(5).await;
    assert!(first.counters().in_flight <= 3, "{} are held", first.counters().in_flight);
    let _second = consume(stage.address(), push(), working(&two, work)).await.unwrap();
    let before = one.count();
    two.reaches(20).await;
    let meanwhile = one.count() - before;
    assert!((8..=50).contains(&meanwhile), "20 there, {meanwhile} here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_push_consumer_is_sent_hundreds_at_once() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), push(), seen.and_ack()).await.unwrap();
    stage.publish(0..20_000).await;
    stage.all_settled().await;
    let allowed = stage.billing().await["config"]["max_ack_pending"].as_i64().unwrap();
    assert!((100..=2000).contains(&allowed), "{allowed}");
    assert_eq!(seen.count(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_that_wait_do_not_keep_a_push_consumer_from_new_messages() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let retry = RetryPolicy::new(3, Schedule::Delays(vec![NEVER])).unwrap();
    let options = ConsumerOptions { retry, ..push() };
    let failing = seen.and(|_, _| Err::<(), _>("no".into()) as Result<(), nats_consumer::HandlerError>);
    let _consumption = consume(stage.address(), options, failing).await.unwrap();
    stage.publish(0..300).await;
    seen.reaches(300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_large_messages_onto_an_empty_stream_is_handled_without_a_reconnect() {
    let stage = Stage::set().await;
    let (seen, count) = (Arc::new(AtomicUsize::new(0)), 800);
    let noting = seen.clone();
    let handler = move |message: Message| {
        assert_eq!(message.metadata().unwrap().delivered, 1);
        noting.fetch_add(1, SeqCst);
        std::future::ready(())
    };
    let options = ConsumerOptions { concurrency: 20, ..push() };
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    for number in 0..count {
        let size = [10, 1000, 20_000, 200_000][number % 4];
        stage.client.publish("orders.created", vec![b'x'; size].into()).await.unwrap();
    }
    eventually("everything is handled", async || seen.load(SeqCst) == count).await;
    assert_eq!(consumption.counters().repairs, 0);
    assert_eq!(stage.billing().await["num_redelivered"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_hands_back_soon_what_no_handler_is_free_for() {
    let stage = Stage::set().await;
    stage.publish(0..5).await;
    let options = ConsumerOptions { max_ack_pending: Some(5), ack_wait: NEVER, ..push() };
    let held = Seen::default();
    let leaving = Arc::new(consume(stage.address(), options.clone(), held.and_hang()).await.unwrap());
    eventually("all are here", async || leaving.counters().in_flight == 5).await;
    let began = Instant::now();
    let draining = tokio::spawn({
        let leaving = leaving.clone();
        async move { leaving.drain(Duration::from_secs(5)).await }
    });
    let seen = Seen::default();
    let _staying = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    within(SOON, "four are handled elsewhere", async || seen.count() == 4).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(draining.await.unwrap(), 1);
}
