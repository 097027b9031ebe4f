//! A durable that does not exist yet begins where its deliver policy says: a consumer that was renamed would handle
//! everything again, or skip what waits for it.

use std::fmt;

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

/// Tells, before the durable `name` is made, what it will deliver again or skip, and which durable it may replace.
pub(crate) async fn warn_of_a_replay(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    stream: Option<&StreamInfo>,
) {
    // That of an ephemeral consumer is new at every start.
    if options.ephemeral.is_some() {
        return;
    }
    let Some(stream) = stream.filter(|stream| stream.state.messages > 0) else { return };
    // A work queue holds only unsettled messages, and refuses a second durable for them.
    if stream.config.get("retention").is_some_and(|policy| policy == "workqueue") {
        return;
    }
    let stored = stream.state.messages;
    let predecessors = Predecessors::find(connection, options).await;
    let skips_nothing = is_at_the_end(&options.start) && predecessors.waiting == 0;
    if !predecessors.is_empty() && !skips_nothing {
        warn!(
            target: CONSUMER,
            consumer = options.name,
            stream = options.stream,
            durable = name,
            "{}",
            Warning { options, name, stored, predecessors: &predecessors }
        );
    } else if !is_at_the_end(&options.start) {
        info!(
            target: CONSUMER,
            consumer = options.name,
            stream = options.stream,
            durable = name,
            "The durable is new: messages that the stream holds already ({stored}) are delivered to it as the deliver \
             policy says."
        );
    }
}

/// Whether a new durable begins behind messages that wait for the one that it replaces.
fn is_at_the_end(start: &Start) -> bool {
    matches!(start, Start::New | Start::Last | Start::LastPerSubject)
}

/// Other durables of the same kind and filter. The durable of an older version is one whatever its filter is.
#[derive(Debug, Default)]
pub(crate) struct Predecessors {
    /// Those that nobody reads from, which may be continued.
    pub(crate) free: Vec<String>,
    /// Those of workers that run now.
    read: Vec<String>,
    /// Messages that wait for all of them.
    waiting: u64,
}

impl Predecessors {
    pub(crate) async fn find(connection: &Connection, options: &ConsumerOptions) -> Self {
        Self::among(all(connection, &options.stream).await, options)
    }

    fn among(others: Vec<ConsumerInfo>, options: &ConsumerOptions) -> Self {
        let wanted = wanted_filters(options);
        let is_one = |other: &ConsumerInfo| {
            other.config.contains_key("durable_name")
                && !other.config.contains_key("inactive_threshold") // the server deletes it by itself
                && kind(&other.config) == options.kind
                && (filters(&other.config) == wanted || options.inherits.as_ref() == Some(&other.name))
        };
        let mut found = Self::default();
        for other in others.into_iter().filter(is_one) {
            let unsettled = u64::try_from(other.num_ack_pending).unwrap_or_default();
            found.waiting = found.waiting.saturating_add(other.num_pending).saturating_add(unsettled);
            let names = if other.is_read() { &mut found.read } else { &mut found.free };
            names.push(other.name);
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.free.is_empty() && self.read.is_empty()
    }
}

/// The warning in words.
struct Warning<'a> {
    options: &'a ConsumerOptions,
    name: &'a str,
    stored: u64,
    predecessors: &'a Predecessors,
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, name, stored, predecessors: Predecessors { free, read, waiting } } = self;
        let others = list(free.iter().chain(read));
        if is_at_the_end(&options.start) {
            let policy = match options.start {
                Start::New => "behind all messages of its stream",
                Start::Last => "with the last message of its stream",
                _ => "with the last message of each subject",
            };
            write!(
                f,
                "The durable is new and begins {policy}, as its deliver policy says: older messages that wait for the durable \
                 {others} ({waiting}) are not delivered to it."
            )?;
        } else {
            write!(
                f,
                "The durable is new: messages that the stream holds already ({stored}) are delivered to it, although the \
                 durable {others} may have had them."
            )?;
        }
        if !read.is_empty() {
            write!(f, " Workers read from {} now.", list(read))?;
        }
        match free.first() {
            Some(first) => write!(
                f,
                " If {name} replaces {}, stop now and write `durable_name = {first:?}` in {}: it continues where that \
                 durable stands.",
                if read.is_empty() { "it".to_owned() } else { list(free) },
                options.name
            ),
            None => write!(
                f,
                " If {} is their consumer under a new name, stop now and give it the old durable name.",
                options.name
            ),
        }
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().take(NAMED).map(|each| format!("`{each}`")).collect::<Vec<_>>().join(" or ")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A pull durable for `orders.*`; `workers` read from it, and ten messages wait for it.
    fn durable(name: &str, workers: i64) -> ConsumerInfo {
        let config = json!({ "durable_name": name, "filter_subject": "orders.*" });
        ConsumerInfo {
            name: name.into(),
            config: config.as_object().cloned().unwrap(),
            num_waiting: workers,
            num_pending: 7,
            num_ack_pending: 3,
            ..ConsumerInfo::default()
        }
    }

    fn warning(start: Start, others: Vec<ConsumerInfo>) -> String {
        let mut options = ConsumerOptions::pull("orders", "Invoices").filter("orders.*");
        options.start = start;
        let predecessors = Predecessors::among(others, &options);
        Warning { options: &options, name: "Invoices", stored: 500, predecessors: &predecessors }.to_string()
    }

    #[test]
    fn a_renamed_consumer_is_told_the_line_that_continues_the_old_durable() {
        assert_eq!(
            warning(Start::All, vec![durable("Billing", 0)]),
            "The durable is new: messages that the stream holds already (500) are delivered to it, although the durable \
             `Billing` may have had them. If Invoices replaces it, stop now and write `durable_name = \"Billing\"` in \
             Invoices: it continues where that durable stands."
        );
    }

    #[test]
    fn a_renamed_consumer_of_new_messages_is_told_that_what_waits_is_skipped() {
        assert_eq!(
            warning(Start::New, vec![durable("Billing", 0)]),
            "The durable is new and begins behind all messages of its stream, as its deliver policy says: older messages \
             that wait for the durable `Billing` (10) are not delivered to it. If Invoices replaces it, stop now and write \
             `durable_name = \"Billing\"` in Invoices: it continues where that durable stands."
        );
        assert!(warning(Start::Last, vec![durable("Billing", 0)]).contains("begins with the last message"));
    }

    #[test]
    fn a_second_consumer_of_a_filter_is_not_offered_the_durable_that_the_first_reads_from() {
        let text = warning(Start::All, vec![durable("Billing", 2)]);
        assert!(!text.contains("durable_name ="), "{text}");
        assert!(
            text.ends_with(
                "Workers read from `Billing` now. If Invoices is their consumer under a new name, stop now and give it the \
                 old durable name."
            ),
            "{text}"
        );
    }

    #[test]
    fn durables_that_nobody_reads_from_are_named_first_and_only_they_are_offered() {
        let others = ["Reports", "Billing"].map(|name| durable(name, i64::from(name == "Reports")));
        let text = warning(Start::All, others.into());
        assert!(text.contains("the durable `Billing` or `Reports` may have had them"), "{text}");
        assert!(
            text.contains("Workers read from `Reports` now. If Invoices replaces `Billing`, stop now"),
            "{text}"
        );
        assert!(text.contains("`durable_name = \"Billing\"`"), "{text}");
    }

    #[test]
    fn a_durable_of_another_filter_or_kind_is_no_predecessor() {
        let options = ConsumerOptions::pull("orders", "Invoices").filter("orders.*");
        let mut push = durable("Push", 0);
        push.config.insert("deliver_subject".into(), "somewhere".into());
        let mut other = durable("Other", 0);
        other.config.insert("filter_subject".into(), "orders.paid".into());
        assert!(Predecessors::among(vec![push, other], &options).is_empty());
    }

    #[test]
    fn the_durable_of_an_ephemeral_consumer_is_no_predecessor() {
        let options = ConsumerOptions::pull("orders", "Invoices").filter("orders.*");
        let mut ephemeral = durable("Prices-7f3a", 0);
        ephemeral.config.insert("inactive_threshold".into(), json!(300_000_000_000_u64));
        assert!(Predecessors::among(vec![ephemeral], &options).is_empty());
    }
}
