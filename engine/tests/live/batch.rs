//! Several messages in one call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nats_consumer::{
    Attempt, BatchHandler, Batching, ConsumerOptions, Exhausted, HandlerError, Message, Outcome, Outcomes,
    consume, consume_batches,
};

use crate::stage::{SOON, Stage, eventually, pull, push, text};

/// A wait that a busy server does not outlast.
const WAIT: Duration = Duration::from_secs(3);

fn batched(options: ConsumerOptions, messages: usize) -> ConsumerOptions {
    let batching = Batching { wait: WAIT, ..Batching::of(messages) };
    ConsumerOptions { exhausted: Exhausted::DeadLetter, ..options.concurrency(1).batching(batching) }
}

/// A handler that remembers the numbers in each of its calls, and the outcomes.
#[derive(Clone)]
struct Rows {
    calls: Arc<Mutex<Vec<Vec<usize>>>>,
    attempts: Arc<Mutex<Vec<(usize, &'static str)>>>,
    fails: fn(&[usize]) -> Option<HandlerError>,
}

impl Rows {
    fn failing(fails: fn(&[usize]) -> Option<HandlerError>) -> Self {
        Self { calls: Arc::default(), attempts: Arc::default(), fails }
    }

    fn calls(&self) -> Vec<Vec<usize>> {
        self.calls.lock().unwrap().clone()
    }

    fn with_outcome(&self, outcome: &str) -> Vec<usize> {
        let attempts = self.attempts.lock().unwrap();
        let mut found: Vec<_> =
            attempts.iter().filter(|(_, name)| *name == outcome).map(|(number, _)| *number).collect();
        found.sort_unstable();
        found
    }
}

fn number(message: &Message) -> usize {
    text(message).parse().unwrap()
}

impl BatchHandler for Rows {
    async fn handle_batch(&self, messages: Vec<Message>) -> Result<Outcomes, HandlerError> {
        let numbers: Vec<_> = messages.iter().map(number).collect();
        self.calls.lock().unwrap().push(numbers.clone());
        (self.fails)(&numbers).map_or(Ok(Outcomes::default()), Err)
    }

    fn is_common(&self, error: &HandlerError) -> bool {
        error.to_string() == "the index is away"
    }

    fn attempted(&self, attempt: &Attempt<'_>) {
        self.attempts.lock().unwrap().push((number(attempt.message), attempt.outcome.name()));
    }
}

async fn messages_gather(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..250).await;
    let rows = Rows::failing(|_| None);
    let consumption = consume_batches(stage.address(), batched(options, 100), rows.clone()).await.unwrap();
    stage.all_settled().await;
    let sizes: Vec<_> = rows.calls().iter().map(Vec::len).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(rows.calls().concat(), (0..250).collect::<Vec<_>>());
    assert_eq!(rows.with_outcome("ack").len(), 250);
    assert_eq!(consumption.drain(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_messages_gather_until_a_batch_is_full_or_the_first_has_waited() {
    messages_gather(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_messages_gather_until_a_batch_is_full_or_the_first_has_waited() {
    messages_gather(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_message_of_a_hundred_is_found_and_the_others_are_done() {
    let stage = Stage::set().await;
    stage.publish(0..100).await;
    let rows = Rows::failing(|numbers| numbers.contains(&41).then(|| HandlerError::from("41")));
    let options = batched(pull(), 100).retry(crate::stage::delays(1, &[10]));
    let consumption = consume_batches(stage.address(), options, rows.clone()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(rows.with_outcome("dead_letter"), [41]);
    assert_eq!(rows.with_outcome("ack").len(), 99);
    assert!(rows.calls().len() <= 16, "{}", rows.calls().len());
    assert_eq!(consumption.counters().dead_lettered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_surroundings_is_not_split_and_takes_no_message_to_the_dead_letters() {
    let stage = Stage::set().await;
    stage.publish(0..100).await;
    let rows = Rows::failing(|_| Some("the index is away".into()));
    let options = batched(pull(), 100).retry(crate::stage::delays(1, &[60_000]));
    let consumption = consume_batches(stage.address(), options, rows.clone()).await.unwrap();
    eventually("all are retried", async || consumption.counters().retried == 100).await;
    assert_eq!(rows.calls().len(), 1);
    assert_eq!(rows.with_outcome("retry").len(), 100);
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_an_error_is_that_of_the_message_which_fails_alone() {
    let stage = Stage::set().await;
    stage.publish(0..10).await;
    let rows = Rows::failing(|numbers| numbers.contains(&4).then(|| HandlerError::drop("of no use")));
    let options = batched(pull(), 10);
    let _consumption = consume_batches(stage.address(), options, rows.clone()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(rows.with_outcome("drop"), [4]);
    assert_eq!(rows.with_outcome("ack").len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_may_have_its_own_outcome() {
    let stage = Stage::set().await;
    stage.publish(0..4).await;
    let handler = async |messages: Vec<Message>| {
        let mut outcomes = Outcomes::default();
        for (index, message) in messages.iter().enumerate() {
            match (number(message), message.metadata().unwrap().delivered) {
                (1, 1) => outcomes.fail(index, "a moment's trouble"),
                (2, _) => outcomes.set(index, Outcome::DeadLetter { reason: "no such shop".into() }),
                (3, _) => outcomes.set(index, Outcome::Drop { reason: "a test".into() }),
                _ => {}
            }
        }
        outcomes
    };
    let options = batched(pull(), 4);
    let options =
        ConsumerOptions { batching: Some(Batching { wait: SOON / 10, ..Batching::of(4) }), ..options };
    let consumption = consume_batches(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    let counters = consumption.counters();
    assert_eq!((counters.succeeded, counters.failed), (2, 1));
    assert_eq!((counters.dead_lettered, counters.dropped), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gathers_at_a_drain_is_handed_back_at_once() {
    let stage = Stage::set().await;
    stage.publish(0..10).await;
    let rows = Rows::failing(|_| None);
    let consumption = consume_batches(stage.address(), batched(pull(), 100), rows.clone()).await.unwrap();
    eventually("all gather", async || consumption.counters().in_flight == 10).await;
    assert_eq!(consumption.drain(WAIT * 2).await, 0);
    assert_eq!(consumption.counters().handed_back, 10);
    assert!(rows.calls().is_empty());

    let next = batched(pull(), 10);
    let _next = consume_batches(stage.address(), next, rows.clone()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(rows.calls().concat().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_exceeds_its_time_is_cancelled_and_comes_again_whole() {
    let stage = Stage::set().await;
    stage.publish(0..5).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let handler = move |messages: Vec<Message>| {
        noted.lock().unwrap().push(messages.len());
        let is_first = noted.lock().unwrap().len() == 1;
        async move {
            if is_first {
                std::future::pending::<()>().await;
            }
        }
    };
    let options = batched(pull(), 5).handler_timeout(Duration::from_millis(100));
    let _consumption = consume_batches(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(*calls.lock().unwrap(), [5, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_handler_is_split_like_an_error() {
    let stage = Stage::set().await;
    stage.publish(0..8).await;
    let rows = Rows::failing(|numbers| {
        assert!(!numbers.contains(&3), "three");
        None
    });
    let options = batched(pull(), 8).retry(crate::stage::delays(1, &[10]));
    let _consumption = consume_batches(stage.address(), options, rows.clone()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(rows.with_outcome("dead_letter"), [3]);
    assert_eq!(rows.with_outcome("ack").len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_single_messages_refuses_batching() {
    let stage = Stage::set().await;
    let error = consume(stage.address(), batched(pull(), 8), async |_: Message| ()).await.unwrap_err();
    assert!(error.to_string().contains("consume_batches"), "{error}");
}
