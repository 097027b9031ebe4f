//! A panic in the engine's own tasks: nothing is left that only looks as if it consumed.
//!
//! The worker is this very program, started once more and told by the environment where to panic.

use std::process::Child;

use nats_consumer::{ConnectOptions, Message, consume};

use crate::mortal::{MESSAGES, SERVER, answer, finish, options, start_again};
use crate::stage::{SOON, Seen, Stage, eventually};
use crate::suspect::lose_workers;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the worker that the other tests start"]
async fn worker() {
    let server = std::env::var(SERVER).expect("the other tests start it");
    let handler = |message: Message| std::future::ready(answer(&message));
    let consumption = consume(ConnectOptions::to([server]), options(), handler).await.unwrap();
    consumption.finished().await;
    assert!(!consumption.is_running());
    consumption.drain(SOON).await;
}

fn panics_at(stage: &Stage, step: &str) -> Child {
    start_again("panic::worker", stage, ("NATS_CONSUMER_PANICS", step))
}

async fn has_ended_by_itself(mut worker: Child) {
    eventually("the consumption ends", async || worker.try_wait().unwrap().is_some()).await;
    assert!(worker.wait().unwrap().success());
}

/// The consumption is over, and another one finishes what the server has no settlement of.
async fn is_finished_by_another(step: &str) {
    let stage = Stage::set().await;
    stage.publish(0..MESSAGES).await;
    has_ended_by_itself(panics_at(&stage, step)).await;
    assert!(finish(&stage, step).await > 0, "{step}: it was not the panic that ended it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_fetch_ends_the_consumption_and_loses_nothing() {
    is_finished_by_another("fetched:0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_where_settlements_are_written_ends_the_consumption_and_loses_nothing() {
    is_finished_by_another("written:10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_where_a_dead_letter_is_stored_ends_the_consumption_and_stores_it_once() {
    is_finished_by_another("stored:0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_beside_a_suspect_ends_the_consumption_and_costs_it_nothing() {
    let stage = Stage::set().await;
    lose_workers(&stage, 1, 4).await;
    has_ended_by_itself(panics_at(&stage, "marking:0")).await;
    let seen = Seen::default();
    let _other = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    assert_eq!((seen.count(), stage.stored("orders-dlq").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_around_a_handler_costs_an_attempt_and_its_task_goes_on() {
    for step in ["started:10", "returned:10"] {
        let stage = Stage::set().await;
        stage.publish(0..MESSAGES).await;
        let mut worker = panics_at(&stage, step);
        stage.all_settled().await;
        assert!(worker.try_wait().unwrap().is_none(), "{step}: it still runs");
        worker.kill().unwrap();
        worker.wait().unwrap();
        assert_eq!(stage.billing().await["delivered"]["consumer_seq"], MESSAGES + 1, "{step}");
    }
}
