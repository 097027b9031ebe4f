//! The durable that is declared and the one that the server has.

use std::time::Duration;

use nats_consumer::observe::Metrics;
use nats_consumer::stream::create_stream;
use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, Error, ErrorKind, Message, Start, consume, consume_observed,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::observe::Lines;
use crate::stage::{SOON, Seen, Stage, eventually, pull, push};

async fn refused(stage: &Stage, options: ConsumerOptions) -> Error {
    consume(stage.address(), options, Seen::default().and_ack()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_exist_is_named() {
    let stage = Stage::set().await;
    let error = refused(&stage, ConsumerOptions::pull("invoices", "billing")).await;
    assert_eq!(error.kind(), ErrorKind::StreamNotFound);
    assert!(error.to_string().contains("invoices"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_of_the_other_kind_is_refused_with_the_remedy() {
    for (there, declared) in [(pull(), push()), (push(), pull())] {
        let stage = Stage::set().await;
        drop(consume(stage.address(), there, Seen::default().and_ack()).await.unwrap());
        let error = refused(&stage, declared).await;
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let text = error.to_string();
        for part in ["`billing`", "pull", "push", "another durable name"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_acknowledges_by_itself_is_refused() {
    let stage = Stage::set().await;
    stage.create_durable("billing", json!({ "ack_policy": "all" })).await;
    let error = refused(&stage, pull()).await;
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("`all`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_differs_is_changed_to_what_is_declared_and_keeps_its_position() {
    let stage = Stage::set().await;
    stage.publish(0..10).await;
    let older = json!({
        "ack_policy": "explicit", "deliver_policy": "by_start_sequence", "opt_start_seq": 6,
        "max_deliver": 9, "backoff": [1_000_000_000, 2_000_000_000], "description": "kept",
        "inactive_threshold": 60_000_000_000_u64,
    });
    stage.create_durable("billing", older).await;
    let options = ConsumerOptions { ack_wait: Duration::from_secs(7), max_ack_pending: Some(50), ..pull() };
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.numbers(), [5, 6, 7, 8, 9]);
    let config = &stage.billing().await["config"];
    assert_eq!((&config["backoff"], &config["inactive_threshold"]), (&Value::Null, &Value::Null));
    assert_eq!(config["ack_wait"], 7_000_000_000_u64);
    assert_eq!((&config["max_ack_pending"], &config["max_deliver"]), (&json!(50), &json!(-1)));
    assert_eq!(config["description"], "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_fits_is_not_touched() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        let first = consume(stage.address(), options.clone(), Seen::default().and_ack()).await.unwrap();
        first.drain(Duration::from_secs(1)).await;
        let mut changes = stage.hear("$JS.API.CONSUMER.DURABLE.CREATE.>").await;
        let seen = Seen::default();
        let _again = consume(stage.address(), options, seen.and_ack()).await.unwrap();
        stage.publish(0..1).await;
        seen.reaches(1).await;
        assert!(changes.so_far().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_durable_without_a_group_gets_one_though_somebody_listens_to_it() {
    let stage = Stage::set().await;
    let older = json!({ "ack_policy": "explicit", "deliver_subject": "older.deliver" });
    stage.create_durable("billing", older).await;
    let _older_worker = stage.hear("older.deliver").await;
    let _consumption = consume(stage.address(), push(), Seen::default().and_ack()).await.unwrap();
    let config = &stage.billing().await["config"];
    assert_eq!(
        (&config["deliver_group"], &config["deliver_subject"]),
        (&json!("billing"), &json!("older.deliver"))
    );
}

fn inheriting(options: ConsumerOptions) -> ConsumerOptions {
    ConsumerOptions { inherits: Some("default".into()), ..options }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_durable_of_the_same_kind_and_filter_is_taken_over_with_its_position() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        stage.publish(0..10).await;
        let options = options.filter("orders.*");
        let older = ConsumerOptions { durable: "default".into(), ..options.clone() };
        let older = consume(stage.address(), older, Seen::default().and_ack()).await.unwrap();
        eventually("the older one is through", async || older.counters().succeeded == 10).await;
        older.drain(Duration::from_secs(1)).await;

        let seen = Seen::default();
        let consumption = consume(stage.address(), inheriting(options), seen.and_ack()).await.unwrap();
        stage.publish(10..12).await;
        seen.covers(10..12).await;
        assert_eq!(consumption.durable(), "default");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_durable_of_another_kind_or_filter_is_left_alone() {
    for older in
        [json!({ "deliver_subject": "older.deliver" }), json!({ "filter_subject": "orders.created" })]
    {
        let stage = Stage::set().await;
        let mut config = older;
        config["ack_policy"] = "explicit".into();
        stage.create_durable("default", config).await;
        let options = inheriting(pull());
        let consumption = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
        assert_eq!(consumption.durable(), "billing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_one_of_the_filters_matches_arrives() {
    for options in [pull(), push()] {
        let stage = Stage::set().await;
        for subject in ["orders.created", "orders.paid", "orders.eu.paid", "orders.lost"] {
            stage.client.publish(subject, subject.into()).await.unwrap();
        }
        let options = options.filter("orders.created").filter("orders.*.paid");
        let seen = Seen::default();
        let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
        seen.reaches(2).await;
        stage.all_settled().await;
        assert_eq!(seen.payloads(), ["orders.created", "orders.eu.paid"]);
    }
}

/// Line of the log when `invoices` begins on a stream with three messages, of which the durable `billing` has had none.
/// `read`: a worker consumes it.
async fn said_to_invoices(start: Start, read: bool) -> String {
    let stage = Stage::set().await;
    let billing = consume(stage.address(), pull(), Seen::default().and_ack()).await.unwrap();
    if !read {
        billing.drain(SOON).await;
    }
    stage.publish(0..3).await;
    eventually("the server knows who reads", async || {
        let info = stage.billing().await;
        (info["num_waiting"] != 0) == read && (info["num_pending"] == 0) == read
    })
    .await;
    let (lines, _guard) = Lines::heard();
    let options = ConsumerOptions { start, ..ConsumerOptions::pull("orders", "invoices") };
    let _consumption = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    lines.the_one_with("The durable is new")
}

#[tokio::test]
async fn a_consumer_that_was_renamed_is_told_what_it_handles_again_and_how_to_continue() {
    let text = said_to_invoices(Start::All, false).await;
    assert!(text.contains("messages that the stream holds already (3) are delivered to it"), "{text}");
    assert!(text.contains("stop now and write `durable_name = \"billing\"` in invoices"), "{text}");
}

#[tokio::test]
async fn a_consumer_of_new_messages_that_was_renamed_is_told_what_it_skips_and_how_to_continue() {
    let text = said_to_invoices(Start::New, false).await;
    assert!(text.contains("that wait for the durable `billing` (3) are not delivered to it"), "{text}");
    assert!(text.contains("stop now and write `durable_name = \"billing\"` in invoices"), "{text}");
}

#[tokio::test]
async fn a_second_consumer_of_a_stream_is_not_told_to_share_the_durable_of_the_first() {
    let text = said_to_invoices(Start::All, true).await;
    assert!(text.contains("Workers read from `billing` now."), "{text}");
    assert!(!text.contains("durable_name ="), "{text}");
}

/// A durable of others that differs from its declaration, and the options of a worker that leaves it alone.
async fn left_to_others(stage: &Stage, more: Value) -> ConsumerOptions {
    let mut config = json!({ "ack_policy": "explicit", "ack_wait": 7_000_000_000_u64, "max_deliver": 9 });
    config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    stage.create_durable("billing", config).await;
    ConsumerOptions { manages_durable: false, ..pull() }
}

#[tokio::test]
async fn a_durable_that_is_managed_by_others_is_consumed_unchanged_and_the_differences_are_named() {
    let stage = Stage::set().await;
    let options = left_to_others(&stage, json!({})).await;
    let before = stage.billing().await["config"].clone();
    let mut writes = stage.hear("$JS.API.CONSUMER.DURABLE.CREATE.>").await;
    let (lines, _guard) = Lines::heard();
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    let line = lines.the_one_with("does not change it because manage_durables is False");
    assert!(line.contains("ack_wait from 7s to 30s") && line.contains("max_deliver from 9 to -1"), "{line}");
    stage.publish(0..3).await;
    seen.covers(0..3).await;
    stage.all_settled().await;
    assert_eq!(stage.billing().await["config"], before);
    assert!(writes.so_far().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_others_have_to_create_and_is_missing_ends_the_start() {
    let stage = Stage::set().await;
    let error = refused(&stage, ConsumerOptions { manages_durable: false, ..pull() }).await;
    assert_eq!(error.kind(), ErrorKind::Gone);
    assert!(error.to_string().contains("Create the durable, or let the worker manage it"), "{error}");
    let missing = stage.ask("CONSUMER.INFO.orders.billing", &Value::Null).await;
    assert_eq!(missing["error"]["err_code"], 10014);
}

#[tokio::test]
async fn a_durable_of_others_that_the_server_will_delete_is_consumed_with_a_warning() {
    let stage = Stage::set().await;
    let options = left_to_others(&stage, json!({ "inactive_threshold": 60_000_000_000_u64 })).await;
    let (lines, _guard) = Lines::heard();
    let _consumption = consume(stage.address(), options, Seen::default().and_ack()).await.unwrap();
    let line = lines.the_one_with("The server deletes the durable `billing`");
    assert!(line.contains("for 1m") && line.contains("because manage_durables is False"), "{line}");
}

async fn work_queue() -> Stage {
    let stage = Stage::set().await;
    let config = json!({ "name": "jobs", "subjects": ["jobs.>"], "retention": "workqueue" });
    stage.api("STREAM.CREATE.jobs", &config).await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_durable_for_the_messages_of_a_work_queue_is_refused_with_the_remedy() {
    for filters in [["jobs.>", "jobs.created"], [">", ">"]] {
        let stage = work_queue().await;
        let [one, other] = filters.map(|filter| ConsumerOptions::pull("jobs", "one").filter(filter));
        let _first = consume(stage.address(), one, Seen::default().and_ack()).await.unwrap();
        let error = refused(&stage, ConsumerOptions { durable: "two".into(), ..other }).await;
        assert_eq!(error.kind(), ErrorKind::Overlap);
        for part in ["`jobs` is a work queue", "`two`", "do not overlap"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_queue_is_consumed_from_its_beginning_only() {
    let stage = work_queue().await;
    let options = ConsumerOptions { start: Start::New, ..ConsumerOptions::pull("jobs", "billing") };
    let error = refused(&stage, options).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`jobs` is a work queue"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_that_overlap_name_the_stream_that_has_them() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let config = json!({ "name": "sales", "subjects": ["sales.>", "orders.created"] });
    let error = create_stream(&connection, &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overlap);
    let text = error.to_string();
    for part in ["sales", "orders.created", "\"orders\""] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_exists_is_left_as_it_is() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let config = json!({ "name": "orders", "subjects": ["other"] });
    assert!(!create_stream(&connection, &config).await.unwrap());
    let info = stage.api("STREAM.INFO.orders", &Value::Null).await;
    assert_eq!(info["config"]["subjects"], json!(["orders.>"]));
    assert!(create_stream(&connection, &json!({ "name": "sales" })).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_with_a_brace_left_over_is_refused_with_and_without_metrics() {
    let handler = async |_: Message| ();
    let options = || ConsumerOptions::pull("orders", "billing").filter("orders.{order-id}.paid");
    let nowhere = || ConnectOptions::to(["nats://127.0.0.1:1"]);
    let refused = [
        consume(nowhere(), options(), handler).await.unwrap_err(),
        consume_observed(nowhere(), options(), handler, &Metrics::default()).await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("has a brace"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_handlers_than_a_machine_has_room_for_are_refused_at_once() {
    let options = ConsumerOptions::pull("orders", "billing").concurrency(usize::MAX);
    let starting = consume(ConnectOptions::to(["nats://127.0.0.1:1"]), options, async |_: Message| ());
    let error = timeout(SOON, starting).await.expect("no task for each").unwrap_err();
    assert!(error.to_string().contains("`concurrency` is too large"), "{error}");
}
