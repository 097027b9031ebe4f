//! Learns which servers a cluster has, also after the connection was made.
//!
//! The server sends the list when a client connects and whenever it changes. async-nats keeps only the first one, so
//! that it knows of no server that joined the cluster later, and has nowhere to go when the others leave.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ServerAddr};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::connect::link::Link;
use crate::connect::servers::{Servers, random_below};
use crate::observe::target::CONNECTION;

/// The pause between two looks is between one and two of these, so that a fleet does not look in step.
const PERIOD: Duration = Duration::from_secs(30);

/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// More than the longest list of servers has.
const LONGEST_LINE: usize = 1 << 20;

/// Learns for one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Scout(AbortHandle);

impl Drop for Scout {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The fields that are used of the server's first line.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    connect_urls: Vec<String>,
}

impl Scout {
    pub(crate) fn start(client: Client, link: watch::Receiver<Link>, servers: Arc<Servers>) -> Self {
        Self(tokio::spawn(run(client, link, servers)).abort_handle())
    }
}

async fn run(client: Client, mut link: watch::Receiver<Link>, servers: Arc<Servers>) {
    let mut generation = None;
    loop {
        let now = link.borrow_and_update().generation;
        if generation.replace(now) != Some(now) {
            note(&client, &servers, &client.server_info().connect_urls).await;
        }
        let is_clustered = client.server_info().cluster.is_some();
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            () = pause(), if is_clustered => look(&client, &servers).await,
        }
    }
}

async fn pause() {
    let more = random_below(usize::try_from(PERIOD.as_millis()).unwrap_or_default());
    sleep(PERIOD + Duration::from_millis(more as u64)).await;
}

/// Asks the server that is connected which others there are: it says so to everybody who opens a connection.
pub(crate) async fn look(client: &Client, servers: &Servers) {
    let Some((_, address)) = servers.current() else { return };
    match timeout(LIMIT, told(&address)).await {
        Ok(Some(addresses)) => note(client, servers, &addresses).await,
        _ => debug!(target: CONNECTION, "The server did not name the other servers of its cluster."),
    }
}

async fn note(client: &Client, servers: &Servers, told: &[String]) {
    if servers.learn(told) {
        debug!(target: CONNECTION, servers = ?servers.learned(), "The servers of the cluster have changed.");
        // While it reconnects, it answers nobody; then the next look counts.
        let _ = timeout(LIMIT, client.set_server_pool(servers.addresses().as_slice())).await;
    }
}

async fn told(address: &ServerAddr) -> Option<Vec<String>> {
    let stream = TcpStream::connect((address.host(), address.port())).await.ok()?;
    let line = first_line(&stream).await?;
    let info: Info = serde_json::from_slice(line.strip_prefix(b"INFO ")?).ok()?;
    Some(info.connect_urls)
}

async fn first_line(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut some = [0; 4096];
    while line.len() < LONGEST_LINE {
        stream.readable().await.ok()?;
        match stream.try_read(&mut some) {
            Ok(0) => return None,
            Ok(count) => line.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        if let Some(end) = line.windows(2).position(|two| two == b"\r\n") {
            line.truncate(end);
            return Some(line);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use super::*;
    use crate::config::ConnectOptions;
    use crate::connect::Connection;

    /// A server that tells of these others, for as long as the test runs.
    fn server(others: &Arc<Mutex<Vec<&'static str>>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://me:hunter2@{}", listener.local_addr().unwrap());
        let others = others.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let info = serde_json::json!({ "cluster": "c", "connect_urls": *others.lock().unwrap() });
                let _ = write!(stream, "INFO {info}\r\n");
                std::thread::spawn(move || {
                    let mut heard = [0; 4096];
                    while stream.read(&mut heard).is_ok_and(|count| count > 0) {
                        let _ = stream.write_all(b"PONG\r\n");
                    }
                });
            }
        });
        url
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_joins_the_cluster_later_is_known_and_only_over_tls_where_a_password_is_sent() {
        let others = Arc::default();
        let connection = Connection::open(&ConnectOptions::to([server(&others)])).await.unwrap();
        assert!(connection.discovered_servers().is_empty());
        *others.lock().unwrap() = vec!["10.0.0.7:4222"];
        look(connection.client(), &connection.servers).await;
        assert_eq!(connection.discovered_servers(), ["nats://10.0.0.7:4222"]);
        let pool = connection.client().server_pool().await.unwrap();
        let addresses: Vec<_> = pool.iter().map(|server| server.addr.as_url_str()).collect();
        assert!(addresses.contains(&"tls://10.0.0.7:4222"), "{addresses:?}");
        assert!(!format!("{addresses:?}").contains("hunter2"));
    }
}
