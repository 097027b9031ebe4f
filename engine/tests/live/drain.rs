//! A drain takes nothing new, hands back what has not started, and lets what runs finish.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{ConsumerOptions, Handler, Message, consume, consume_into};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::stage::{Basket, SOON, Seen, Stage, delays, eventually, pull, push, within};

/// Far longer than a test may wait: what is left to `ack_wait` is missed.
const NEVER: Duration = Duration::from_secs(3600);

/// A handler that is fast a number of times and then never ends, when others wait behind it.
fn stuck_after(count: usize, seen: &Seen) -> impl Handler + use<> {
    let seen = seen.clone();
    move |message: Message| {
        seen.note(&message);
        let is_stuck = seen.count() > count;
        async move {
            if is_stuck {
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn hands_back_what_waits_and_lets_finish_what_runs(options: ConsumerOptions) {
    let options = ConsumerOptions { concurrency: 1, ack_wait: NEVER, ..options };
    let stage = Stage::set().await;
    stage.publish(0..220).await;
    let (first, gate) = (Seen::default(), Arc::new(Semaphore::new(200)));
    let (noting, opening) = (first.clone(), gate.clone());
    let handler = move |message: Message| {
        noting.note(&message);
        let gate = opening.clone();
        async move { gate.acquire().await.unwrap().forget() }
    };
    let leaving = Arc::new(consume(stage.address(), options.clone(), handler).await.unwrap());
    // What is fast is prefetched.
    first.reaches(201).await;
    eventually("more is prefetched", async || leaving.counters().in_flight > 1).await;

    let draining = tokio::spawn({
        let leaving = leaving.clone();
        async move { leaving.drain(NEVER).await }
    });
    let second = Seen::default();
    let _staying = consume(stage.address(), options, second.and_ack()).await.unwrap();
    within(SOON, "the others are handled elsewhere", async || second.count() == 19).await;
    assert!(!leaving.is_running());
    assert!(!draining.is_finished(), "what runs has not finished");

    gate.add_permits(1);
    assert_eq!(draining.await.unwrap(), 0);
    stage.all_settled().await;
    assert_eq!((first.count(), second.count()), (201, 19));
    assert!(leaving.counters().handed_back >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_a_pull_hands_back_what_waits_and_lets_finish_what_runs() {
    hands_back_what_waits_and_lets_finish_what_runs(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_a_push_hands_back_what_waits_and_lets_finish_what_runs() {
    hands_back_what_waits_and_lets_finish_what_runs(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_grace_what_waits_is_handed_back_at_once() {
    for options in [pull(), push()] {
        let retry = delays(3, &[3_600_000]);
        let options = ConsumerOptions { concurrency: 1, ack_wait: NEVER, retry, ..options };
        let stage = Stage::set().await;
        stage.publish(0..220).await;
        let (first, second) = (Seen::default(), Seen::default());
        let leaving = consume(stage.address(), options.clone(), stuck_after(200, &first)).await.unwrap();
        first.reaches(201).await;
        eventually("more is prefetched", async || leaving.counters().in_flight > 1).await;
        leaving.drain(Duration::ZERO).await;
        assert_eq!(leaving.counters().handed_back, leaving.counters().received - 200);
        let _staying = consume(stage.address(), options, second.and_ack()).await.unwrap();
        within(SOON, "they are handled elsewhere", async || second.count() == 20).await;
    }
}

async fn leaves_nothing_to_ack_wait_in_full_flow(options: ConsumerOptions) {
    let options = ConsumerOptions { ack_wait: NEVER, ..options };
    let stage = Stage::set().await;
    stage.publish(0..20_000).await;
    for _ in 0..3 {
        let seen = Seen::default();
        let consumption = consume(stage.address(), options.clone(), seen.and_ack()).await.unwrap();
        seen.reaches(500).await;
        assert_eq!(consumption.drain(SOON).await, 0);
    }
    assert_ne!(stage.billing().await["num_pending"], 0, "nothing was in flow");
    let _last = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_a_pull_in_full_flow_leaves_nothing_to_ack_wait() {
    leaves_nothing_to_ack_wait_in_full_flow(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_of_a_push_in_full_flow_leaves_nothing_to_ack_wait() {
    leaves_nothing_to_ack_wait_in_full_flow(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_cancelled_and_handed_back() {
    for options in [pull(), push()] {
        let options = ConsumerOptions { ack_wait: NEVER, ..options };
        let stage = Stage::set().await;
        stage.publish(0..1).await;
        let seen = Seen::default();
        let stuck = consume(stage.address(), options.clone(), seen.and_hang()).await.unwrap();
        seen.reaches(1).await;
        assert_eq!(stuck.drain(Duration::from_millis(100)).await, 1);
        assert_eq!(stuck.counters().handed_back, 1);

        let again = Seen::default();
        let _next = consume(stage.address(), options, again.and_ack()).await.unwrap();
        within(SOON, "it is handled elsewhere", async || again.count() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_inbox_never_settles_is_handed_back_in_the_end() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let (options, basket) = (ConsumerOptions { ack_wait: NEVER, ..pull() }, Arc::new(Basket::default()));
    let stuck = consume_into(stage.address(), options.clone(), basket.clone()).await.unwrap();
    let started = basket.take().await;
    assert_eq!(stuck.drain(Duration::from_millis(100)).await, 1);
    drop(started);
    let again = Seen::default();
    let _next = consume(stage.address(), options, again.and_ack()).await.unwrap();
    within(SOON, "it is handled elsewhere", async || again.count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_consumption_drains_at_once() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        let seen = Seen::default();
        let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
        stage.publish(0..1).await;
        stage.all_settled().await;
        let began = Instant::now();
        assert_eq!(consumption.drain(NEVER).await, 0);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_in_time_while_the_server_is_down() {
    for options in [pull(), push()] {
        let mut stage = Stage::set().await;
        stage.publish(0..5).await;
        let seen = Seen::default();
        let consumption = consume(stage.address(), options, seen.and_hang()).await.unwrap();
        seen.reaches(1).await;
        stage.server.kill().await.unwrap();
        let began = Instant::now();
        assert!(consumption.drain(Duration::from_millis(200)).await >= 1);
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_in_time_while_the_server_is_frozen() {
    let stage = Stage::set().await;
    stage.publish(0..5).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), pull(), seen.and_hang()).await.unwrap();
    seen.reaches(1).await;
    stage.server.pause().unwrap();
    let began = Instant::now();
    assert!(consumption.drain(Duration::from_millis(200)).await >= 1);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_consumption_stops() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    drop(consume(stage.address(), pull(), seen.and_ack()).await.unwrap());
    eventually("the durable has no reader", async || stage.billing().await["num_waiting"] == 0).await;
}

async fn has_settled_all_when_it_ends(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..3).await;
    let address = stage.slow_address(Duration::from_millis(300)).await;
    let seen = Seen::default();
    let consumption = consume(address, options, seen.and_ack()).await.unwrap();
    seen.reaches(3).await;
    assert_eq!(consumption.drain(Duration::from_secs(5)).await, 0);
    assert_eq!(stage.billing().await["num_ack_pending"], 0, "acknowledgements were still on their way");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_drain_ends_the_server_has_read_the_last_settlements() {
    for options in [pull(), push()] {
        has_settled_all_when_it_ends(options).await;
    }
}

async fn settles_what_arrives_to_the_end(options: ConsumerOptions) {
    let stage = Stage::set().await;
    let publishing = tokio::spawn({
        let client = stage.client.clone();
        async move {
            for number in 0.. {
                client.publish("orders.created", number.to_string().into()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let seen = Seen::default();
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    seen.reaches(50).await;
    assert_eq!(consumption.drain(Duration::from_secs(5)).await, 0);
    publishing.abort();
    let billing = stage.billing().await;
    let unsettled = billing["num_ack_pending"].as_u64().unwrap();
    let settled = billing["delivered"]["consumer_seq"].as_u64().unwrap() - unsettled;
    assert_eq!(settled, seen.count() as u64, "handled and not acknowledged");
    // A push consumer cannot stop the server before it has what is on its way at that moment.
    assert!(unsettled < 20, "{unsettled} arrived, and wait for ack_wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_that_is_sent_messages_all_the_time_settles_what_it_handled() {
    settles_what_arrives_to_the_end(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_consumer_that_is_sent_messages_all_the_time_settles_what_it_handled() {
    settles_what_arrives_to_the_end(pull()).await;
}
