//! Messages that came again after their last attempt: the guilty do not run again, the innocent do.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nats_consumer::testing::NatsServer;
use nats_consumer::{
    ConnectOptions, ConsumerOptions, Consumption, Exhausted, Handler, HandlerError, Message, Outcome, consume,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::stage::{SOON, Seen, Stage, delays, eventually, pull, within};

/// Three attempts, and the final word is one that keeps nothing: a dead letter can only be a lost worker's.
pub(crate) fn options() -> ConsumerOptions {
    ConsumerOptions { exhausted: Exhausted::Ack, ack_wait: Duration::from_millis(300), ..pull() }
}

/// Publishes messages and has workers take each of them a number of `times`, and then vanish.
/// Returns where the mark of each is.
pub(crate) async fn lose_workers(stage: &Stage, messages: usize, times: usize) -> Vec<String> {
    stage.publish(0..messages).await;
    stage.create_durable("billing", json!({ "ack_policy": "explicit", "ack_wait": 100_000_000 })).await;
    let mut taken = stage.hear("lost.worker").await;
    let ask = json!({ "batch": messages * times, "expires": 9_000_000_000_u64 }).to_string();
    let next = "$JS.API.CONSUMER.MSG.NEXT.orders.billing";
    stage.client.publish_with_reply(next, "lost.worker", ask.into()).await.unwrap();
    let mut places = vec![String::new(); messages];
    for _ in 0..messages * times {
        let reply = taken.next().await.reply.unwrap();
        let tokens: Vec<&str> = reply.split('.').collect();
        let [sequence, time] = [tokens[5], tokens[7]];
        places[sequence.parse::<usize>().unwrap() - 1] = format!("_mark.orders.billing.{sequence}.{time}");
    }
    places
}

/// Leaves a mark as a worker that is lost has left it.
pub(crate) async fn leave_mark(stage: &Stage, place: &str, progress: &str, losses: u64) {
    leave_mark_of_group(stage, place, progress, losses, 1).await;
}

async fn leave_mark_of_group(stage: &Stage, place: &str, progress: &str, losses: u64, group: usize) {
    leave_mark_of(stage, place, json!({ "progress": progress, "losses": losses, "group": group })).await;
}

async fn leave_mark_of(stage: &Stage, place: &str, mut mark: Value) {
    let config = json!({ "name": "orders-marks", "subjects": ["_mark.orders.>"], "max_msgs_per_subject": 1 });
    stage.ask("STREAM.CREATE.orders-marks", &config).await;
    mark["worker"] = "somebody else".into();
    stage.client.request(place.to_owned(), mark.to_string().into()).await.unwrap();
}

/// The state in the mark.
pub(crate) async fn mark_at(stage: &Stage, place: &str) -> String {
    mark_that_is(stage, json!({ "last_by_subj": place })).await
}

async fn mark_that_is(stage: &Stage, what: Value) -> String {
    read_mark(stage, what).await["progress"].as_str().unwrap_or("none").to_owned()
}

async fn read_mark(stage: &Stage, what: Value) -> Value {
    let found = stage.ask("STREAM.MSG.GET.orders-marks", &what).await;
    let data = found["message"]["data"].as_str().unwrap_or_default();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Makes the stream of marks so that it keeps every one, not only the last of each message.
async fn keep_all_marks(stage: &Stage) {
    stage.create_stream("orders-marks", &["_mark.orders.>"]).await;
}

/// The states in all marks that were written, the oldest first.
async fn all_marks(stage: &Stage) -> Vec<String> {
    let mut marks = Vec::new();
    for sequence in 1..=stage.stored("orders-marks").await {
        marks.push(mark_that_is(stage, json!({ "seq": sequence })).await);
    }
    marks
}

/// Makes a stream of dead letters that has no room.
async fn fill_dead_letters(stage: &Stage) {
    let full = json!({ "name": "orders-dlq", "subjects": ["dlq.orders.>"], "max_msgs": 1, "discard": "new" });
    stage.api("STREAM.CREATE.orders-dlq", &full).await;
    stage.client.request("dlq.orders.other", "full".into()).await.unwrap();
}

async fn becomes_a_dead_letter_unseen(stage: &Stage, options: ConsumerOptions) {
    let mut letters = stage.hear("dlq.orders.billing").await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
    let letter = letters.next().await;
    stage.all_settled().await;
    assert_eq!(letter.headers.unwrap().get("Dlq-Reason").unwrap().as_str(), "worker lost");
    assert_eq!((seen.count(), consumption.counters().dead_lettered), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ran_alone_when_its_worker_was_lost_becomes_a_dead_letter_at_once() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    leave_mark(&stage, &places[0], "alone", 0).await;
    becomes_a_dead_letter_unseen(&stage, options()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_near_lost_workers_however_often_runs() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 9).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.count(), 1);
    assert_eq!(consumption.counters().dead_lettered, 0);
    eventually("its mark has ended", async || mark_at(&stage, &places[0]).await == "ended").await;
}

/// A handler that counts what runs beside it; `beside` is the most that ran beside a suspect.
fn counting(seen: &Seen, beside: &Arc<AtomicUsize>, running: &Arc<AtomicUsize>) -> impl Handler {
    let (seen, beside, running) = (seen.clone(), beside.clone(), running.clone());
    move |message: Message| {
        let is_suspect = seen.note(&message) > 3;
        let (beside, running) = (beside.clone(), running.clone());
        async move {
            let others = running.fetch_add(1, SeqCst);
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if is_suspect {
                    beside.fetch_max(running.load(SeqCst) - 1 + others, SeqCst);
                }
            }
            running.fetch_sub(1, SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_process_runs_beside_a_suspect_that_came_alone() {
    let stage = Stage::set().await;
    lose_workers(&stage, 1, 4).await;
    stage.publish(1..200).await;
    let other = ConsumerOptions { durable: "other".into(), name: "other".into(), ..options() };
    let (seen, seen_by_other) = (Seen::default(), Seen::default());
    let (beside, running) = (Arc::default(), Arc::default());
    let neighbour = counting(&seen_by_other, &beside, &running);
    let _neighbour = consume(stage.address(), other, neighbour).await.unwrap();
    let handler = counting(&seen, &beside, &running);
    let consumption = consume(stage.address(), options(), handler).await.unwrap();
    seen.covers(0..200).await;
    seen_by_other.covers(0..200).await;
    stage.all_settled().await;
    assert!(seen.attempts().iter().any(|attempt| *attempt > 3), "there were no suspects");
    assert_eq!(beside.load(SeqCst), 0);
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_killed_worker_had_in_hand_do_not_run_one_after_the_other() {
    let stage = Stage::set().await;
    lose_workers(&stage, 20, 4).await;
    let (running, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (now, waiting) = (running.clone(), enough.clone());
    let handler = move |_: Message| {
        now.fetch_add(1, SeqCst);
        let waiting = waiting.clone();
        async move { drop(waiting.acquire().await) }
    };
    let options = ConsumerOptions { concurrency: 20, ..options() };
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    // The first one may come alone, and runs alone then.
    eventually("one runs", async || running.load(SeqCst) > 0).await;
    enough.add_permits(1);
    eventually("many run at once", async || running.load(SeqCst) >= 10).await;
    enough.add_permits(20);
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
}

/// The most messages that run at once after a worker was lost with a group.
async fn run_at_once_after_a_group_of(group: usize) -> usize {
    let stage = Stage::set().await;
    for place in lose_workers(&stage, 12, 4).await {
        leave_mark_of_group(&stage, &place, "accompanied", 0, group).await;
    }
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (running.clone(), most.clone());
    let handler = move |_: Message| {
        let (now, highest) = (now.clone(), highest.clone());
        async move {
            highest.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, SeqCst);
        }
    };
    // So long that no lease runs out on a busy machine while the suspects wait for their turn.
    let options = ConsumerOptions { ack_wait: Duration::from_secs(2), ..options() };
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
    most.load(SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_worker_was_lost_runs_in_smaller_groups_then_one_by_one() {
    let (large, small) = tokio::join!(run_at_once_after_a_group_of(24), run_at_once_after_a_group_of(8));
    assert!((2..=3).contains(&large), "{large} ran at once");
    assert_eq!(small, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_its_handler_asks_for_again_beyond_its_limit_is_no_suspect() {
    let stage = Stage::set().await;
    keep_all_marks(&stage).await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let again = Outcome::Retry { after: Some(Duration::from_millis(10)) };
    let handler = seen.and(move |attempt, _| if attempt < 5 { again.clone() } else { Outcome::Ack });
    let _consumption = consume(stage.address(), options(), handler).await.unwrap();
    seen.reaches(5).await;
    stage.all_settled().await;
    assert_eq!(all_marks(&stage).await, ["ended"; 2], "after the third attempt and the fourth");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_dead_letter_cannot_be_stored_is_no_suspect() {
    let stage = Stage::set().await;
    keep_all_marks(&stage).await;
    fill_dead_letters(&stage).await;
    stage.publish(0..1).await;
    let seen = Seen::default();
    let failing = seen.and(|_, _| Err::<(), _>(HandlerError::from("no")));
    let _consumption = consume(stage.address(), unburied(), failing).await.unwrap();
    seen.reaches(4).await;
    assert!(all_marks(&stage).await.iter().all(|mark| mark == "ended"));
}

/// Two attempts; a dead letter that cannot be stored comes again after a moment.
fn unburied() -> ConsumerOptions {
    let retry = delays(2, &[10]);
    ConsumerOptions {
        exhausted: Exhausted::DeadLetter,
        retry,
        ack_wait: Duration::from_secs(30),
        ..options()
    }
}

fn fails(seen: &Seen) -> impl Handler {
    seen.and(|_, _| Err::<(), _>(HandlerError::from("no")))
}

/// Begins consumer `other`, one of whose handlers never ends: every wait for a quiet process lasts ten seconds.
async fn neighbour(stage: &Stage) -> (Consumption, Seen) {
    stage.create_stream("parcels", &["parcels.>"]).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let handler = move |message: Message| {
        noting.note(&message);
        let is_endless = &message.payload()[..] == b"0";
        async move {
            if is_endless {
                std::future::pending::<()>().await;
            }
        }
    };
    let consumption =
        consume(stage.address(), ConsumerOptions::pull("parcels", "other"), handler).await.unwrap();
    stage.client.request("parcels.sent", "0".into()).await.unwrap();
    seen.reaches(1).await;
    (consumption, seen)
}

/// Sends the neighbour twenty messages, one after the other; each has to be handled soon.
async fn is_not_stopped(stage: &Stage, neighbour: &Seen) {
    for number in 1..=20 {
        let before = neighbour.count();
        stage.client.request("parcels.sent", number.to_string().into()).await.unwrap();
        within(SOON, "the neighbour has it", async || neighbour.count() > before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_another_process_could_not_store_stop_no_neighbour() {
    let stage = Stage::set().await;
    keep_all_marks(&stage).await;
    fill_dead_letters(&stage).await;
    stage.publish(0..1).await;
    // What a consumption has handed back, only that one remembers, as one process does.
    let before = Seen::default();
    let other_process = consume(stage.address(), unburied(), fails(&before)).await.unwrap();
    eventually("its dead letter could not be stored", async || !all_marks(&stage).await.is_empty()).await;
    other_process.drain(SOON).await;
    let (_neighbour, seen_by_neighbour) = neighbour(&stage).await;
    let seen = Seen::default();
    let here = consume(stage.address(), unburied(), fails(&seen)).await.unwrap();
    eventually("it came", async || here.counters().received > 0).await;
    is_not_stopped(&stage, &seen_by_neighbour).await;
    seen.reaches(2).await;
    assert!(before.attempts().iter().chain(&seen.attempts()).max() > Some(&2));
    assert!(all_marks(&stage).await.iter().all(|mark| mark == "ended"), "it ran as a suspect");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_two_processes_cannot_store_go_to_and_fro_and_stop_no_neighbour() {
    let stage = Stage::set().await;
    keep_all_marks(&stage).await;
    fill_dead_letters(&stage).await;
    let (_neighbour, seen_by_neighbour) = neighbour(&stage).await;
    let seen = [Seen::default(), Seen::default()];
    let _one = consume(stage.address(), unburied(), fails(&seen[0])).await.unwrap();
    let _two = consume(stage.address(), unburied(), fails(&seen[1])).await.unwrap();
    stage.publish(0..3).await;
    // An attempt beyond the second that the other process had before.
    let went_over = || {
        let [one, two] = seen
            .each_ref()
            .map(|seen| seen.payloads().into_iter().zip(seen.attempts()).collect::<HashSet<_>>());
        one.iter().any(|(payload, attempt)| *attempt >= 2 && two.contains(&(payload.clone(), attempt + 1)))
    };
    eventually("a message goes to the other process", async || went_over()).await;
    is_not_stopped(&stage, &seen_by_neighbour).await;
    assert!(all_marks(&stage).await.iter().all(|mark| mark == "ended"), "one ran as a suspect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ended_its_worker_after_it_was_handed_back_is_a_suspect() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 5).await;
    leave_mark_of(&stage, &places[0], json!({ "progress": "ended", "losses": 0, "group": 1, "attempt": 4 }))
        .await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options(), seen.and_hang()).await.unwrap();
    seen.reaches(1).await;
    assert_eq!((seen.attempts()[0], mark_at(&stage, &places[0]).await.as_str()), (6, "alone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_was_handed_back_before_it_ran_keeps_its_lost_workers() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    let mark = json!({ "progress": "ended", "is_unrun": true, "losses": 2, "group": 1, "attempt": 4 });
    leave_mark_of(&stage, &places[0], mark).await;
    let seen = Seen::default();
    let _consumption = consume(stage.address(), options(), seen.and_hang()).await.unwrap();
    seen.reaches(1).await;
    let mark = read_mark(&stage, json!({ "last_by_subj": places[0] })).await;
    assert_eq!((&mark["progress"], &mark["losses"]), (&json!("alone"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_a_drain_waits_for_does_not_count_as_alone() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options(), seen.and_hang()).await.unwrap();
    seen.reaches(1).await;
    assert_eq!(mark_at(&stage, &places[0]).await, "alone");
    let told = async {
        eventually("the mark tells it", async || mark_at(&stage, &places[0]).await == "accompanied").await;
    };
    tokio::select! {
        _ = consumption.drain(SOON) => panic!("the drain did not wait"),
        () = told => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_of_one_durable_are_shared_by_several_workers() {
    let stage = Stage::set().await;
    lose_workers(&stage, 40, 4).await;
    let seen = Seen::default();
    let workers = [
        consume(stage.address(), options(), seen.and_ack()).await.unwrap(),
        consume(stage.address(), options(), seen.and_ack()).await.unwrap(),
    ];
    stage.all_settled().await;
    assert_eq!(seen.numbers(), (0..40).collect::<Vec<_>>());
    assert_eq!(workers.each_ref().map(|worker| worker.counters().dead_lettered), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_fails_has_its_final_word() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    lose_workers(&stage, 1, 4).await;
    let failing = Seen::default().and(|_, _| Err::<(), _>(HandlerError::from("for ever")));
    let options = ConsumerOptions { exhausted: Exhausted::Drop, ..options() };
    let _consumption = consume(stage.address(), options, failing).await.unwrap();
    stage.all_settled().await;
    assert_eq!(settlements.so_far().last().unwrap(), "+TERM attempts exhausted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_asks_to_come_again_is_not_taken_for_lost() {
    let stage = Stage::set().await;
    lose_workers(&stage, 1, 4).await;
    let seen = Seen::default();
    let again = Outcome::Retry { after: Some(Duration::from_millis(10)) };
    let handler = seen.and(move |attempt, _| if attempt < 6 { again.clone() } else { Outcome::Ack });
    let consumption = consume(stage.address(), options(), handler).await.unwrap();
    stage.all_settled().await;
    assert_eq!(seen.attempts().last(), Some(&6));
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_left_behind_at_a_drain_is_not_taken_for_lost() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    let (first, second) = (Seen::default(), Seen::default());
    let leaving = consume(stage.address(), options(), first.and_hang()).await.unwrap();
    first.reaches(1).await;
    assert_eq!(mark_at(&stage, &places[0]).await, "alone");
    leaving.drain(Duration::ZERO).await;
    assert_eq!(mark_at(&stage, &places[0]).await, "ended");
    let staying = consume(stage.address(), options(), second.and_ack()).await.unwrap();
    second.reaches(1).await;
    stage.all_settled().await;
    assert_eq!(staying.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_that_run_at_a_drain_are_handed_back_and_run_elsewhere() {
    let stage = Stage::set().await;
    lose_workers(&stage, 2, 4).await;
    let seen = Seen::default();
    let leaving = consume(stage.address(), options(), seen.and_hang()).await.unwrap();
    seen.reaches(1).await;
    eventually("all have arrived", async || leaving.counters().in_flight == 2).await;
    assert_eq!(leaving.drain(Duration::from_secs(1)).await, 2);
    assert_eq!(leaving.counters().handed_back, 2);
    let staying = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    seen.covers(0..2).await;
    stage.all_settled().await;
    assert_eq!(staying.counters().dead_lettered, 0);
}

/// A worker whose suspect comes again while it runs, because the server was away for longer than `ack_wait`.
async fn out_of_reach(stage: &mut Stage, go_on: &Arc<Semaphore>, seen: &Seen) -> Consumption {
    let (noting, going_on) = (seen.clone(), go_on.clone());
    let handler = move |message: Message| {
        noting.note(&message);
        let going_on = going_on.clone();
        async move { drop(going_on.acquire().await) }
    };
    let consumption = consume(stage.address(), options(), handler).await.unwrap();
    seen.reaches(1).await;
    stage.server.kill().await.unwrap();
    eventually("the link is lost", async || !consumption.is_connected()).await;
    tokio::time::sleep(options().ack_wait).await;
    stage.server.restart().await.unwrap();
    consumption
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_comes_again_after_an_outage_is_not_taken_for_lost() {
    let mut stage = Stage::set().await;
    lose_workers(&stage, 1, 4).await;
    let (go_on, seen) = (Arc::new(Semaphore::new(0)), Seen::default());
    let consumption = out_of_reach(&mut stage, &go_on, &seen).await;
    eventually("it came again", async || consumption.counters().received == 2).await;
    go_on.add_permits(9);
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_comes_again_after_an_outage_does_not_run_beside_its_older_run() {
    let mut stage = Stage::set().await;
    lose_workers(&stage, 1, 4).await;
    let (go_on, seen) = (Arc::new(Semaphore::new(0)), Seen::default());
    let consumption = out_of_reach(&mut stage, &go_on, &seen).await;
    eventually("it was handed back", async || consumption.counters().handed_back > 0).await;
    go_on.add_permits(9);
    stage.all_settled().await;
    assert_eq!((seen.count(), consumption.counters().dead_lettered), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_run_for_hours_make_the_others_wait_once_however_many_suspects_come() {
    let stage = Stage::set().await;
    for place in lose_workers(&stage, 6, 4).await {
        leave_mark(&stage, &place, "accompanied", 1).await;
    }
    let other = ConsumerOptions { durable: "other".into(), name: "other".into(), ..options() };
    let (endless, seen) = (Seen::default(), Seen::default());
    let _neighbour = consume(stage.address(), other, endless.and_hang()).await.unwrap();
    endless.reaches(6).await;
    let consumption = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    // Ten seconds show that no worker keeps the marks, ten pass at the first wait; ten for each would take longer.
    within(Duration::from_secs(50), "all run", async || seen.numbers() == [0, 1, 2, 3, 4, 5]).await;
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_lost_while_the_suspect_ran_in_company_is_not_its_fault_yet() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    leave_mark(&stage, &places[0], "accompanied", 1).await;
    let seen = Seen::default();
    let consumption = consume(stage.address(), options(), seen.and_ack()).await.unwrap();
    seen.reaches(1).await;
    stage.all_settled().await;
    assert_eq!(consumption.counters().dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_third_worker_lost_in_company_it_is() {
    let stage = Stage::set().await;
    let places = lose_workers(&stage, 1, 4).await;
    leave_mark(&stage, &places[0], "accompanied", 2).await;
    becomes_a_dead_letter_unseen(&stage, options()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_marks_can_be_kept_a_message_runs_three_times_more_and_is_given_up_then() {
    let in_the_way = json!({ "name": "in-the-way", "subjects": ["_mark.>"] });
    for (times, runs) in [(5, 1), (6, 0)] {
        let stage = Stage::set().await;
        stage.api("STREAM.CREATE.in-the-way", &in_the_way).await;
        lose_workers(&stage, 1, times).await;
        let seen = Seen::default();
        let options = ConsumerOptions { retry: delays(3, &[10]), ..options() };
        let consumption = consume(stage.address(), options, seen.and_ack()).await.unwrap();
        stage.all_settled().await;
        assert_eq!(seen.count(), runs);
        assert_eq!(consumption.counters().dead_lettered, 1 - runs as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_permission_to_write_marks_it_is_the_same() {
    let users = "authorization { users: [{ user: all, password: x }, \
                 { user: some, password: x, permissions: { publish: { deny: [\"_mark.>\"] } } }] }\n\
                 no_auth_user: all";
    let stage = Stage::set_on(NatsServer::builder().config(users)).await;
    lose_workers(&stage, 1, 4).await;
    let seen = Seen::default();
    let some = ConnectOptions { user: Some("some".into()), password: Some("x".into()), ..stage.address() };
    let _consumption = consume(some, options(), seen.and_ack()).await.unwrap();
    seen.reaches(1).await;
    stage.all_settled().await;
    assert_eq!(seen.count(), 1);
}
