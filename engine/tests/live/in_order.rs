//! One message at a time, in the order of the stream, over all workers of a durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nats_consumer::observe::ConsumerState;
use nats_consumer::{ConsumerOptions, ErrorKind, Exhausted, Handler, HandlerError, Message, consume};
use serde_json::json;
use tokio::time::sleep;

use crate::stage::{Seen, Stage, delays, eventually, pull, push};

/// Remembers each attempt, and the most handlers that ran at once.
#[derive(Clone, Default)]
struct Ledger {
    seen: Seen,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Ledger {
    /// A handler that fails at the first attempt of each number that can be divided by seven.
    fn handler(&self) -> impl Handler + use<> {
        let ledger = self.clone();
        move |message: Message| ledger.clone().run(message)
    }

    async fn run(self, message: Message) -> Result<(), &'static str> {
        let attempt = self.seen.note(&message);
        self.most.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
        sleep(Duration::from_millis(1)).await;
        self.running.fetch_sub(1, SeqCst);
        let number: usize = std::str::from_utf8(message.payload()).unwrap().parse().unwrap();
        if number.is_multiple_of(7) && attempt == 1 { Err("busy") } else { Ok(()) }
    }
}

async fn keeps_the_order(options: ConsumerOptions) {
    let stage = Stage::set().await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(1), ..options.in_order() };
    let options = options.retry(delays(5, &[20]));
    let ledger = Ledger::default();
    let worker = async || consume(stage.address(), options.clone(), ledger.handler()).await.unwrap();
    let first = worker().await;
    let second = worker().await;
    stage.publish(0..300).await;
    ledger.seen.reaches(50).await;
    // As if it was killed: what it held comes again after `ack_wait`.
    drop(first);
    ledger.seen.reaches(150).await;
    let _third = worker().await;
    second.drain(Duration::from_secs(5)).await;
    ledger.seen.covers(0..300).await;
    stage.all_settled().await;
    let numbers: Vec<usize> = ledger.seen.payloads().iter().map(|text| text.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(ledger.most.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_messages_keep_their_order_while_they_fail_and_workers_come_and_go() {
    keeps_the_order(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_messages_keep_their_order_while_they_fail_and_workers_come_and_go() {
    keeps_the_order(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_behind_one_that_is_given_up_go_on() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let poison = seen.and(|_, message| {
        if message.payload().as_ref() == b"1" { Err(HandlerError::from("no customer")) } else { Ok(()) }
    });
    let options = pull().in_order().exhausted(Exhausted::DeadLetter);
    let _consumption = consume(stage.address(), options, poison).await.unwrap();
    stage.publish(0..3).await;
    stage.all_settled().await;
    assert_eq!(seen.payloads(), ["0", "1", "1", "1", "2"]);
    assert_eq!(stage.stored("orders-dlq").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_its_turn_is_not_stuck() {
    let stage = Stage::set().await;
    // The server is asked for the state each sixth of `ack_wait`.
    let options = ConsumerOptions { ack_wait: Duration::from_secs(6), ..pull().in_order() };
    let seen = Seen::default();
    let _works = consume(stage.address(), options.clone(), seen.and_hang()).await.unwrap();
    stage.publish(0..2).await;
    seen.reaches(1).await;
    let waits = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    let mut asked = stage.hear("$JS.API.CONSUMER.INFO.orders.billing").await;
    for _ in 0..8 {
        asked.next().await;
        assert_ne!(waits.status().state, ConsumerState::Stuck);
    }
    assert_eq!(waits.counters().received, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_would_lose_the_order_and_may_not_be_changed_is_refused() {
    let stage = Stage::set().await;
    stage.create_durable("billing", json!({ "ack_policy": "explicit", "max_ack_pending": 7 })).await;
    let options = ConsumerOptions { manages_durable: false, ..pull().in_order() };
    let error = consume(stage.address(), options.clone(), Seen::default().and_ack()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("max_ack_pending 7"), "{error}");
    stage.create_durable("billing", json!({ "ack_policy": "explicit", "max_ack_pending": 1 })).await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    stage.publish(0..2).await;
    eventually("both are handled", async || seen.numbers() == [0, 1]).await;
}
