//! A consumer with nothing to do asks the JetStream API for little, and still notices what it has to.

use std::time::Duration;

use nats_consumer::testing::NatsServer;
use nats_consumer::{ConnectOptions, ConsumerOptions, Consumption, consume};
use serde_json::{Value, json};

use crate::stage::{Heard, SIGNS, Seen, Stage, pull, push};

const STATE: &str = "$JS.API.CONSUMER.INFO.orders.billing";

/// A consumption that asks ten to twenty times a second, because its lease is short.
struct Worker {
    stage: Stage,
    seen: Seen,
    signs: Heard,
    states: Heard,
    _consumption: Consumption,
}

impl Worker {
    async fn of(options: ConsumerOptions) -> Self {
        let stage = Stage::set().await;
        let address = stage.address();
        Self::at(stage, address, options).await
    }

    async fn at(stage: Stage, address: ConnectOptions, options: ConsumerOptions) -> Self {
        let options = ConsumerOptions { ack_wait: Duration::from_millis(600), ..options };
        let (signs, states) = (stage.hear(SIGNS).await, stage.hear(STATE).await);
        let seen = Seen::default();
        let consumption = consume(address, options, seen.and_ack()).await.unwrap();
        Self { stage, seen, signs, states, _consumption: consumption }
    }

    /// Waits for longer than `ack_wait`.
    async fn is_idle(&mut self) {
        for _ in 0..20 {
            self.signs.next().await;
        }
    }
}

async fn asks_seldom_for_the_state(options: ConsumerOptions) {
    let mut worker = Worker::of(options).await;
    worker.is_idle().await;
    let asked = worker.states.so_far().len();
    // To bind it, to know where it stands, and to see that nothing happens.
    assert!((2..=5).contains(&asked), "{asked} questions for the state");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pull_consumer_asks_seldom_for_the_state_of_its_durable() {
    asks_seldom_for_the_state(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_push_consumer_asks_seldom_for_the_state_of_its_durable() {
    asks_seldom_for_the_state(push()).await;
}

async fn handles_the_first_attempt(options: ConsumerOptions) {
    let mut worker = Worker::of(options).await;
    worker.is_idle().await;
    worker.states.so_far();
    worker.stage.publish(0..1).await;
    worker.seen.covers(0..1).await;
    assert_eq!(worker.seen.attempts(), [1], "it counted as held up on its way");
    worker.states.next().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_an_idle_pull_consumer_is_handled_at_its_first_attempt() {
    handles_the_first_attempt(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_an_idle_push_consumer_is_handled_at_its_first_attempt() {
    handles_the_first_attempt(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_push_consumer_whose_durable_is_deleted_goes_on() {
    let mut worker = Worker::of(push()).await;
    worker.is_idle().await;
    worker.stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;
    worker.stage.publish(0..1).await;
    worker.seen.covers(0..1).await;
}

/// A server that is told to end a pause at once sends a push consumer nothing until the next message is stored.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_push_consumer_goes_on_after_a_pause_that_was_too_short_to_be_seen() {
    let mut worker = Worker::of(push()).await;
    worker.is_idle().await;
    let pause = async |until: &str| {
        worker.stage.api("CONSUMER.PAUSE.orders.billing", &json!({ "pause_until": until })).await;
    };
    pause("2100-01-01T00:00:00Z").await;
    worker.stage.publish(0..3).await;
    pause("2000-01-01T00:00:00Z").await;
    worker.seen.covers(0..3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_that_may_not_send_a_sign_asks_for_the_state_instead() {
    let config = format!(
        "authorization {{ users: [{{ user: all, password: x }}, \
         {{ user: some, password: x, permissions: {{ publish: {{ deny: [\"{SIGNS}\"] }} }} }}] }}\n\
         no_auth_user: all"
    );
    let stage = Stage::set_on(NatsServer::builder().config(config)).await;
    let (user, password) = (Some("some".into()), Some("x".into()));
    let address = ConnectOptions { user, password, ..stage.address() };
    let mut worker = Worker::at(stage, address, pull()).await;
    for _ in 0..10 {
        worker.states.next().await;
    }
    assert!(worker.signs.so_far().is_empty());
}
