//! Messages that a graceful shutdown hands back before they ran lose no attempt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nats_consumer::{ConsumerOptions, Delivery, Exhausted, Inbox, Message, consume, consume_into};
use serde_json::{Value, json};

use crate::stage::{Basket, Seen, Stage, delays, eventually, pull, push};

fn options(of: ConsumerOptions) -> ConsumerOptions {
    ConsumerOptions { exhausted: Exhausted::Ack, retry: delays(3, &[10]), ..of }
}

/// A worker takes a number of messages, and is told to stop before it has started any.
async fn deploy(stage: &Stage, options: &ConsumerOptions, messages: usize) {
    let basket = Arc::new(Basket::default());
    let consumption = consume_into(stage.address(), options.clone(), basket.clone()).await.unwrap();
    eventually("all have arrived", async || basket.count() == messages).await;
    consumption.drain(Duration::ZERO).await;
    assert_eq!(consumption.counters().handed_back, messages as u64);
}

async fn every_handler_runs_three_times_after_ten_deploys(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..4).await;
    for _ in 0..10 {
        deploy(&stage, &options, 4).await;
    }
    let seen = Seen::default();
    let fails = seen.and(|_, _| Err::<(), _>("a moment's trouble"));
    let consumption = consume(stage.address(), options, fails).await.unwrap();
    stage.all_settled().await;
    for number in 0..4 {
        assert_eq!(
            seen.numbers().into_iter().filter(|seen| *seen == number).count(),
            3,
            "of message {number}"
        );
    }
    let counters = consumption.counters();
    assert_eq!((counters.exhausted, counters.dead_lettered), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_deploys_take_no_attempt_from_a_pulled_message_that_did_not_run() {
    every_handler_runs_three_times_after_ten_deploys(options(pull())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_deploys_take_no_attempt_from_a_pushed_message_that_did_not_run() {
    every_handler_runs_three_times_after_ten_deploys(ConsumerOptions { concurrency: 4, ..options(push()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_the_number_of_its_own_attempts() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let options = options(pull());
    deploy(&stage, &options, 1).await;
    deploy(&stage, &options, 1).await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |message: Message| {
        told.send((message.attempt(), message.context().is_last())).unwrap();
        std::future::ready(Err::<(), _>("a moment's trouble"))
    };
    let _consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    let mut attempts = Vec::new();
    while let Ok(attempt) = heard.try_recv() {
        attempts.push(attempt);
    }
    // Only the number of what may be the last attempt is looked into.
    assert_eq!(attempts, [(1, false), (2, false), (3, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_stop_at_the_same_moment_note_what_each_of_them_had() {
    let stage = Stage::set().await;
    stage.publish(0..20).await;
    let options = ConsumerOptions { max_ack_pending: Some(20), ..options(pull()) };
    let mut workers = Vec::new();
    for _ in 0..5 {
        let basket = Arc::new(Basket::default());
        workers.push(
            consume_into(stage.address(), ConsumerOptions { concurrency: 4, ..options.clone() }, basket)
                .await
                .unwrap(),
        );
    }
    eventually("all have arrived", async || stage.billing().await["num_ack_pending"] == 20).await;
    let drains = workers.iter().map(|worker| worker.drain(Duration::ZERO));
    futures_util::future::join_all(drains).await;
    let record = record(&stage).await;
    let lines = record.as_array().unwrap();
    let handed_back: u64 = workers.iter().map(|worker| worker.counters().handed_back).sum();
    let noted: u64 = lines.iter().map(|line| line["deliveries"].as_u64().unwrap()).sum();
    assert_eq!(noted, handed_back);
}

/// Record of the durable `billing`.
async fn record(stage: &Stage) -> Value {
    let what = json!({ "last_by_subj": "_mark.orders.billing.handed-back" });
    let found = stage.api("STREAM.MSG.GET.orders-marks", &what).await;
    let data = found["message"]["data"].as_str().unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_stops_nothing() {
    let stage = Stage::set().await;
    stage.create_stream("orders-marks", &["_mark.orders.>"]).await;
    stage.client.request("_mark.orders.billing.handed-back", "no record".into()).await.unwrap();
    stage.publish(0..2).await;
    let options = options(pull());
    deploy(&stage, &options, 2).await;
    let seen = Seen::default();
    let fails = seen.and(|_, _| Err::<(), _>("a moment's trouble"));
    let _consumption = consume(stage.address(), options, fails).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.attempts().into_iter().max(), Some(3));
}

/// An inbox that handles nothing, and remembers what it is told.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Vec<&'static str>>);

impl Told {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn so_far(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

impl Inbox for Told {
    fn put(&self, _: &mut Vec<Delivery>) {}

    fn waiting(&self) -> usize {
        0
    }

    fn recall(&self) -> Vec<Delivery> {
        self.note("recall");
        Vec::new()
    }

    fn reopen(&self) {
        self.note("reopen");
    }

    fn cancel(&self) {}

    fn close(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_start_again_after_a_suspension_however_soon_it_ends() {
    let stage = Stage::set().await;
    let told = Arc::new(Told::default());
    let consumption = consume_into(stage.address(), pull(), told.clone()).await.unwrap();
    eventually("it fetches", async || !told.so_far().is_empty()).await;
    for recalls in 1..=3 {
        consumption.suspend();
        consumption.resume();
        // A suspension that ends at once may not be seen; what matters is the order of those that are.
        consumption.suspend();
        let recalled = || told.so_far().into_iter().filter(|what| *what == "recall").count();
        eventually("it is suspended", async || recalled() >= recalls).await;
        consumption.resume();
        eventually("it goes on", async || told.so_far().last() == Some(&"reopen")).await;
    }
}
