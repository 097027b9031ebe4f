//! A worker that dies at each step of the journey: nothing is lost, and what was settled does not come again.
//!
//! The worker is this very program, started once more and told by the environment where to end itself.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{ConnectOptions, ConsumerOptions, Exhausted, Message, Outcome, consume};
use serde_json::json;
use tokio::sync::Notify;

use crate::stage::{Seen, Stage, eventually, pull, text};
use crate::suspect::lose_workers;

pub(crate) const SERVER: &str = "MORTAL_SERVER";
pub(crate) const MESSAGES: usize = 40;

/// Options with an `ack_wait` that is long enough to count the messages of a dead worker.
pub(crate) fn options() -> ConsumerOptions {
    ConsumerOptions {
        ack_wait: Duration::from_secs(2),
        exhausted: Exhausted::DeadLetter,
        concurrency: 4,
        ..pull()
    }
}

pub(crate) fn answer(message: &Message) -> Outcome {
    match text(message).as_str() {
        "7" => Outcome::DeadLetter { reason: "unlucky".into() },
        _ => Outcome::Ack,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the worker that the other tests start, and that ends itself"]
async fn worker() {
    let server = std::env::var(SERVER).expect("the other tests start it");
    let told = Arc::new(Notify::new());
    let telling = told.clone();
    let handler = move |message: Message| {
        if text(&message) == "20" {
            telling.notify_one();
        }
        std::future::ready(answer(&message))
    };
    let consumption = consume(ConnectOptions::to([server]), options(), handler).await.unwrap();
    told.notified().await;
    if std::env::var("NATS_CONSUMER_DIES").unwrap().starts_with("draining") {
        consumption.drain(Duration::from_secs(9)).await;
    }
    std::future::pending::<()>().await;
}

/// Starts this program once more, as the test of this name, and tells it a step by the environment.
pub(crate) fn start_again(worker: &str, stage: &Stage, step: (&str, &str)) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", worker, "--ignored", "--nocapture"])
        .env(SERVER, stage.server.url())
        .envs([step])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a worker and waits until it has ended itself at the step, which it passes a number of times before.
async fn dies_at(stage: &Stage, step: &str) {
    let mut worker = start_again("mortal::worker", stage, ("NATS_CONSUMER_DIES", step));
    eventually("the worker dies", async || worker.try_wait().unwrap().is_some()).await;
    assert!(worker.wait().unwrap().code().is_none(), "it ended otherwise than by a signal");
}

/// Another worker finishes what the dead one left: exactly what the server has no settlement of.
async fn is_finished_by_another(step: &str) {
    let stage = Stage::set().await;
    stage.publish(0..MESSAGES).await;
    dies_at(&stage, step).await;
    finish(&stage, step).await;
}

/// Has another worker handle the messages that the server has no settlement of, and no others. Returns their number.
pub(crate) async fn finish(stage: &Stage, step: &str) -> u64 {
    let billing = stage.billing().await;
    let unsettled = billing["num_pending"].as_u64().unwrap() + billing["num_ack_pending"].as_u64().unwrap();
    let seen = Seen::default();
    let _other = consume(stage.address(), options(), seen.and(|_, message| answer(message))).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.count() as u64, unsettled, "{step}: {billing}");
    assert_eq!(stage.stored("orders-dlq").await, 1, "{step}");
    unsettled
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_a_handler_starts_loses_nothing() {
    is_finished_by_another("fetched:0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_when_a_handler_has_started_loses_nothing() {
    is_finished_by_another("started:10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_when_a_handler_has_returned_loses_nothing() {
    is_finished_by_another("returned:10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_when_a_settlement_is_written_loses_nothing() {
    is_finished_by_another("written:10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_between_a_dead_letter_and_its_end_stores_it_once() {
    is_finished_by_another("stored:0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_drains_loses_nothing() {
    is_finished_by_another("draining:0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_a_mark_is_written_costs_its_suspect_nothing() {
    let stage = Stage::set().await;
    lose_workers(&stage, 1, 4).await;
    dies_at(&stage, "marking:0").await;
    let seen = Seen::default();
    let _other = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    assert_eq!((seen.count(), stage.stored("orders-dlq").await), (1, 0));
}

/// Under its mark: before it starts, and while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_a_suspect_leaves_it_to_be_kept_as_a_dead_letter() {
    for step in ["marked:0", "started:0"] {
        let stage = Stage::set().await;
        lose_workers(&stage, 1, 4).await;
        dies_at(&stage, step).await;
        let mark = stage.api("STREAM.INFO.orders-marks", &json!(null)).await;
        assert_eq!(mark["state"]["messages"], 1);
        let seen = Seen::default();
        let _other = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
        stage.all_settled().await;
        assert_eq!((seen.count(), stage.stored("orders-dlq").await), (0, 1), "{step}");
    }
}
