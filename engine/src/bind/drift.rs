//! Somebody changes the durable on the server while it is consumed: an operator, or another version of the
//! project that begins while this one still drains.

use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

use crate::bind::declared::{Change, differences, list};
use crate::config::ConsumerOptions;
use crate::observe::target::CONSUMER;

/// No version declares these: a message beyond `max_deliver` would stay in the stream, unseen, and `backoff`
/// would change the delays of retries.
const LIMITS: [&str; 2] = ["max_deliver", "backoff"];

/// How a durable differs from what it was when it was bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drift {
    /// Time that the server waits for a heartbeat.
    pub(crate) ack_wait: Duration,
    changes: Vec<Change>,
}

impl Drift {
    /// The differences between the configuration that the server has `now` and the one that was bound.
    pub(crate) fn of(
        now: &Map<String, Value>,
        bound: &Map<String, Value>,
        options: &ConsumerOptions,
    ) -> Self {
        let mut changes = differences(bound, now);
        // Where nothing is declared, the workers themselves change it.
        changes.retain(|change| change.field != "max_ack_pending" || options.max_ack_pending.is_some());
        let ack_wait =
            now.get("ack_wait").and_then(Value::as_u64).map_or(options.ack_wait, Duration::from_nanos);
        Self { ack_wait, changes }
    }

    /// Logs the differences, if there are any.
    pub(crate) fn warn(&self, options: &ConsumerOptions) {
        if self.changes.is_empty() {
            return;
        }
        let follows = if !options.manages_durable {
            "manage_durables is False, so this worker leaves it as it is"
        } else if self.has_limits() {
            "max_deliver and backoff are removed now; the next worker that starts restores the other fields"
        } else {
            // The durable does not say who changed it.
            "This is expected during a deployment: newer workers declare it. Otherwise, restart a worker to restore \
             what it declares"
        };
        warn!(
            target: CONSUMER,
            consumer = options.name,
            "The durable was changed on the server: {}. Consuming continues. {follows}.",
            list(&self.changes)
        );
    }

    /// Takes away what no version declares; the rest may be the declaration of a newer one.
    pub(crate) fn lift_limits(&self, config: &mut Map<String, Value>) {
        if self.has_limits() {
            config.insert("max_deliver".into(), (-1).into());
            config.remove("backoff");
        }
    }

    fn has_limits(&self) -> bool {
        self.changes.iter().any(|change| LIMITS.contains(&change.field))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::bind::declared::wanted;

    use super::*;

    fn drift(change: impl FnOnce(&mut Map<String, Value>)) -> Drift {
        let options = ConsumerOptions::pull("orders", "billing").filter("orders.*");
        let bound = wanted(&options, "billing", options.start.clone(), 2000);
        let mut now = bound.clone();
        change(&mut now);
        Drift::of(&now, &bound, &options)
    }

    #[test]
    fn a_durable_as_it_was_bound_does_not_differ() {
        assert_eq!(drift(|_| {}), Drift { ack_wait: Duration::from_secs(30), changes: vec![] });
    }

    #[test]
    fn what_somebody_changed_is_named() {
        let changed = drift(|config| {
            config.insert("ack_wait".into(), json!(2_000_000_000));
            config.insert("max_deliver".into(), json!(3));
            config.insert("filter_subject".into(), json!("orders.created"));
            config.insert("max_ack_pending".into(), json!(1));
            config.insert("description".into(), json!("does not matter"));
        });
        let fields: Vec<_> = changed.changes.iter().map(|change| change.field).collect();
        assert_eq!(fields, ["ack_wait", "max_deliver", "filter_subject"]);
        assert_eq!(changed.ack_wait, Duration::from_secs(2));
    }
}
