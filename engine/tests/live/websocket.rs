//! Messages come and are settled over a WebSocket, with TLS and without.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nats_consumer::testing::NatsServer;
use nats_consumer::{ConnectOptions, Connection, ErrorKind, consume};

use crate::stage::{SOON, Seen, Stage, pull};

/// A port of this machine that nothing listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server for WebSockets on this port, beside its own; `tls` is what it is told of TLS.
async fn stage_with_websocket(port: u16, tls: &str) -> Stage {
    let config = format!("websocket {{ host: 127.0.0.1, port: {port}, {tls} }}");
    Stage::set_on(NatsServer::builder().config(config)).await
}

/// Makes `ca.pem` and, signed by it, `server.pem` with `server.key`.
fn make_certificates(folder: &Path) {
    let key = |name: &str| format!("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key");
    let authority = format!("req -x509 {} -out ca.pem -subj /CN=ca", key("ca"));
    let server = format!(
        "req -x509 {} -out server.pem -subj /CN=server -CA ca.pem -CAkey ca.key \
         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE",
        key("server")
    );
    for arguments in [authority, server] {
        let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output();
        let made = made.expect("openssl makes the certificates of this test");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_over_a_websocket_and_again_after_the_server_was_restarted() {
    let port = free_port();
    let mut stage = stage_with_websocket(port, "no_tls: true").await;
    let connect =
        ConnectOptions { servers: vec![format!("ws://127.0.0.1:{port}").into()], ..stage.address() };
    let seen = Seen::default();
    let consumption = consume(connect, pull(), seen.and_ack()).await.unwrap();
    stage.publish(0..50).await;
    seen.covers(0..50).await;
    stage.server.restart().await.unwrap();
    stage.publish(50..100).await;
    seen.covers(0..100).await;
    stage.all_settled().await;
    assert_eq!(consumption.drain(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_with_tls_is_used_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", path("server.pem"), path("server.key"));
    let port = free_port();
    let stage = stage_with_websocket(port, &tls).await;
    let connect = ConnectOptions::to([format!("wss://127.0.0.1:{port}")]);
    let error = Connection::open(&connect.clone().connect_timeout(SOON)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");

    let seen = Seen::default();
    let consumption = consume(connect.tls_ca(path("ca.pem")), pull(), seen.and_ack()).await.unwrap();
    stage.publish(0..50).await;
    seen.covers(0..50).await;
    stage.all_settled().await;
    assert_eq!(consumption.drain(SOON).await, 0);
}
