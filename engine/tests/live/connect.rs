//! Getting in, or being told why not.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use nats_consumer::testing::NatsServer;
use nats_consumer::{ConnectOptions, Connection, ConnectionEvent, ErrorKind};
use tokio::time::{Instant, sleep};

use crate::stage::{SOON, eventually};

const USERS: &str = "authorization { users: [{ user: billing, password: hunter2 }] }";

async fn server_with_users() -> NatsServer {
    NatsServer::builder().config(USERS).start().await.unwrap()
}

fn url_with(credentials: &str, server: &NatsServer) -> String {
    server.url().replace("nats://", &format!("nats://{credentials}@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_waited_for_until_the_timeout() {
    let mut server = NatsServer::start().await.unwrap();
    server.stop().await.unwrap();
    let limit = Duration::from_millis(700);
    let options = ConnectOptions { connect_timeout: limit, ..ConnectOptions::to([server.url()]) };
    let began = Instant::now();
    let error = Connection::open(&options).await.unwrap_err();
    let waited = began.elapsed();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains(server.url()), "{error}");
    assert!(waited > limit / 2 && waited < limit + SOON, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_keeps_the_error_of_the_operating_system() {
    let mut server = NatsServer::start().await.unwrap();
    server.stop().await.unwrap();
    let options = ConnectOptions::to([server.url()]).connect_timeout(Duration::from_millis(200));
    let error = Connection::open(&options).await.unwrap_err();
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let kinds: Vec<_> =
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).collect();
    assert_eq!(kinds, [io::ErrorKind::ConnectionRefused], "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_options_of_the_client_underneath_can_be_changed() {
    let server = server_with_users().await;
    let with_password =
        |_| async_nats::ConnectOptions::with_user_and_password("billing".into(), "hunter2".into());
    let options = ConnectOptions::to([server.url()]).customize(with_password);
    let connection = Connection::open(&options).await.unwrap();
    assert!(connection.is_up());
    assert!(connection.client().new_inbox().starts_with("_INBOX."));
    let error = Connection::open(&ConnectOptions::to([server.url()])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_within_the_timeout_is_reached() {
    let mut server = NatsServer::start().await.unwrap();
    let options = ConnectOptions { connect_timeout: SOON * 3, ..ConnectOptions::to([server.url()]) };
    server.stop().await.unwrap();
    let opening = tokio::spawn(async move { Connection::open(&options).await });
    server.restart().await.unwrap();
    assert!(opening.await.unwrap().unwrap().is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_closed_while_it_is_lost_stays_closed() {
    let mut server = NatsServer::start().await.unwrap();
    let options = ConnectOptions::to([server.url()]);
    let connection = Connection::open(&options).await.unwrap();
    let mut events = connection.events().unwrap();
    server.kill().await.unwrap();
    assert_eq!(events.recv().await, Ok(ConnectionEvent::Disconnected));
    connection.close(Duration::from_millis(200)).await;
    assert!(connection.is_closed());
    assert!(events.recv().await.is_err(), "nothing happens any more");
    server.restart().await.unwrap();
    sleep(SOON).await;
    assert!(!connection.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_given_up_at_the_timeout() {
    let server = NatsServer::start().await.unwrap();
    server.pause().unwrap();
    let limit = Duration::from_millis(700);
    let options = ConnectOptions { connect_timeout: limit, ..ConnectOptions::to([server.url()]) };
    let began = Instant::now();
    let error = Connection::open(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(began.elapsed() < limit + SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_at_once_and_never_repeated() {
    let server = server_with_users().await;
    let by_option = ConnectOptions {
        user: Some("billing".into()),
        password: Some("s3cret".into()),
        ..ConnectOptions::to([server.url()])
    };
    let by_url = ConnectOptions::to([url_with("billing:s3cret", &server)]);
    for options in [by_option, by_url] {
        let options = ConnectOptions { connect_timeout: SOON * 10, ..options };
        let began = Instant::now();
        let error = Connection::open(&options).await.unwrap_err();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!format!("{error} {error:?} {options:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_does_not_give_the_password_away() {
    let mut server = server_with_users().await;
    server.stop().await.unwrap();
    let options = ConnectOptions {
        connect_timeout: Duration::from_millis(300),
        ..ConnectOptions::to([url_with("billing:s3cret", &server)])
    };
    let error = Connection::open(&options).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_the_url_are_used() {
    let server = server_with_users().await;
    let options = ConnectOptions::to([url_with("billing:hunter2", &server)]);
    assert!(Connection::open(&options).await.unwrap().is_up());

    let server = NatsServer::builder().config("authorization { token: hunter2 }").start().await.unwrap();
    let options = ConnectOptions::to([url_with("hunter2", &server)]);
    assert!(Connection::open(&options).await.unwrap().is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_one_that_answers_is_enough() {
    let mut gone = NatsServer::start().await.unwrap();
    gone.stop().await.unwrap();
    let server = NatsServer::start().await.unwrap();
    let options = ConnectOptions::to([gone.url(), server.url()]);
    assert!(Connection::open(&options).await.unwrap().is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_link_is_true_at_any_moment() {
    let mut server = NatsServer::start().await.unwrap();
    let options =
        ConnectOptions { reconnect_wait: Duration::from_millis(100), ..ConnectOptions::to([server.url()]) };
    let connection = Connection::open(&options).await.unwrap();
    server.kill().await.unwrap();
    eventually("it is down", async || !connection.is_up()).await;
    assert!(!connection.is_closed());
    server.restart().await.unwrap();
    eventually("it is up", async || connection.is_up()).await;
    connection.close(SOON).await;
    assert!(connection.is_closed() && !connection.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_the_list_that_hangs_does_not_take_the_time_of_the_others() {
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("nats://{}", hole.local_addr().unwrap());
    let server = NatsServer::start().await.unwrap();
    let options = ConnectOptions {
        connect_timeout: Duration::from_millis(300),
        ..ConnectOptions::to([hangs, server.url().to_owned()])
    };
    for _ in 0..6 {
        assert!(Connection::open(&options).await.unwrap().is_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_url_of_the_list_has_its_own_credentials() {
    let one = server_with_users().await;
    let users = "authorization { users: [{ user: shop, password: \"p@ss:w/rd\" }] }";
    let mut other = NatsServer::builder().config(users).start().await.unwrap();
    let urls = [url_with("billing:hunter2", &one), url_with("shop:p%40ss%3Aw%2Frd", &other)];
    let options = ConnectOptions { reconnect_wait: Duration::from_millis(50), ..ConnectOptions::to(urls) };
    let mut reached = std::collections::HashSet::new();
    for _ in 0..8 {
        reached.insert(Connection::open(&options).await.unwrap().server());
    }
    assert!(reached.iter().all(|url| [one.url(), other.url()].contains(&url.as_str())), "{reached:?}");

    let at_the_other = ConnectOptions { servers: vec![options.servers[1].clone()], ..options.clone() };
    assert!(Connection::open(&at_the_other).await.unwrap().is_up());
    let connection = loop {
        let connection = Connection::open(&options).await.unwrap();
        if connection.server() == other.url() {
            break connection;
        }
    };
    other.kill().await.unwrap();
    eventually("it is at the other one", async || connection.is_up() && connection.server() == one.url())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_does_not_keep_the_others_from_being_tried() {
    let refuses = server_with_users().await;
    let server = NatsServer::start().await.unwrap();
    let options = ConnectOptions::to([url_with("billing:s3cret", &refuses), server.url().to_owned()]);
    for _ in 0..4 {
        assert_eq!(Connection::open(&options).await.unwrap().server(), server.url());
    }
}
