//! What to do, and the dialogue with the harness.

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One contestant's part in one round.
#[derive(Deserialize)]
pub(crate) struct Task {
    /// The server.
    pub(crate) url: String,
    pub(crate) stream: String,
    #[serde(default)]
    pub(crate) durable: String,
    /// "pull" or "push".
    #[serde(default)]
    pub(crate) kind: String,
    /// What the handler does: "parse", "nothing", "read", "wait" or "stamp".
    #[serde(default)]
    pub(crate) work: String,
    /// How many messages to publish.
    #[serde(default)]
    pub(crate) messages: u64,
    /// The subjects to publish to, in turn.
    #[serde(default)]
    pub(crate) subjects: Vec<String>,
    /// What to publish.
    #[serde(default)]
    pub(crate) payload: String,
    /// How often `payload` is repeated; 0 is once.
    #[serde(default)]
    pub(crate) repeat: usize,
    /// The size of the messages to consume.
    #[serde(default)]
    pub(crate) bytes: usize,
    /// A stream of slow messages to consume beside; "" is none.
    #[serde(default)]
    pub(crate) beside: String,
    #[serde(default)]
    pub(crate) options: Options,
    /// How many messages a second to publish.
    #[serde(default)]
    pub(crate) rate: u64,
}

/// The options of a contestant that mean something here.
#[derive(Deserialize, Default)]
pub(crate) struct Options {
    /// How many handlers wait at once; 0 is as many as the contestant likes.
    #[serde(default)]
    pub(crate) concurrency: usize,
}

/// Tells the harness that everything is loaded, and waits until it says go.
pub(crate) async fn ready() -> Result<(), BoxError> {
    println!("ready");
    BufReader::new(stdin()).read_line(&mut String::new()).await?;
    Ok(())
}

/// Waits for the harness to say that the round is over.
pub(crate) async fn over() -> Result<(), BoxError> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

pub(crate) fn report(report: &Value) {
    println!("{report}");
}
