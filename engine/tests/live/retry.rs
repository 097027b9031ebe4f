//! A failed attempt is followed by another one, when and as often as was said.

use std::time::Duration;

use nats_consumer::{ConsumerOptions, HandlerError, Message, Outcome, consume};
use serde_json::json;

use crate::stage::{Seen, Stage, delays, pull, push};

async fn comes_again_after_the_delays_of_the_policy(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let handler =
        seen.and(|attempt, _| if attempt < 3 { Err(HandlerError::from("not yet")) } else { Ok(()) });
    let options = ConsumerOptions { retry: delays(3, &[200, 400]), ..options };
    let consumption = consume(stage.address(), options, handler).await.unwrap();

    stage.all_settled().await;
    assert_eq!(seen.attempts(), [1, 2, 3]);
    let gaps = seen.gaps();
    assert!(gaps[0] >= Duration::from_millis(200), "{gaps:?}");
    assert!(gaps[1] >= Duration::from_millis(400), "{gaps:?}");
    let counters = consumption.counters();
    assert_eq!((counters.failed, counters.retried, counters.succeeded), (2, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_message_comes_again_after_the_delays_of_the_policy() {
    comes_again_after_the_delays_of_the_policy(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_message_comes_again_after_the_delays_of_the_policy() {
    comes_again_after_the_delays_of_the_policy(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_are_those_of_the_policy_though_the_durable_had_a_backoff() {
    let stage = Stage::set().await;
    // The server would add it to every delay, less its first entry: a minute and more.
    let backoff: Vec<u64> = [1, 60, 120].iter().map(|seconds| seconds * 1_000_000_000).collect();
    let older = json!({ "ack_policy": "explicit", "max_deliver": 5, "backoff": backoff });
    stage.create_durable("billing", older).await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let handler =
        seen.and(|attempt, _| if attempt < 3 { Err(HandlerError::from("not yet")) } else { Ok(()) });
    let options = ConsumerOptions { retry: delays(3, &[200, 400]), ..pull() };
    let _consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    let gaps = seen.gaps();
    assert!(gaps[0] >= Duration::from_millis(200), "{gaps:?}");
    assert!(gaps[1] >= Duration::from_millis(400), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_for_its_retry_blocks_nobody_behind_it() {
    let stage = Stage::set().await;
    stage.publish(0..50).await;
    let seen = Seen::default();
    let handler =
        seen.and(
            |_, message| {
                if *message.payload() == "0" { Err(HandlerError::from("not today")) } else { Ok(()) }
            },
        );
    let options = ConsumerOptions { retry: delays(2, &[3_600_000]), ..push() };
    let _consumption = consume(stage.address(), options, handler).await.unwrap();
    seen.covers(0..50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_choose_its_own_delay() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let handler = seen.and(|attempt, _| match attempt {
        1 => Outcome::Retry { after: Some(Duration::from_millis(300)) },
        _ => Outcome::Ack,
    });
    let consumption = consume(stage.address(), pull(), handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.attempts(), [1, 2]);
    assert!(seen.gaps()[0] >= Duration::from_millis(300), "{:?}", seen.gaps());
    assert_eq!(consumption.counters().failed, 0, "to ask for a retry is no failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_handler_is_a_failed_attempt_and_its_task_goes_on() {
    let stage = Stage::set().await;
    stage.publish(0..3).await;
    let seen = Seen::default();
    let handler = seen.and(|attempt, _| assert!(attempt > 1, "the first attempt panics"));
    let options = ConsumerOptions { concurrency: 1, ..pull() };
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.count(), 6);
    let counters = consumption.counters();
    assert_eq!((counters.failed, counters.succeeded), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_runs_out_of_time_is_a_failed_attempt() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let handler = move |message: Message| {
        let attempt = noting.note(&message);
        async move {
            if attempt == 1 {
                std::future::pending::<()>().await;
            }
        }
    };
    let options = ConsumerOptions { handler_timeout: Some(Duration::from_millis(100)), ..pull() };
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.attempts(), [1, 2]);
    assert_eq!(consumption.counters().failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_timeout_without_an_end_lets_handlers_run() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let options = pull().handler_timeout(Duration::MAX);
    let consumption = consume(stage.address(), options, async |_: Message| ()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(consumption.counters().succeeded, 1);
}
