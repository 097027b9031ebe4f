//! Several servers that form one JetStream cluster.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::NatsServer;

/// How long the election of a leader and the joining of all nodes may take together.
const JOIN_TIMEOUT: Duration = Duration::from_secs(45);

/// How long one attempt may take: a cluster that has no leader does not answer at all.
const ANSWER: Duration = Duration::from_secs(1);

/// Each attempt costs the cluster an election's worth of attention.
const JOIN_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A JetStream cluster on this machine. Dropping it kills every node and removes its files.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts `size` nodes, at most 5, and waits until streams can have that many replicas.
    ///
    /// # Errors
    /// As [`NatsServerBuilder::start`](super::NatsServerBuilder::start) and [`ready`](Self::ready).
    pub async fn start(size: usize) -> io::Result<Self> {
        let addresses = free_addresses(size)?;
        let routes: Vec<_> = addresses.iter().map(|address| format!("nats://{address}")).collect();
        let mut nodes = Vec::with_capacity(size);
        for (number, listen) in addresses.iter().enumerate() {
            // Addresses in quotes and lists in brackets are the same in Rust and in a configuration.
            let config = format!(
                "server_name: node-{number}\n\
                 cluster {{ name: test, listen: {listen:?}, routes: {routes:?} }}"
            );
            nodes.push(NatsServer::builder().config(config).start().await?);
        }
        let cluster = Self { nodes };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// The nodes, to look at or to stop, kill, restart and pause.
    pub fn nodes(&mut self) -> &mut [NatsServer] {
        &mut self.nodes
    }

    /// Addresses for clients, one of each node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url().to_owned()).collect()
    }

    /// A client that knows every node.
    ///
    /// # Errors
    /// As [`async_nats::connect`].
    pub async fn client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        async_nats::connect(self.urls()).await
    }

    /// Waits until every node takes part: a stream with a replica on each can be made.
    ///
    /// # Errors
    /// `TimedOut` if that never happens, as while a node is stopped.
    pub async fn ready(&self) -> io::Result<()> {
        let client = self.client().await.map_err(io::Error::other)?;
        let joined = async {
            while self.replicate(&client).await.is_err() {
                sleep(JOIN_POLL_INTERVAL).await;
            }
        };
        timeout(JOIN_TIMEOUT, joined).await.map_err(|_| {
            let text = format!("the nodes of the cluster did not join within {JOIN_TIMEOUT:?}");
            io::Error::new(io::ErrorKind::TimedOut, text)
        })
    }

    /// Makes and removes a stream with a replica on each node.
    async fn replicate(&self, client: &async_nats::Client) -> Result<(), async_nats::Error> {
        let name = "cluster-is-ready";
        let stream = json!({"name": name, "storage": "memory", "num_replicas": self.nodes.len()});
        call(client, format!("$JS.API.STREAM.CREATE.{name}"), stream.to_string()).await?;
        call(client, format!("$JS.API.STREAM.DELETE.{name}"), String::new()).await
    }
}

/// A request to the JetStream API, whose answer matters only if it is an error.
async fn call(client: &async_nats::Client, api: String, body: String) -> Result<(), async_nats::Error> {
    let request = async_nats::Request::new().payload(body.into()).timeout(Some(ANSWER));
    let reply = client.send_request(api, request).await?;
    match serde_json::from_slice::<Value>(&reply.payload)?.get("error") {
        None => Ok(()),
        Some(error) => Err(error.to_string().into()),
    }
}

/// Nodes name each other's address before they run, so here a server cannot choose: these ports
/// were free a moment ago.
fn free_addresses(count: usize) -> io::Result<Vec<String>> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..count).map(bind).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
