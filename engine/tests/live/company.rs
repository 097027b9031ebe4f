//! Consumptions with little to do share a connection, and none of them harms another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nats_consumer::{ConnectOptions, ConsumerOptions, Consumption, Exhausted, consume};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use crate::quarantine::publish_raw;
use crate::stage::{Seen, Stage, eventually, pull, push};

/// A way to the server on which connections are counted, and which may fall silent.
#[derive(Clone, Default)]
struct Way {
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    is_silent: Arc<AtomicBool>,
}

impl Way {
    async fn to(stage: &Stage) -> (Self, ConnectOptions) {
        let server: SocketAddr = stage.server.url().trim_start_matches("nats://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Self::default();
        let ways = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(ways.clone().carry(client, server));
            }
        });
        let options = ConnectOptions { servers: vec![format!("nats://{address}").into()], ..stage.address() };
        (way, options)
    }

    async fn carry(self, client: TcpStream, server: SocketAddr) {
        self.opened.fetch_add(1, SeqCst);
        self.open.fetch_add(1, SeqCst);
        // What fell silent stays so.
        let is_dead = Arc::new(AtomicBool::new(false));
        let server = TcpStream::connect(server).await.unwrap();
        let ((says, hears), (answers, asks)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = self.pass(says, asks, &is_dead) => {}
            () = self.pass(answers, hears, &is_dead) => {}
        }
        self.open.fetch_sub(1, SeqCst);
    }

    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_dead: &AtomicBool) {
        let mut some = vec![0; 65536];
        while let Ok(size @ 1..) = from.read(&mut some).await {
            is_dead.fetch_or(self.is_silent.load(SeqCst), SeqCst);
            if !is_dead.load(SeqCst) && to.write_all(&some[..size]).await.is_err() {
                return;
            }
        }
    }

    async fn has(&self, count: usize) {
        eventually(&format!("{count} connections"), async || self.open.load(SeqCst) == count).await;
    }
}

fn named(options: ConsumerOptions, durable: &str) -> ConsumerOptions {
    ConsumerOptions { name: durable.into(), durable: durable.into(), ..options }
        .filter(format!("orders.{durable}"))
}

/// Neighbours by pull, each with what it has seen.
async fn neighbours(address: &ConnectOptions, count: usize) -> Vec<(Consumption, Seen)> {
    neighbours_like(pull, address, count).await
}

async fn neighbours_like(
    options: fn() -> ConsumerOptions,
    address: &ConnectOptions,
    count: usize,
) -> Vec<(Consumption, Seen)> {
    let mut all = Vec::new();
    for number in 0..count {
        let seen = Seen::default();
        let options = named(options(), &format!("neighbour{number}"));
        all.push((consume(address.clone(), options, seen.and_ack()).await.unwrap(), seen));
    }
    all
}

/// Publishes to each neighbour, and returns how long the slowest took to handle it.
async fn time_to_reach(stage: &Stage, neighbours: &[(Consumption, Seen)]) -> Duration {
    let began = Instant::now();
    let before: Vec<_> = neighbours.iter().map(|(_, seen)| seen.count()).collect();
    for number in 0..neighbours.len() {
        stage.client.publish(format!("orders.neighbour{number}"), "1".into()).await.unwrap();
    }
    stage.client.flush().await.unwrap();
    for ((_, seen), before) in neighbours.iter().zip(before) {
        seen.reaches(before + 1).await;
    }
    began.elapsed()
}

/// By push, with a place for one message: a lost one holds up the next.
fn narrow_push() -> ConsumerOptions {
    push().concurrency(1)
}

async fn share_a_connection_which_the_last_one_closes(options: fn() -> ConsumerOptions) {
    let stage = Stage::set().await;
    let (way, address) = Way::to(&stage).await;
    let mut neighbours = neighbours_like(options, &address, 20).await;
    time_to_reach(&stage, &neighbours).await;
    assert_eq!(way.opened.load(SeqCst), 1);
    let (first, _) = neighbours.remove(0);
    first.drain(Duration::from_secs(1)).await;
    first.drain(Duration::from_secs(1)).await;
    assert!(!first.is_connected());
    eventually("the others stay", async || neighbours.iter().all(|(other, _)| other.is_connected())).await;
    assert_eq!(way.opened.load(SeqCst), 1);
    for (other, _) in &neighbours {
        other.drain(Duration::from_secs(1)).await;
    }
    way.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumptions_by_pull_share_a_connection_which_the_last_one_closes() {
    share_a_connection_which_the_last_one_closes(pull).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumptions_by_push_share_a_connection_which_the_last_one_closes() {
    share_a_connection_which_the_last_one_closes(push).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumption_that_is_dropped_leaves_the_shared_connection() {
    let stage = Stage::set().await;
    let (way, address) = Way::to(&stage).await;
    let neighbours = neighbours(&address, 2).await;
    time_to_reach(&stage, &neighbours).await;
    assert_eq!(way.opened.load(SeqCst), 1);
    drop(neighbours);
    way.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_options_mean_another_connection() {
    let stage = Stage::set().await;
    let (way, address) = Way::to(&stage).await;
    let other = ConnectOptions { user: Some("b".into()), password: Some("c".into()), ..address.clone() };
    let _one = neighbours(&address, 1).await;
    let _other = neighbours(&other, 1).await;
    let _more = neighbours(&other, 2).await;
    way.has(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_lost_message_would_hold_up_shares_no_connection() {
    let stage = Stage::set().await;
    let (way, address) = Way::to(&stage).await;
    let _neighbours = neighbours(&address, 2).await;
    let seen = Seen::default();
    let push = ConsumerOptions { max_ack_pending: Some(20), ..named(push(), "push") };
    let _push = consume(address.clone(), push, seen.and_ack()).await.unwrap();
    assert_eq!(way.open.load(SeqCst), 2);
    let in_order = named(pull().in_order(), "in_order").exhausted(Exhausted::DeadLetter);
    let _in_order = consume(address.clone(), in_order, seen.and_ack()).await.unwrap();
    assert_eq!(way.open.load(SeqCst), 3);
    stage.create_durable("few", json!({ "ack_policy": "explicit", "max_ack_pending": 5 })).await;
    let few = ConsumerOptions { manages_durable: false, ..ConsumerOptions::pull("orders", "few") };
    let _few = consume(address, few, seen.and_ack()).await.unwrap();
    way.has(4).await;
}

async fn moves_to_a_connection_of_its_own_and_loses_nothing(stage: &Stage, options: ConsumerOptions) {
    let (way, address) = Way::to(stage).await;
    let neighbours = neighbours(&address, 3).await;
    let seen = Seen::default();
    let busy = consume(address, named(options, "busy"), seen.and_ack()).await.unwrap();
    way.has(1).await;
    let mut count = 0;
    while way.open.load(SeqCst) < 2 {
        assert!(count < 20_000, "it shares its connection");
        for _ in 0..5 {
            stage.client.publish("orders.busy", count.to_string().into()).await.unwrap();
            count += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..100 {
        stage.client.publish("orders.busy", count.to_string().into()).await.unwrap();
        count += 1;
    }
    seen.covers(0..count).await;
    assert!(seen.attempts().iter().all(|attempt| *attempt == 1), "one was lost on the way");
    assert_eq!(seen.count(), count);
    time_to_reach(stage, &neighbours).await;
    assert_eq!(busy.counters().repairs, 0);
    busy.drain(Duration::from_secs(1)).await;
    way.has(1).await;
    assert_eq!(way.opened.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_consumption_by_pull_moves_to_a_connection_of_its_own_and_loses_nothing() {
    moves_to_a_connection_of_its_own_and_loses_nothing(&Stage::set().await, pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_consumption_by_push_moves_to_a_connection_of_its_own_and_loses_nothing() {
    moves_to_a_connection_of_its_own_and_loses_nothing(&Stage::set().await, push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_consumption_by_push_without_a_deliver_group_moves_and_nothing_comes_twice() {
    let stage = Stage::set().await;
    let alone = json!({
        "ack_policy": "explicit", "deliver_subject": "deliver.busy", "filter_subject": "orders.busy"
    });
    stage.create_durable("busy", alone).await;
    let options = ConsumerOptions { manages_durable: false, ..push() };
    moves_to_a_connection_of_its_own_and_loses_nothing(&stage, options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_a_backlog_begins_on_a_connection_of_its_own() {
    let stage = Stage::set().await;
    let (way, address) = Way::to(&stage).await;
    let _neighbours = neighbours(&address, 2).await;
    for number in 0..1500 {
        stage.client.publish("orders.busy", number.to_string().into()).await.unwrap();
    }
    stage.client.flush().await.unwrap();
    eventually("all is stored", async || stage.stored("orders").await == 1500).await;
    let seen = Seen::default();
    let _busy = consume(address, named(pull(), "busy"), seen.and_ack()).await.unwrap();
    assert_eq!(way.open.load(SeqCst), 2);
    seen.covers(0..1500).await;
}

async fn harms_no_neighbour(options: fn() -> ConsumerOptions, headers: &[u8]) {
    let stage = Stage::set().await;
    let mut letters = stage.hear("dlq.orders.>").await;
    let (way, address) = Way::to(&stage).await;
    let neighbours = neighbours_like(options, &address, 10).await;
    let seen = Seen::default();
    let _hit = consume(address, named(options(), "created"), seen.and_ack()).await.unwrap();
    time_to_reach(&stage, &neighbours).await;
    assert_eq!(way.opened.load(SeqCst), 1);
    publish_raw(&stage, headers, "poison").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        for number in 0..neighbours.len() {
            stage.client.publish(format!("orders.neighbour{number}"), "1".into()).await.unwrap();
        }
        sleep(Duration::from_millis(500)).await;
    }
    let gaps = neighbours.iter().flat_map(|(_, seen)| seen.gaps());
    let longest = gaps.max().unwrap();
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert_eq!(letters.next().await.payload, "poison");
    // It may be the first of many.
    way.has(2).await;
    stage.client.publish("orders.created", "1".into()).await.unwrap();
    seen.covers(1..2).await;
    let opened = way.opened.load(SeqCst);
    publish_raw(&stage, headers, "poison").await;
    assert_eq!(letters.next().await.payload, "poison");
    time_to_reach(&stage, &neighbours).await;
    assert_eq!(way.opened.load(SeqCst), opened + 1, "only the connection of the one that was hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_stops_no_neighbour_by_pull_and_the_one_it_is_for_moves_away() {
    harms_no_neighbour(pull, b"no colon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_stops_no_neighbour_by_push_and_the_one_it_is_for_moves_away() {
    harms_no_neighbour(narrow_push, b"no colon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_by_pull_that_closes_the_connection_for_good() {
    harms_no_neighbour(pull, b"Trace: a\rb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_by_push_that_closes_the_connection_for_good() {
    harms_no_neighbour(narrow_push, b"Trace: a\rb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_replaced_once_for_all_who_share_it() {
    let stage = Stage::set().await;
    let (way, address) = Way::to(&stage).await;
    let neighbours = neighbours(&address, 10).await;
    time_to_reach(&stage, &neighbours).await;
    way.is_silent.store(true, SeqCst);
    sleep(Duration::from_millis(500)).await;
    for number in 0..10 {
        stage.client.publish(format!("orders.neighbour{number}"), "2".into()).await.unwrap();
    }
    stage.client.flush().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    way.is_silent.store(false, SeqCst);
    eventually("another one", async || way.opened.load(SeqCst) > 1).await;
    time_to_reach(&stage, &neighbours).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(way.opened.load(SeqCst), 2);
}
