//! The harness of the other tests: a server that starts, breaks and comes back as asked.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_nats::Client;
use nats_consumer::testing::{NatsCluster, NatsServer};
use serde_json::Value;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

fn runs(pid: u32) -> bool {
    let script = format!("kill -0 {pid}");
    Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
}

/// The answer of the JetStream API.
async fn ask(client: &Client, api: &str, body: &str) -> Value {
    let reply = client.request(format!("$JS.API.{api}"), body.to_owned().into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

async fn create_orders(server: &NatsServer) {
    let client = server.client().await.unwrap();
    let stream = ask(&client, "STREAM.CREATE.orders", r#"{"name": "orders"}"#).await;
    assert_eq!(stream["error"], Value::Null);
}

async fn has_orders(server: &NatsServer) -> bool {
    let client = server.client().await.unwrap();
    ask(&client, "STREAM.INFO.orders", "").await["config"]["name"] == "orders"
}

#[tokio::test]
async fn a_client_reaches_the_server() {
    let server = NatsServer::start().await.unwrap();
    assert!(server.url().starts_with("nats://127.0.0.1:"), "{}", server.url());
    let client = server.client().await.unwrap();
    assert_eq!(ask(&client, "INFO", "").await["streams"], 0);
}

#[tokio::test]
async fn a_stream_survives_a_kill_and_a_restart_at_the_same_address() {
    let mut server = NatsServer::start().await.unwrap();
    let (url, pid) = (server.url().to_owned(), server.pid());
    create_orders(&server).await;

    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();

    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert!(has_orders(&server).await);
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
    for _ in 0..5 {
        server.pause().unwrap();
        assert!(timeout(SHORT, ask(&client, "INFO", "")).await.is_err());
        server.resume().unwrap();
        timeout(LONG, ask(&client, "INFO", "")).await.unwrap();
    }
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
    create_orders(&server).await;
    drop(server);

    let server = NatsServer::builder().store(folder.path()).start().await.unwrap();
    assert!(has_orders(&server).await);
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
    let client = cluster.client().await.unwrap();
    let stream = ask(&client, "STREAM.CREATE.orders", r#"{"name": "orders", "num_replicas": 3}"#).await;
    let follower = if stream["cluster"]["leader"] == "node-0" { 1 } else { 0 };

    cluster.nodes()[follower].kill().await.unwrap();
    assert!(has_orders(&cluster.nodes()[2]).await);

    cluster.nodes()[follower].restart().await.unwrap();
    cluster.ready().await.unwrap();
}
