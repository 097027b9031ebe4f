//! The final word on a message whose last attempt failed, and on one that its handler gives up.

use std::time::Duration;

use nats_consumer::{ConsumerOptions, Exhausted, HandlerError, Outcome, consume};

use crate::stage::{Heard, Seen, Stage, delays, pull, push};

/// Fails always; returns when the server has nothing left, with what was said to it.
async fn ends_after_the_last_attempt(options: ConsumerOptions) -> Vec<String> {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let failing = seen.and(|_, _| Err::<(), _>(HandlerError::from("for ever")));
    let consumption = consume(stage.address(), options, failing).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.attempts(), [1, 2, 3]);
    assert_eq!(consumption.counters().exhausted, 1);
    settlements.so_far()
}

const RETRIES: [&str; 2] = ["-NAK {\"delay\":50000000}", "-NAK {\"delay\":100000000}"];

#[tokio::test(flavor = "multi_thread")]
async fn ack_acknowledges_after_the_last_attempt() {
    for options in [pull(), push()] {
        let options = ConsumerOptions { exhausted: Exhausted::Ack, ..options };
        assert_eq!(ends_after_the_last_attempt(options).await, [RETRIES[0], RETRIES[1], "+ACK"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_terminates_after_the_last_attempt() {
    for options in [pull(), push()] {
        let options = ConsumerOptions { exhausted: Exhausted::Drop, ..options };
        let end = "+TERM attempts exhausted";
        assert_eq!(ends_after_the_last_attempt(options).await, [RETRIES[0], RETRIES[1], end]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_hands_back_for_the_longest_delay_and_tries_again() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        stage.publish(0..1).await;
        let seen = Seen::default();
        let handler =
            seen.and(|attempt, _| if attempt < 5 { Err(HandlerError::from("for long")) } else { Ok(()) });
        let options =
            ConsumerOptions { exhausted: Exhausted::Retry, retry: delays(2, &[300, 10]), ..options };
        let consumption = consume(stage.address(), options, handler).await.unwrap();
        stage.all_settled().await;
        assert_eq!(seen.attempts(), [1, 2, 3, 4, 5]);
        assert!(seen.gaps().iter().all(|gap| *gap >= Duration::from_millis(300)), "{:?}", seen.gaps());
        assert_eq!(consumption.counters().dropped, 0);
    }
}

/// The first word said about a message whose handler returned `outcome`.
async fn word_for(outcome: Outcome) -> (Stage, Heard, String) {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    stage.publish(0..1).await;
    let handler = Seen::default().and(move |_, _| outcome.clone());
    let _consumption = consume(stage.address(), pull(), handler).await.unwrap();
    let word = settlements.next().await;
    stage.all_settled().await;
    (stage, settlements, String::from_utf8(word.payload.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_drops_a_message_ends_it_with_its_reason() {
    let (_stage, mut later, word) = word_for(Outcome::Drop { reason: "a test\norder".into() }).await;
    assert_eq!(word, "+TERM a test order");
    assert!(later.so_far().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_asks_for_a_dead_letter_gets_one_at_the_first_attempt() {
    let (stage, mut later, word) = word_for(Outcome::DeadLetter { reason: "no customer".into() }).await;
    assert_eq!(word, "+TERM no customer");
    assert_eq!(stage.stored("orders-dlq").await, 1);
    assert!(later.so_far().is_empty());
}
