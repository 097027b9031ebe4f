//! A durable that does not exist yet begins at the start of its stream: a consumer that was renamed would handle
//! everything again.

use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::bind::declared::{filters, kind, wanted_filters};
use crate::config::{ConsumerOptions, Start};
use crate::connect::Connection;
use crate::jetstream::info::{ConsumerInfo, StreamInfo, ask};
use crate::observe::target::CONSUMER;

/// How many durables are named.
const NAMED: usize = 3;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    total: usize,
    consumers: Option<Vec<ConsumerInfo>>,
}

/// Tells, before the durable `name` is made, what it will deliver again, and which durable it may replace.
pub(crate) async fn warn_of_a_replay(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    stream: Option<&StreamInfo>,
) {
    let Some(stream) = stream.filter(|stream| stream.state.messages > 0) else { return };
    if options.start == Start::New
        || stream.config.get("retention").is_some_and(|policy| policy == "workqueue")
    {
        return;
    }
    let stored = stream.state.messages;
    let candidates = predecessors(connection, options).await;
    let Some(first) = candidates.first() else {
        info!(
            target: CONSUMER,
            consumer = options.name,
            stream = options.stream,
            durable = name,
            "The durable is new: messages that the stream holds already ({stored}) are delivered to it as the deliver \
             policy says."
        );
        return;
    };
    warn!(
        target: CONSUMER,
        consumer = options.name,
        stream = options.stream,
        durable = name,
        "The durable is new: messages that the stream holds already ({stored}) are delivered to it, although the durable {} \
         may have had them. If {name} replaces it, stop now and write `durable_name = {first:?}` in {}: it continues \
         where that durable stands.",
        candidates.iter().take(NAMED).map(|each| format!("`{each}`")).collect::<Vec<_>>().join(" or "),
        options.name
    );
}

/// Other durables of the same kind and filter, those that nobody reads from first. The durable of an older version is one
/// whatever its filter is.
async fn predecessors(connection: &Connection, options: &ConsumerOptions) -> Vec<String> {
    let wanted = wanted_filters(options);
    let mut found: Vec<_> = all(connection, &options.stream)
        .await
        .into_iter()
        .filter(|other| other.config.contains_key("durable_name") && kind(&other.config) == options.kind)
        .filter(|other| filters(&other.config) == wanted || options.inherits.as_ref() == Some(&other.name))
        .collect();
    found.sort_by_key(ConsumerInfo::is_read);
    found.into_iter().map(|other| other.name).collect()
}

/// The durables of a stream, as far as they may be listed.
pub(crate) async fn all(connection: &Connection, stream: &str) -> Vec<ConsumerInfo> {
    let mut all = Vec::new();
    loop {
        let what: Value = json!({ "offset": all.len() });
        let Ok(page) = ask::<Page>(connection, &format!("CONSUMER.LIST.{stream}"), &what).await else {
            return all;
        };
        let found = page.consumers.unwrap_or_default();
        if found.is_empty() {
            return all;
        }
        all.extend(found);
        if all.len() >= page.total {
            return all;
        }
    }
}
