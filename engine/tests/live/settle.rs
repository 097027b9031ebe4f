//! Settlements: each is written once, and in time.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{
    AlreadySettled, ConnectOptions, ConsumerOptions, Consumption, HandlerError, Message, Outcome, consume,
    consume_into,
};
use tokio::sync::Semaphore;

use crate::stage::{Basket, SOON, Seen, Stage, eventually, pull, push, within};

/// One published message, in a basket.
async fn one_delivery(stage: &Stage) -> (Consumption, Arc<Basket>) {
    stage.publish(0..1).await;
    let basket = Arc::new(Basket::default());
    let consumption = consume_into(stage.address(), pull(), basket.clone()).await.unwrap();
    (consumption, basket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_settled_once() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    let (consumption, basket) = one_delivery(&stage).await;
    let delivery = basket.take().await;
    assert!(!delivery.is_settled());
    delivery.settle(Outcome::Ack).unwrap();
    assert!(delivery.is_settled());
    assert_eq!(delivery.settle(Outcome::Retry { after: None }), Err(AlreadySettled));
    assert_eq!(delivery.ack_confirmed(SOON).await, Err(AlreadySettled));
    delivery.in_progress();
    delivery.hand_back();
    drop(delivery);
    stage.all_settled().await;
    consumption.drain(SOON).await;
    assert_eq!(settlements.so_far(), ["+ACK"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_dropped_unsettled_is_handed_back() {
    let stage = Stage::set().await;
    let (_consumption, basket) = one_delivery(&stage).await;
    drop(basket.take().await);
    let again = basket.take().await;
    assert_eq!(again.attempt(), 2);
    again.settle(Outcome::Ack).unwrap();
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_may_stay_occupied_beyond_the_settlement_and_a_drain_waits_for_it() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    let (consumption, basket) = one_delivery(&stage).await;
    let delivery = basket.take().await;
    let place = delivery.occupy();
    delivery.settle(Outcome::Ack).unwrap();
    stage.all_settled().await;
    assert_eq!(consumption.counters().in_flight, 1);
    assert_eq!(consumption.drain(Duration::from_millis(50)).await, 1);
    drop(place);
    assert_eq!(consumption.counters().in_flight, 0);
    assert_eq!(settlements.so_far(), ["+ACK"], "its lease had ended: nothing is handed back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_ack_has_reached_the_server() {
    let stage = Stage::set().await;
    let (consumption, basket) = one_delivery(&stage).await;
    let delivery = basket.take().await;
    assert_eq!(delivery.ack_confirmed(SOON).await, Ok(true));
    assert_eq!(stage.billing().await["num_ack_pending"], 0);
    assert_eq!(consumption.counters().in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_cannot_be_confirmed_says_so_in_time_and_arrives_later() {
    let mut stage = Stage::set().await;
    let (consumption, basket) = one_delivery(&stage).await;
    let delivery = basket.take().await;
    stage.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !consumption.is_connected()).await;
    assert_eq!(delivery.ack_confirmed(Duration::from_millis(100)).await, Ok(false));
    stage.server.restart().await.unwrap();
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_while_the_link_was_down_is_written_when_it_is_up() {
    for options in [pull(), push()] {
        let mut stage = Stage::set().await;
        stage.publish(0..20).await;
        let options = ConsumerOptions { concurrency: 20, ..options };
        let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
        let (noting, opening) = (seen.clone(), gate.clone());
        let handler = move |message: Message| {
            noting.note(&message);
            let gate = opening.clone();
            async move { gate.acquire().await.unwrap().forget() }
        };
        let consumption = consume(stage.address(), options, handler).await.unwrap();
        seen.covers(0..20).await;
        // Killed, it would forget some of its deliveries and make them again.
        stage.server.stop().await.unwrap();
        eventually("the loss is noticed", async || !consumption.is_connected()).await;
        gate.add_permits(20);
        eventually("all are handled", async || consumption.counters().succeeded == 20).await;
        stage.server.restart().await.unwrap();
        within(SOON, "no `ack_wait` passes", async || stage.billing().await["num_ack_pending"] == 0).await;
        assert_eq!(seen.count(), 20, "none is handled twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_not_sent_when_the_message_may_be_with_somebody_else() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let address = ConnectOptions { ping_interval: Duration::from_secs(1), ..stage.address() };
    let options = ConsumerOptions { ack_wait: Duration::from_secs(1), ..pull() };
    let gate = Arc::new(Semaphore::new(0));
    let opening = gate.clone();
    let handler = move |_: Message| {
        let gate = opening.clone();
        async move {
            drop(gate.acquire().await);
            Err::<(), _>(HandlerError::from("too late"))
        }
    };
    let mut settlements = stage.hear_settlements().await;
    let consumption = consume(address, options, handler).await.unwrap();
    eventually("it runs", async || consumption.counters().received == 1).await;
    stage.server.pause().unwrap();
    eventually("the silence is noticed", async || !consumption.is_connected()).await;
    // Nothing announces that the server's patience is at an end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.add_permits(1);
    eventually("the handler has failed", async || consumption.counters().failed == 1).await;
    stage.server.resume().unwrap();
    let is_alive = |word: &async_nats::Message| word.payload == "+WPI";
    let is_first = |word: &async_nats::Message| word.subject.starts_with("$JS.ACK.orders.billing.1.");
    // What is said of the first attempt is said before what is said of a later one.
    let mut word = settlements.next().await;
    while is_first(&word) || is_alive(&word) {
        assert!(is_alive(&word), "{word:?}");
        word = settlements.next().await;
    }
}

async fn a_long_handler_runs_once(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..4).await;
    let options = ConsumerOptions { concurrency: 2, ack_wait: Duration::from_secs(1), ..options };
    let seen = Seen::default();
    let noting = seen.clone();
    let handler = move |message: Message| {
        noting.note(&message);
        tokio::time::sleep(Duration::from_millis(1700))
    };
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.numbers(), [0, 1, 2, 3]);
    assert_eq!(consumption.counters().received, 4, "nor is one delivered again that waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_longer_than_ack_wait_runs_once_and_so_do_those_behind_it_by_pull() {
    a_long_handler_runs_once(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_longer_than_ack_wait_runs_once_and_so_do_those_behind_it_by_push() {
    a_long_handler_runs_once(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_handler_runs_once_however_busy_the_others_are() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(2), ..pull() };
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let (noting, opening) = (seen.clone(), gate.clone());
    let handler = move |message: Message| {
        let gate = opening.clone();
        let is_long = *message.payload() == "0";
        noting.note(&message);
        async move {
            if is_long {
                drop(gate.acquire().await);
            }
        }
    };
    let _consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.publish(1..40_000).await;
    seen.covers(0..40_000).await;
    gate.add_permits(1);
    stage.all_settled().await;
    assert_eq!(seen.payloads().iter().filter(|payload| *payload == "0").count(), 1);
}
