//! Outages: the consumption goes on by itself, and nothing is lost.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nats_consumer::testing::NatsServer;
use nats_consumer::{ConnectOptions, ConsumerOptions, Consumption, Start, consume};
use serde_json::{Value, json};

use crate::observe::Lines;
use crate::stage::{Seen, Stage, delays, eventually, pull, push, text};

/// Time after which messages come again whose delivery the server forgot.
const ACK_WAIT: Duration = Duration::from_secs(2);

async fn goes_on_when_the_server_was_killed(options: ConsumerOptions) {
    let options = ConsumerOptions { ack_wait: ACK_WAIT, ..options };
    let mut stage = Stage::set().await;
    stage.publish(0..3000).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    seen.reaches(300).await;
    stage.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !consumption.is_connected()).await;
    stage.server.restart().await.unwrap();
    seen.covers(0..3000).await;
    stage.publish(3000..3010).await;
    seen.covers(0..3010).await;
    stage.all_settled().await;
    assert!(consumption.is_running() && consumption.is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_when_the_server_was_killed() {
    goes_on_when_the_server_was_killed(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_on_when_the_server_was_killed() {
    goes_on_when_the_server_was_killed(push()).await;
}

async fn goes_on_when_the_server_was_frozen(options: ConsumerOptions) {
    let options = ConsumerOptions { ack_wait: ACK_WAIT, ..options };
    let stage = Stage::set().await;
    let address = ConnectOptions { ping_interval: Duration::from_secs(1), ..stage.address() };
    stage.publish(0..10).await;
    let seen = Seen::default();
    let consumption = consume(address, options, seen.and_ack()).await.unwrap();
    seen.covers(0..10).await;
    stage.server.pause().unwrap();
    eventually("the silence is noticed", async || !consumption.is_connected()).await;
    stage.server.resume().unwrap();
    eventually("the link is up", async || consumption.is_connected()).await;
    stage.publish(10..1000).await;
    seen.covers(0..1000).await;
    stage.all_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_when_the_server_was_frozen() {
    goes_on_when_the_server_was_frozen(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_on_when_the_server_was_frozen() {
    goes_on_when_the_server_was_frozen(push()).await;
}

/// An earlier worker settles all that there is, and leaves.
async fn settles_all(stage: &Stage, options: &ConsumerOptions) {
    let earlier = consume(stage.address(), options.clone(), Seen::default().and_ack()).await.unwrap();
    stage.all_settled().await;
    earlier.drain(Duration::from_secs(1)).await;
}

async fn consumes_and_knows_where_it_stands(
    stage: &Stage,
    options: ConsumerOptions,
    seen: &Seen,
) -> Consumption {
    let mut looks = stage.hear("$JS.API.CONSUMER.INFO.orders.billing").await;
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    // Once to bind it, and once to note where it stands.
    looks.next().await;
    looks.next().await;
    consumption
}

async fn goes_on_where_a_deleted_durable_stood(options: ConsumerOptions) {
    let stage = Stage::set().await;
    stage.publish(0..500).await;
    settles_all(&stage, &options).await;

    let seen = Seen::default();
    let _consumption = consumes_and_knows_where_it_stands(&stage, options, &seen).await;
    stage.publish(500..510).await;
    seen.covers(500..510).await;
    stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;
    stage.publish(510..520).await;
    eventually("it is consumed on", async || seen.numbers().last() == Some(&519)).await;
    stage.all_settled().await;
    assert_eq!(seen.numbers()[0], 500, "what was settled long ago is not replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_where_a_deleted_durable_stood() {
    goes_on_where_a_deleted_durable_stood(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_on_where_a_deleted_durable_stood() {
    goes_on_where_a_deleted_durable_stood(push()).await;
}

#[tokio::test]
async fn a_durable_that_was_deleted_is_told_with_the_messages_that_come_again() {
    let stage = Stage::set().await;
    stage.publish(0..3).await;
    // The first message waits for its retry, and keeps the floor below the others.
    let options = ConsumerOptions { ack_wait: ACK_WAIT, retry: delays(9, &[3_600_000]), ..pull() };
    let failing = Seen::default().and(|_, message| if text(message) == "0" { Err("later") } else { Ok(()) });
    let earlier = consume(stage.address(), options.clone(), failing).await.unwrap();
    eventually("two are settled", async || {
        earlier.counters().succeeded == 2 && earlier.counters().retried == 1
    })
    .await;
    earlier.drain(Duration::from_secs(1)).await;
    let mut looks = stage.hear("$JS.API.CONSUMER.INFO.orders.billing").await;
    let (lines, _guard) = Lines::heard();
    let _consumption = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    // Once to bind it, then to note where it stands; when it is asked again, that is answered.
    for _ in 0..4 {
        looks.next().await;
    }
    stage.api("CONSUMER.DELETE.orders.billing", &Value::Null).await;
    let line = lines.next_with("The durable was deleted").await;
    assert!(line.contains("Up to 3 messages are delivered a second time"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_durable_of_a_work_queue_is_recreated() {
    for options in [ConsumerOptions::pull("jobs", "billing"), ConsumerOptions::push("jobs", "billing")] {
        let stage = Stage::set().await;
        let config = json!({ "name": "jobs", "subjects": ["jobs.>"], "retention": "workqueue" });
        stage.api("STREAM.CREATE.jobs", &config).await;
        let seen = Seen::default();
        let mut looks = stage.hear("$JS.API.CONSUMER.INFO.jobs.billing").await;
        let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
        looks.next().await;
        looks.next().await;
        stage.client.publish("jobs.created", "0".into()).await.unwrap();
        seen.covers(0..1).await;
        eventually("it is gone from the queue", async || stage.stored("jobs").await == 0).await;
        stage.api("CONSUMER.DELETE.jobs.billing", &Value::Null).await;
        stage.client.publish("jobs.created", "1".into()).await.unwrap();
        seen.covers(0..2).await;
        eventually("nothing is left", async || stage.stored("jobs").await == 0).await;
        assert_eq!(seen.count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_stream_is_consumed_from_its_beginning() {
    let stage = Stage::set().await;
    stage.publish(0..20).await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), pull(), seen.and_ack()).await.unwrap();
    seen.covers(0..20).await;
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    stage.create_stream("orders", &["orders.>"]).await;
    stage.publish(20..25).await;
    seen.covers(0..25).await;
}

/// Copies the store of a server that is stopped, in place of what is there.
fn copy_store(from: &Path, to: &Path) {
    fs::remove_dir_all(to).ok();
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// The store is put back to an older copy, in which the stream holds 10 messages and grows by `grown` before any
/// worker sees it. 20 had been settled before.
async fn consumes_what_a_restored_stream_has(options: ConsumerOptions, has_durable: bool, grown: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (store, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let mut stage = Stage::set_on(NatsServer::builder().store(&store)).await;
    stage.publish(0..10).await;
    if has_durable {
        settles_all(&stage, &options).await;
    }
    stage.server.stop().await.unwrap();
    copy_store(&store, &copy);
    stage.server.restart().await.unwrap();
    stage.publish(10..20).await;
    settles_all(&stage, &options).await;
    let seen = Seen::default();
    let _consumption = consumes_and_knows_where_it_stands(&stage, options, &seen).await;
    stage.publish(20..21).await;
    seen.covers(20..21).await;

    let mut older = NatsServer::builder().store(&copy).start().await.unwrap();
    let client = older.client().await.unwrap();
    for number in 100..100 + grown {
        client.request("orders.created", number.to_string().into()).await.unwrap();
    }
    older.stop().await.unwrap();
    stage.server.stop().await.unwrap();
    copy_store(&copy, &store);
    stage.server.restart().await.unwrap();
    let expected = || (100..100 + grown).map(|number| number.to_string());
    eventually("what the stream has now is consumed", async || {
        let payloads = seen.payloads();
        expected().all(|number| payloads.contains(&number))
    })
    .await;
    stage.publish(200..201).await;
    eventually("and what comes", async || seen.payloads().contains(&"200".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_restored_from_an_older_copy_without_the_durable_is_consumed_from_its_beginning() {
    for options in [pull(), push()] {
        consumes_what_a_restored_stream_has(options, false, 5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_stream_that_has_grown_beyond_the_old_position_is_consumed_from_its_beginning() {
    for options in [pull(), push()] {
        consumes_what_a_restored_stream_has(options, false, 25).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_was_restored_with_its_stream_goes_on_where_it_stood_in_the_copy() {
    for options in [pull(), push()] {
        consumes_what_a_restored_stream_has(options, true, 25).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_given_up_is_opened_again() {
    for options in [pull(), push()] {
        let mut stage = Stage::set().await;
        let address = ConnectOptions { max_reconnects: Some(1), ..stage.address() };
        let seen = Seen::default();
        let consumption = consume(address, options, seen.and_ack()).await.unwrap();
        stage.server.kill().await.unwrap();
        eventually("the connection is given up", async || consumption.counters().repairs > 0).await;
        stage.server.restart().await.unwrap();
        stage.publish(0..10).await;
        seen.covers(0..10).await;
        stage.all_settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_another_version_changed_is_still_consumed() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), pull(), seen.and_ack()).await.unwrap();
    stage.create_durable("billing", json!({ "ack_policy": "explicit", "max_ack_pending": 7 })).await;
    stage.publish(0..100).await;
    seen.covers(0..100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_stream_is_consumed_from_its_beginning_though_new_messages_are_declared() {
    for options in
        [ConsumerOptions { start: Start::New, ..pull() }, ConsumerOptions { start: Start::Last, ..push() }]
    {
        let stage = Stage::set().await;
        let seen = Seen::default();
        let _consumption = consumes_and_knows_where_it_stands(&stage, options, &seen).await;
        stage.publish(0..1).await;
        seen.covers(0..1).await;
        stage.api("STREAM.DELETE.orders", &Value::Null).await;
        stage.create_stream("orders", &["orders.>"]).await;
        stage.publish(1..6).await;
        seen.covers(0..6).await;
    }
}
