//! Dead letters: each is stored, whole and once, before its message is ended.

use std::time::Duration;

use async_nats::HeaderMap;
use nats_consumer::testing::NatsServer;
use nats_consumer::{ConnectOptions, ConsumerOptions, Exhausted, HandlerError, Outcome, consume};
use serde_json::{Value, json};

use crate::observe::Lines;
use crate::stage::{SOON, Seen, Stage, delays, eventually, pull};

fn options() -> ConsumerOptions {
    ConsumerOptions { exhausted: Exhausted::DeadLetter, ..pull() }
}

fn gives_up(seen: &Seen) -> impl nats_consumer::Handler {
    seen.and(|_, _| Outcome::DeadLetter { reason: "given up".into() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_the_payload_and_the_headers_and_tells_why() {
    let stage = Stage::set().await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let mut headers = HeaderMap::new();
    headers.insert("Trace", "abc");
    headers.append("Tag", "one");
    headers.append("Tag", "two");
    headers.insert("Nats-Msg-Id", "order-1");
    let payload = bytes::Bytes::from_static(b"\x00\xff{not json");
    stage.client.publish_with_headers("orders.created", headers, payload.clone()).await.unwrap();

    let failing = Seen::default().and(|_, _| Err::<(), _>(HandlerError::from("no such customer")));
    let consumption = consume(stage.address(), options(), failing).await.unwrap();
    let letter = letters.next().await;
    stage.all_settled().await;

    assert_eq!(letter.payload, payload);
    let headers = letter.headers.unwrap();
    let values = |name: &str| headers.get_all(name).map(|value| value.to_string()).collect::<Vec<_>>();
    let expected = [
        ("Dlq-Reason", "attempts exhausted"),
        ("Dlq-Error", "no such customer"),
        ("Dlq-Subject", "orders.created"),
        ("Dlq-Stream", "orders"),
        ("Dlq-Sequence", "1"),
        ("Dlq-Consumer", "billing"),
        ("Dlq-Deliveries", "3"),
        ("Dlq-Header-Nats-Msg-Id", "order-1"),
        ("Trace", "abc"),
    ];
    for (name, value) in expected {
        assert_eq!(values(name), [value], "{name}");
    }
    assert_eq!(values("Tag"), ["one", "two"]);
    assert_eq!(values("Dlq-Time").len(), 1);
    assert_eq!(stage.stored("orders-dlq").await, 1);
    let counters = consumption.counters();
    assert_eq!((counters.failed, counters.exhausted, counters.dead_lettered), (3, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_stored_once_though_it_is_given_up_twice() {
    let stage = Stage::set().await;
    stage.publish(0..5).await;
    let seen = Seen::default();
    let first = consume(stage.address(), options(), gives_up(&seen)).await.unwrap();
    stage.all_settled().await;
    first.drain(Duration::from_secs(1)).await;
    // The server forgets that all was settled, as when it is lost between the copy and the end.
    stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;
    let _second = consume(stage.address(), options(), gives_up(&seen)).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.count(), 10);
    assert_eq!(stage.stored("orders-dlq").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_recreated_stream_is_no_repeat() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let first = consume(stage.address(), options(), gives_up(&seen)).await.unwrap();
    stage.all_settled().await;
    first.drain(Duration::from_secs(1)).await;
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    stage.create_stream("orders", &["orders.>"]).await;
    stage.publish(1..2).await;
    let _second = consume(stage.address(), options(), gives_up(&seen)).await.unwrap();
    stage.all_settled().await;
    assert_eq!(stage.stored("orders-dlq").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_stays_until_its_dead_letter_can_be_stored() {
    let stage = Stage::set().await;
    let full = json!({ "name": "orders-dlq", "subjects": ["dlq.orders.>"], "discard": "new", "max_msgs": 1 });
    stage.api("STREAM.CREATE.orders-dlq", &full).await;
    stage.publish(0..2).await;
    let seen = Seen::default();
    let options = ConsumerOptions { retry: delays(1, &[200]), ..options() };
    let consumption = consume(stage.address(), options, gives_up(&seen)).await.unwrap();
    seen.reaches(2).await;
    eventually("one is stored", async || consumption.counters().dead_lettered == 1).await;
    eventually("the other one is not ended", async || stage.billing().await["num_ack_pending"] == 1).await;

    let larger =
        json!({ "name": "orders-dlq", "subjects": ["dlq.orders.>"], "discard": "new", "max_msgs": 9 });
    stage.api("STREAM.UPDATE.orders-dlq", &larger).await;
    stage.all_settled().await;
    assert_eq!(stage.stored("orders-dlq").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_stream_that_was_deleted_is_made_again() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let options = ConsumerOptions { retry: delays(3, &[100]), ..options() };
    let _consumption = consume(stage.address(), options, gives_up(&Seen::default())).await.unwrap();
    stage.all_settled().await;
    stage.api("STREAM.DELETE.orders-dlq", &Value::Null).await;
    stage.publish(1..2).await;
    stage.all_settled().await;
    assert_eq!(stage.stored("orders-dlq").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_as_large_as_the_server_takes_is_kept_apart_from_its_dead_letter() {
    let stage = Stage::set_on(NatsServer::builder().config("max_payload: 4096")).await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let mut payloads = stage.hear("dlq.orders.billing.payload.>").await;
    stage.client.publish("orders.created", vec![b'x'; 4096].into()).await.unwrap();
    let _consumption = consume(stage.address(), options(), gives_up(&Seen::default())).await.unwrap();
    let letter = letters.next().await;
    stage.all_settled().await;
    assert!(letter.payload.is_empty());
    let headers = letter.headers.unwrap();
    assert!(headers.get("Dlq-Payload").is_some());
    assert_eq!(headers.get("Dlq-Sequence").unwrap().as_str(), "1");
    assert_eq!(payloads.next().await.payload, vec![b'x'; 4096]);
    assert_eq!(stage.stored("orders-dlq").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_as_large_as_a_stream_takes_are_kept_apart_from_their_dead_letter() {
    let stage = Stage::set().await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let mut blocks = stage.hear("dlq.orders.billing.headers.>").await;
    let mut headers = HeaderMap::new();
    headers.insert("Large", "x".repeat(65_500));
    stage.client.publish_with_headers("orders.created", headers, "{}".into()).await.unwrap();
    let _consumption = consume(stage.address(), options(), gives_up(&Seen::default())).await.unwrap();
    let letter = letters.next().await;
    stage.all_settled().await;
    assert_eq!(letter.payload, "{}");
    let headers = letter.headers.unwrap();
    assert!(headers.get("Dlq-Headers-Apart").is_some() && headers.get("Large").is_none());
    let block = format!("NATS/1.0\r\nLarge: {}\r\n\r\n", "x".repeat(65_500));
    assert_eq!(blocks.next().await.payload, block);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_handler_always_asks_for_more_attempts_is_no_lost_worker() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    let seen = Seen::default();
    let handler = seen.and(|_, _| Outcome::Retry { after: Some(Duration::from_millis(10)) });
    let options = ConsumerOptions { exhausted: Exhausted::Ack, retry: delays(2, &[10]), ..options() };
    let _consumption = consume(stage.address(), options, handler).await.unwrap();
    let letter = letters.next().await;
    stage.all_settled().await;
    assert_eq!(seen.attempts(), [1, 2, 3, 4, 5]);
    assert_eq!(letter.headers.unwrap().get("Dlq-Reason").unwrap().as_str(), "attempts exhausted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_stream_that_was_full_for_long_strands_no_message() {
    let stage = Stage::set().await;
    let full = json!({ "name": "orders-dlq", "subjects": ["dlq.orders.>"], "max_msgs": 1, "discard": "new" });
    stage.api("STREAM.CREATE.orders-dlq", &full).await;
    stage.client.publish("dlq.orders.other", "in the way".into()).await.unwrap();
    let mut settlements = stage.hear_settlements().await;
    stage.publish(0..1).await;
    let options = ConsumerOptions { retry: delays(1, &[20]), ..options() };
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options, gives_up(&seen)).await.unwrap();
    for _ in 0..8 {
        assert!(settlements.next().await.payload.starts_with(b"-NAK"));
    }
    stage.api("STREAM.PURGE.orders-dlq", &Value::Null).await;
    stage.all_settled().await;
    assert_eq!(stage.stored("orders-dlq").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_wants_max_bytes_has_its_dead_letters_too() {
    let account = "jetstream: { max_file: 64MB, max_mem: 1M, max_bytes_required: true }";
    let config =
        format!("accounts {{ A {{ {account}, users: [{{ user: a, password: a }}] }} }}\nno_auth_user: a");
    let server = NatsServer::builder().config(&config).start().await.unwrap();
    let client = server.client().await.unwrap();
    let stage = Stage { server, client };
    let orders = json!({ "name": "orders", "subjects": ["orders.>"], "max_bytes": 48_000_000 });
    stage.api("STREAM.CREATE.orders", &orders).await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    stage.publish(0..1).await;
    let dead = Seen::default().and(|_, _| Outcome::DeadLetter { reason: "no".into() });
    let _consumption = consume(stage.address(), pull(), dead).await.unwrap();
    letters.next().await;
    stage.all_settled().await;
    let kept = stage.ask("STREAM.INFO.orders-dlq", &Value::Null).await;
    assert_eq!(kept["config"]["max_bytes"], 12_000_000, "the account has 16 MB left: {kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_was_purged_is_stored_again_when_its_message_fails_again() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options(), gives_up(&seen)).await.unwrap();
    stage.publish(0..1).await;
    stage.all_settled().await;
    assert_eq!(stage.stored("orders-dlq").await, 1);
    consumption.drain(Duration::from_secs(5)).await;
    stage.api("STREAM.PURGE.orders-dlq", &Value::Null).await;
    stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;

    let _consumption = consume(stage.address(), options(), gives_up(&seen)).await.unwrap();
    seen.reaches(2).await;
    stage.all_settled().await;
    assert_eq!(stage.stored("orders-dlq").await, 1, "the stream took it for a duplicate");
}

async fn streams(stage: &Stage) -> Value {
    stage.ask("STREAM.NAMES", &Value::Null).await["streams"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letter_stream_is_made_at_the_start_as_safe_as_its_source() {
    let stage = Stage::set().await;
    let source = json!({ "name": "orders", "subjects": ["orders.>"], "storage": "memory" });
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    stage.api("STREAM.CREATE.orders", &source).await;
    let _consumption = consume(stage.address(), options(), gives_up(&Seen::default())).await.unwrap();
    eventually("it is made", async || streams(&stage).await == json!(["orders", "orders-dlq"])).await;
    let config = stage.ask("STREAM.INFO.orders-dlq", &Value::Null).await["config"].clone();
    assert_eq!((&config["storage"], &config["num_replicas"]), (&json!("memory"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_of_a_stream_look_once_for_its_dead_letter_stream() {
    let stage = Stage::set().await;
    let mut looks = stage.hear("$JS.API.STREAM.INFO.orders-dlq").await;
    let mut consumptions = Vec::new();
    for number in 0..5 {
        let options = ConsumerOptions { durable: format!("billing-{number}"), ..options() };
        consumptions.push(consume(stage.address(), options, gives_up(&Seen::default())).await.unwrap());
    }
    eventually("it is made", async || streams(&stage).await == json!(["orders", "orders-dlq"])).await;
    for consumption in &consumptions {
        assert_eq!(consumption.drain(SOON).await, 0);
    }
    assert_eq!(looks.so_far().len(), 2, "once to look, and once before it is created");
}

/// The log line of the start that says why dead letters cannot be stored.
async fn said_at_the_start(stage: &Stage, connect: ConnectOptions, options: ConsumerOptions) -> String {
    let (lines, _guard) = Lines::heard();
    let _consumption = consume(connect, options, gives_up(&Seen::default())).await.unwrap();
    let line = lines.next_with("dead letter stream `orders-dlq`").await;
    assert!(streams(stage).await.as_array().is_none_or(|names| !names.contains(&json!("orders-dlq"))));
    line
}

#[tokio::test]
async fn a_missing_permission_to_create_the_dead_letter_stream_is_named_at_the_start() {
    let users = "authorization { users: [{ user: all, password: x }, { user: some, password: x, permissions: \
                 { publish: { deny: [\"$JS.API.STREAM.CREATE.*\"] } } }] }\nno_auth_user: all";
    let stage = Stage::set_on(NatsServer::builder().config(users)).await;
    let some = ConnectOptions { user: Some("some".into()), password: Some("x".into()), ..stage.address() };
    let line = said_at_the_start(&stage, some, options()).await;
    assert!(line.contains("$JS.API.STREAM.CREATE.orders-dlq") && line.contains("`dlq.orders.>`"), "{line}");
}

#[tokio::test]
async fn an_account_that_allows_no_further_stream_for_dead_letters_is_named_at_the_start() {
    let accounts = "accounts { A { jetstream: { max_file: 1G, max_mem: 1G, max_streams: 1 }, \
                    users: [{ user: a, password: a }] } }, no_auth_user: a";
    let stage = Stage::set_on(NatsServer::builder().config(accounts)).await;
    let line = said_at_the_start(&stage, stage.address(), options()).await;
    assert!(line.contains("maximum number of streams reached"), "{line}");
}

#[tokio::test]
async fn a_worker_that_manages_no_durables_creates_no_dead_letter_stream_at_the_start() {
    let stage = Stage::set().await;
    stage.create_durable("billing", json!({ "ack_policy": "explicit" })).await;
    let options = ConsumerOptions { manages_durable: false, ..options() };
    let line = said_at_the_start(&stage, stage.address(), options).await;
    assert!(line.contains("The first dead letter creates it"), "{line}");
}

#[tokio::test]
async fn a_dead_letter_stream_that_is_full_is_named_at_the_start() {
    let stage = Stage::set().await;
    let full = json!({ "name": "orders-dlq", "subjects": ["dlq.orders.>"], "discard": "new", "max_msgs": 1 });
    stage.api("STREAM.CREATE.orders-dlq", &full).await;
    stage.client.request("dlq.orders.other", "full".into()).await.unwrap();
    let (lines, _guard) = Lines::heard();
    let _consumption = consume(stage.address(), options(), gives_up(&Seen::default())).await.unwrap();
    lines.next_with("The dead letter stream `orders-dlq` is full").await;
}
