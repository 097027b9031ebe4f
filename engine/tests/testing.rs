//! The harness of the other tests: a server that starts, breaks and comes back as asked.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use nats_consumer::testing::{NatsCluster, NatsServer};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

fn runs(pid: u32) -> bool {
    let script = format!("kill -0 {pid}");
    Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
}

/// What only a server that runs can give.
async fn answer(client: &async_nats::Client) {
    client.request("$JS.API.INFO", "".into()).await.unwrap();
}

#[tokio::test]
async fn a_client_reaches_the_server() {
    let server = NatsServer::start().await.unwrap();
    assert!(server.url().starts_with("nats://127.0.0.1:"), "{}", server.url());
    answer(&server.client().await.unwrap()).await;
}

#[tokio::test]
async fn a_stream_survives_a_kill_and_a_restart_at_the_same_address() {
    let mut server = NatsServer::start().await.unwrap();
    let (url, pid) = (server.url().to_owned(), server.pid());
    let streams = async_nats::jetstream::new(server.client().await.unwrap());
    streams.create_stream("orders").await.unwrap();

    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();

    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    let streams = async_nats::jetstream::new(server.client().await.unwrap());
    streams.get_stream("orders").await.unwrap();
}

#[tokio::test]
async fn a_restart_ends_the_server_that_runs() {
    let mut server = NatsServer::start().await.unwrap();
    let before = server.pid().unwrap();
    assert!(runs(before));
    server.restart().await.unwrap();
    assert!(!runs(before));
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() {
    let server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    server.pause().unwrap();
    assert!(timeout(SHORT, answer(&client)).await.is_err());
    server.resume().unwrap();
    timeout(LONG, answer(&client)).await.unwrap();
}

#[tokio::test]
async fn a_paused_server_can_be_stopped() {
    let mut server = NatsServer::start().await.unwrap();
    server.pause().unwrap();
    server.stop().await.unwrap();
    assert_eq!(server.pid(), None);
    assert_eq!(server.pause().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[tokio::test]
async fn a_configuration_is_obeyed() {
    let server = NatsServer::builder().config("max_payload: 1024").start().await.unwrap();
    let client = server.client().await.unwrap();
    assert_eq!(client.server_info().max_payload, 1024);
}

#[tokio::test]
async fn a_wrong_configuration_is_explained() {
    let error = NatsServer::builder().config("max_payload: much").start().await.unwrap_err();
    assert!(error.to_string().contains("server.conf:1"), "{error}");
}

#[tokio::test]
async fn a_store_of_your_own_outlives_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::builder().store(folder.path()).start().await.unwrap();
    let streams = async_nats::jetstream::new(server.client().await.unwrap());
    streams.create_stream("orders").await.unwrap();
    drop(server);

    let server = NatsServer::builder().store(folder.path()).start().await.unwrap();
    let streams = async_nats::jetstream::new(server.client().await.unwrap());
    streams.get_stream("orders").await.unwrap();
}

#[tokio::test]
async fn a_test_that_panics_leaves_no_process() {
    let test = tokio::spawn(async {
        let server = NatsServer::start().await.unwrap();
        std::panic::panic_any(server.pid().unwrap());
    });
    let panic = test.await.unwrap_err().into_panic();
    assert!(!runs(*panic.downcast::<u32>().unwrap()));
}

#[tokio::test]
async fn a_cluster_keeps_a_stream_when_a_node_is_lost() {
    let mut cluster = NatsCluster::start(3).await.unwrap();
    let streams = async_nats::jetstream::new(cluster.client().await.unwrap());
    let orders = async_nats::jetstream::stream::Config {
        name: "orders".to_owned(),
        num_replicas: 3,
        ..Default::default()
    };
    let stream = streams.create_stream(orders).await.unwrap();
    let leader = stream.cached_info().cluster.as_ref().unwrap().leader.clone().unwrap();
    let bystander = if leader == "node-0" { 1 } else { 0 };
    cluster.nodes()[bystander].kill().await.unwrap();
    let published = async { while streams.publish("orders", "{}".into()).await.unwrap().await.is_err() {} };
    timeout(LONG * 3, published).await.unwrap();
    cluster.nodes()[bystander].restart().await.unwrap();
    cluster.ready().await.unwrap();
}
