//! Publishing: confirmed, refused, or told quickly that it cannot be.

use std::time::{Duration, SystemTime};

use nats_consumer::publish::publish;
use nats_consumer::testing::NatsServer;
use nats_consumer::{ConnectOptions, Connection, Error, ErrorKind, Outgoing, Publisher};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::stage::{PATIENCE, SOON, Stage, eventually};

fn order(payload: &'static [u8]) -> Outgoing {
    Outgoing::to("orders.created", payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_counts_when_the_stream_has_it() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let outgoing = || order(b"{}").header("Nats-Msg-Id", "1").unwrap();
    let ack = publish(&connection, outgoing(), SOON).await.unwrap();
    assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("orders", 1, false));
    let again = publish(&connection, outgoing(), SOON).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(stage.stored("orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_refused_and_nothing_is_stored() {
    let stage = Stage::set().await;
    for subject in ["orders.*", "orders.>", "orders..x", "orders created", ""] {
        let error = Outgoing::to(subject, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{subject:?}");
    }
    assert_eq!(stage.stored("orders").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_no_stream_has_is_said_at_once() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let began = Instant::now();
    let error = publish(&connection, Outgoing::to("invoices.sent", "").unwrap(), SOON * 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStream);
    assert!(error.to_string().contains("invoices.sent"), "{error}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_before_it_is_sent() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let outgoing = Outgoing::to("orders.created", vec![b'x'; 2 * 1024 * 1024]).unwrap();
    let error = publish(&connection, outgoing, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(connection.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_without_a_connection_answers_quickly_and_works_again_later() {
    let mut stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    stage.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !connection.is_up()).await;
    let began = Instant::now();
    let error = publish(&connection, order(b"lost"), SOON * 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    stage.server.restart().await.unwrap();
    eventually("it works again", async || publish(&connection, order(b"{}"), SOON).await.is_ok()).await;
    assert_eq!(stage.stored("orders").await, 1, "what was refused is not sent later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_waited_for_no_longer_than_asked() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    stage.server.pause().unwrap();
    let began = Instant::now();
    let error = publish(&connection, order(b"{}"), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_limit_a_frozen_server_is_waited_for_a_few_seconds() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address());
    publisher.publish(order(b"1"), None).await.unwrap();
    stage.server.pause().unwrap();
    let began = Instant::now();
    let error = publisher.publish(order(b"2"), None).await.unwrap_err();
    stage.server.resume().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(began.elapsed() < SOON * 3, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_published_under_a_limit_that_no_clock_can_tell() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address());
    let results = publisher.publish_many(vec![order(b"1"), order(b"2")], Duration::MAX).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(stage.stored("orders").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_later_waits_apart_and_is_published_at_its_time() {
    let stage = Stage::set().await;
    let config = json!({
        "name": "reminders", "subjects": ["reminders.>", "_later.*.reminders.>"],
        "allow_msg_schedules": true, "allow_msg_ttl": true,
    });
    stage.api("STREAM.CREATE.reminders", &config).await;
    let publisher = Publisher::new(stage.address());
    let outgoing = |number: &str| Outgoing::to("reminders.7", "").unwrap().id(number).unwrap();
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    publisher.publish(outgoing("later").at(tomorrow).unwrap(), SOON).await.unwrap();
    let due = ["1", "2"].map(|number| outgoing(number).at(SystemTime::now()).unwrap().ttl(SOON * 100));
    let stored = publisher.publish_many(due.to_vec(), SOON).await.unwrap();
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let subjects = async || {
        let asked = json!({ "subjects_filter": ">" });
        stage.api("STREAM.INFO.reminders", &asked).await["state"]["subjects"].clone()
    };
    let expected = json!({ "_later.later.reminders.7": 1, "reminders.7": 2 });
    eventually("those that are due are published", async || subjects().await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_place_for_later_is_told_what_it_needs() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address());
    let outgoing = order(b"{}").at(SystemTime::now()).unwrap();
    let error = publisher.publish(outgoing, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStream);
    assert!(error.to_string().contains("\"orders.>\", add \"_later.*.orders.>\" to the stream"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_lost_with_the_connection_do_not_come_after_later_ones() {
    let stage = Stage::set().await;
    let (cut, proxy) = proxy_to(stage.server.url()).await;
    let publisher = Publisher::new(ConnectOptions::to([proxy])).in_order();
    publisher.publish(order(b"first").id("first").unwrap(), SOON).await.unwrap();
    let message = |number: usize| {
        let outgoing = Outgoing::to(&format!("orders.{number}"), vec![b'x'; 8000]).unwrap();
        outgoing.id(&number.to_string()).unwrap()
    };
    let mut left: Vec<usize> = (0..500).collect();
    cut.send_replace(true);
    let began = Instant::now();
    while !left.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{left:?} are not stored");
        let Ok(results) = publisher.publish_many(left.iter().copied().map(message).collect(), SOON).await
        else {
            continue;
        };
        let failed = results.iter().filter_map(|result| result.as_ref().err());
        assert!(failed.map(Error::kind).all(|kind| kind == ErrorKind::Disconnected));
        left = left
            .into_iter()
            .zip(results)
            .filter(|(_, result)| result.is_err())
            .map(|(number, _)| number)
            .collect();
    }
    assert!(!*cut.borrow(), "no connection was lost");
    assert!(began.elapsed() < SOON, "a loss is noticed at once: {:?}", began.elapsed());
    assert_eq!(stage.stored("orders").await, 501);
    for number in 0..500 {
        let stored = stage.api("STREAM.MSG.GET.orders", &json!({ "seq": number + 2 })).await;
        assert_eq!(stored["message"]["subject"], format!("orders.{number}"));
    }
}

/// A proxy that drops a connection with the messages that it reads after `true` was sent.
async fn proxy_to(url: &str) -> (watch::Sender<bool>, String) {
    let server = url.trim_start_matches("nats://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("nats://{}", listener.local_addr().unwrap());
    let cut = watch::Sender::new(false);
    let is_cut = cut.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(carry(client, server, is_cut.clone()));
        }
    });
    (cut, proxy)
}

async fn carry(client: TcpStream, server: TcpStream, cut: watch::Sender<bool>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut read = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from_client.read(&mut read).await {
        let has_messages = read[..count].windows(5).any(|word| word == b"HPUB ");
        if has_messages && cut.send_replace(false) {
            // Until what is written fills the socket, and the rest waits in the client.
            sleep(Duration::from_millis(50)).await;
            break;
        }
        if to_server.write_all(&read[..count]).await.is_err() {
            break;
        }
    }
    back.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_and_a_silent_server_are_told_apart() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.address()).in_order();
    let _hears = stage.client.subscribe("typo.>").await.unwrap();
    stage.client.flush().await.unwrap();
    let messages = || vec![Outgoing::to("typo.created", "").unwrap(), order(b"1")];
    let results = publisher.publish_many(messages(), Duration::from_secs(1)).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Unconfirmed);
    assert_eq!(results[1].as_ref().unwrap().sequence, 1);
    stage.server.pause().unwrap();
    let results = publisher.publish_many(messages(), Duration::from_secs(1)).await.unwrap();
    stage.server.resume().unwrap();
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::Disconnected; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_are_denied_are_told_at_once() {
    let users = "authorization { users = [{ user: a, password: a, permissions: { publish: { deny: \"denied.>\" } } }] }";
    let server = NatsServer::builder().config(users).start().await.unwrap();
    let publisher = Publisher::new(ConnectOptions::to([server.url()]).user("a").password("a"));
    let began = Instant::now();
    let messages = vec![Outgoing::to("denied.a", "").unwrap(), Outgoing::to("denied.b", "").unwrap()];
    let results = publisher.publish_many(messages, PATIENCE).await.unwrap();
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::Denied; 2]);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_limit_is_shorter_than_connecting_is_connected_in_the_end() {
    let stage = Stage::set().await;
    let publisher = Publisher::new(stage.slow_address(Duration::from_millis(300)).await);
    let outgoing = || Outgoing::to("orders.created", "1").unwrap();
    let error = publisher.publish(outgoing(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    eventually("it is connected", async || publisher.max_payload().is_some()).await;
}
