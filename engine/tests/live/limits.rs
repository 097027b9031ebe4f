//! Account, server, stream and durable may allow less than the defaults ask for.

use std::time::Duration;

use nats_consumer::testing::NatsServer;
use nats_consumer::{ConsumerOptions, ErrorKind, consume};
use serde_json::{Value, json};

use crate::stage::{SOON, Seen, Stage, pull, push, within};

async fn is_consumed(stage: &Stage, options: ConsumerOptions, count: usize) {
    let seen = Seen::default();
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    stage.publish(0..count).await;
    seen.covers(0..count).await;
    stage.all_settled().await;
    assert_eq!(consumption.counters().repairs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_fewer_unsettled_deliveries_is_asked_for_what_it_allows() {
    for options in [pull(), push()] {
        let server = NatsServer::builder().config("jetstream { limits: { max_ack_pending: 500 } }");
        is_consumed(&Stage::set_on(server).await, options, 2000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_allows_fewer_unsettled_deliveries_is_asked_for_what_it_allows() {
    for options in [pull(), push()] {
        let accounts = "accounts { A { jetstream: { max_file: 1G, max_mem: 1G, max_ack_pending: 500 }, \
                        users: [{ user: a, password: a }] } }, no_auth_user: a";
        is_consumed(&Stage::set_on(NatsServer::builder().config(accounts)).await, options, 2000).await;
    }
}

async fn stage_with_limits(limits: Value) -> Stage {
    let stage = Stage::set().await;
    let mut config = stage.ask("STREAM.INFO.orders", &Value::Null).await["config"].clone();
    config["consumer_limits"] = limits;
    stage.api("STREAM.UPDATE.orders", &config).await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_allows_fewer_unsettled_deliveries_is_asked_for_what_it_allows() {
    for options in [pull(), push()] {
        let stage = stage_with_limits(json!({ "max_ack_pending": 500 })).await;
        is_consumed(&stage, options, 2000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_max_ack_pending_that_is_not_allowed_is_refused_by_its_name() {
    let stage = stage_with_limits(json!({ "max_ack_pending": 500 })).await;
    let options = ConsumerOptions { max_ack_pending: Some(501), ..pull() };
    let error = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("billing declares max_ack_pending = 501") && text.contains("allows 500"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_the_stream_deletes_within_an_hour_is_refused() {
    let stage = stage_with_limits(json!({ "inactive_threshold": 3_000_000_000_u64 })).await;
    let error = consume(stage.address(), pull(), Seen::default().and_ack()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    assert!(text.contains("3s") && text.contains("`consumer_limits` of the stream `orders`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_the_stream_keeps_for_days_is_consumed_and_not_written_again() {
    let stage = stage_with_limits(json!({ "inactive_threshold": 86_400_000_000_000_u64 })).await;
    let first = consume(stage.address(), pull(), Seen::default().and_ack()).await.unwrap();
    first.drain(Duration::from_secs(1)).await;
    let mut writes = stage.hear("$JS.API.CONSUMER.DURABLE.CREATE.>").await;
    is_consumed(&stage, pull(), 1).await;
    assert_eq!(writes.so_far(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_asks_for_more_than_the_server_allows() {
    let server = NatsServer::builder().config("jetstream { limits: { max_request_batch: 50 } }");
    is_consumed(&Stage::set_on(server).await, pull(), 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_asks_for_more_than_the_durable_allows() {
    let stage = Stage::set().await;
    let limits = json!({
        "ack_policy": "explicit", "max_batch": 1, "max_bytes": 100_000, "max_expires": 1_000_000_000,
    });
    stage.create_durable("billing", limits).await;
    is_consumed(&stage, pull(), 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_little_for_a_connection_is_asked_for_less_after_it_closed_one() {
    let stage = Stage::set_on(NatsServer::builder().config("max_pending: 2MB")).await;
    for _ in 0..60 {
        stage.client.request("orders.created", vec![b'x'; 500_000].into()).await.unwrap();
    }
    let seen = Seen::default();
    let options = ConsumerOptions { ack_wait: Duration::from_secs(2), ..pull() };
    let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_little_for_a_connection_pushes_less_after_it_closed_one() {
    let stage = Stage::set_on(NatsServer::builder().config("max_pending: 2MB")).await;
    for _ in 0..60 {
        stage.client.request("orders.created", vec![b'x'; 500_000].into()).await.unwrap();
    }
    // What was lost comes again after the default `ack_wait`, when the test is over: the server sends that at once, whatever
    // is allowed, and may close the connection again and again.
    let options = ConsumerOptions { concurrency: 60, ..push() };
    let consumption = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    within(SOON, "it is allowed less, or nothing was lost", async || {
        let billing = stage.billing().await;
        let allowed = billing["config"]["max_ack_pending"].as_i64().unwrap();
        allowed * 500_000 <= 17 * 1024 * 1024 || consumption.counters().succeeded == 60
    })
    .await;
}

async fn grouped(policy: &str) -> Stage {
    let stage = Stage::set().await;
    let mut config =
        json!({ "ack_policy": "explicit", "priority_groups": ["jobs"], "priority_policy": policy });
    if policy == "pinned_client" {
        config["priority_timeout"] = 120_000_000_000_u64.into();
    }
    stage.create_durable("billing", config).await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_with_a_priority_group_is_asked_in_its_name() {
    for policy in ["overflow", "prioritized"] {
        is_consumed(&grouped(policy).await, pull(), 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_pins_its_messages_to_one_client_is_refused_with_the_remedy() {
    let stage = grouped("pinned_client").await;
    let error = consume(stage.address(), pull(), Seen::default().and_ack()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("take the priority group away"), "{error}");
}
