//! The marks of suspects: kept through errors that pass, and not taken for left behind too early.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{ConsumerOptions, Consumption, consume, consume_into};
use serde_json::{Value, json};

use crate::handed_back::Told;
use crate::stage::{Heard, SOON, Seen, Stage, eventually};
use crate::suspect::{leave_mark, lose_workers, mark_at, options};

/// A worker that waits for the confirmation of its suspect's mark. Nobody gives it: who hears the marks has taken
/// the place of their stream. Returns where the mark is, too.
async fn waits_for_its_mark(stage: &Stage, seen: &Seen) -> (Consumption, Heard, String) {
    let place = lose_workers(stage, 1, 4).await.remove(0);
    let marks = stage.hear("_mark.>").await;
    let consumption = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    (consumption, marks, place)
}

/// Says what a stream without a leader says.
async fn refuse_for_now(stage: &Stage, mark: async_nats::Message) {
    let refusal = json!({ "error": { "code": 503, "err_code": 10008, "description": "not now" } });
    stage.client.publish(mark.reply.unwrap(), refusal.to_string().into()).await.unwrap();
}

/// Makes the stream of the marks.
async fn leave_the_place(stage: &Stage, marks: Heard) {
    marks.stop().await;
    // The server has read that when it has answered what was sent behind it.
    stage.ask("INFO", &Value::Null).await;
}

/// The word that settles the next message: the first one that is not a heartbeat.
async fn settled_by(settlements: &mut Heard) -> bytes::Bytes {
    let mut word = settlements.next().await.payload;
    while word == "+WPI" {
        word = settlements.next().await.payload;
    }
    word
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_moment_costs_a_suspect_neither_its_mark_nor_a_delivery() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let (consumption, mut marks, place) = waits_for_its_mark(&stage, &seen).await;
    let mark = marks.next().await;
    leave_the_place(&stage, marks).await;
    refuse_for_now(&stage, mark).await;
    stage.all_settled().await;
    assert_eq!(seen.attempts(), [5]);
    assert_eq!(consumption.counters().dead_lettered, 0);
    eventually("its mark has ended", async || mark_at(&stage, &place).await == "ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_while_a_mark_is_written_hands_its_suspect_back_at_once() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    let (consumption, mut marks, _) = waits_for_its_mark(&stage, &Seen::default()).await;
    marks.next().await;
    leave_the_place(&stage, marks).await;
    assert_eq!(consumption.drain(SOON).await, 0);
    assert_eq!(consumption.counters().handed_back, 1);
    assert_eq!(settled_by(&mut settlements).await, "-NAK", "without a delay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_may_be_stored_is_ended_though_that_fails_at_first() {
    let stage = Stage::set().await;
    let (consumption, mut marks, place) = waits_for_its_mark(&stage, &Seen::default()).await;
    marks.next().await;
    let draining = tokio::spawn(async move { consumption.drain(SOON).await });
    let end = marks.next().await;
    leave_the_place(&stage, marks).await;
    refuse_for_now(&stage, end).await;
    assert_eq!(draining.await.unwrap(), 0);
    assert_eq!(mark_at(&stage, &place).await, "ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_continue_between_two_tries_to_write_the_mark_of_a_suspect_that_came_alone() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let (_consumption, mut marks, _) = waits_for_its_mark(&stage, &seen).await;
    let mark = marks.next().await;
    stage.publish(1..2).await;
    refuse_for_now(&stage, mark).await;
    seen.reaches(1).await;
    assert_eq!(seen.payloads(), ["1"]);
}

/// Stores the mark and confirms it, as its stream would have done.
async fn store_confirmed(stage: &Stage, mark: async_nats::Message, place: &str) {
    let stream = json!({ "name": "orders-marks", "subjects": ["_mark.orders.>"], "max_msgs_per_subject": 1 });
    stage.api("STREAM.CREATE.orders-marks", &stream).await;
    let reply = mark.reply.unwrap();
    stage.client.publish_with_reply(place.to_owned(), reply, mark.payload).await.unwrap();
}

/// Stores the mark in a stream that takes no further one.
async fn store_where_it_stays(stage: &Stage, mark: &async_nats::Message, place: &str) {
    let stream = |subjects| json!({ "name": "orders-marks", "subjects": [subjects] });
    stage.api("STREAM.CREATE.orders-marks", &stream("_mark.orders.>")).await;
    stage.client.request(place.to_owned(), mark.payload.clone()).await.unwrap();
    stage.api("STREAM.UPDATE.orders-marks", &stream("elsewhere")).await;
}

/// Says what a stream without room says.
async fn refuse_for_good(stage: &Stage, mark: async_nats::Message) {
    let refusal = json!({ "error": { "code": 400, "err_code": 10077, "description": "no room" } });
    stage.client.publish(mark.reply.unwrap(), refusal.to_string().into()).await.unwrap();
}

fn progress_in(mark: &async_nats::Message) -> Value {
    serde_json::from_slice::<Value>(&mark.payload).unwrap()["progress"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_may_be_stored_is_ended_though_the_next_try_is_refused() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let (_consumption, mut marks, place) = waits_for_its_mark(&stage, &seen).await;
    let first = marks.next().await;
    store_where_it_stays(&stage, &first, &place).await;
    assert_eq!(progress_in(&marks.next().await), "alone", "it is stored");
    refuse_for_now(&stage, first).await;
    let second = marks.next().await;
    assert_eq!(progress_in(&second), "alone", "it is tried again");
    refuse_for_good(&stage, second).await;
    seen.reaches(1).await;
    assert_eq!(progress_in(&marks.next().await), "ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_whose_mark_is_written_during_a_suspension_does_not_start() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    let seen = Seen::default();
    let (consumption, mut marks, place) = waits_for_its_mark(&stage, &seen).await;
    let mark = marks.next().await;
    consumption.suspend();
    leave_the_place(&stage, marks).await;
    store_confirmed(&stage, mark, &place).await;
    assert_eq!(settled_by(&mut settlements).await, "-NAK");
    assert_eq!(seen.count(), 0);
    consumption.resume();
    seen.reaches(1).await;
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_whose_mark_cannot_be_written_during_a_suspension_is_handed_back_at_once() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    lose_workers(&stage, 1, 4).await;
    let (mut marks, handlers) = (stage.hear("_mark.>").await, Arc::new(Told::default()));
    let consumption = consume_into(stage.address(), options(), handlers.clone()).await.unwrap();
    let mark = marks.next().await;
    consumption.suspend();
    eventually("what waits is recalled", async || handlers.so_far().contains(&"recall")).await;
    leave_the_place(&stage, marks).await;
    refuse_for_now(&stage, mark).await;
    assert_eq!(settled_by(&mut settlements).await, "-NAK", "without a delay");
}

/// Waits until this number of heartbeats of its delivery were heard here; its mark is then written again.
async fn is_alive_elsewhere(signs: usize) {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    leave_mark(&stage, &places[0], "alone", 0).await;
    let mut looks = stage.hear("$JS.API.STREAM.MSG.GET.orders-marks").await;
    let mut settlements = stage.hear_settlements().await;
    let seen = Seen::default();
    let options = ConsumerOptions { ack_wait: Duration::from_secs(1), ..options() };
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    looks.next().await;
    for _ in 0..signs {
        assert_eq!(settlements.next().await.payload, "+WPI");
    }
    leave_mark(&stage, &places[0], "alone", 0).await;
    assert_eq!(settled_by(&mut settlements).await, "-NAK {\"delay\":1000000000}");
    leave_mark(&stage, &places[0], "ended", 0).await;
    seen.reaches(1).await;
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_whose_worker_is_alive_elsewhere_is_not_taken_for_lost() {
    is_alive_elsewhere(1).await;
}

/// Six heartbeats take longer than the `ack_wait` of a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_ack_wait_does_not_make_a_mark_that_is_written_late_one_that_was_left_behind() {
    is_alive_elsewhere(6).await;
}
