//! Somebody changes the durable on the server while it is consumed: an operator, or another version of the
//! project that begins while this one still drains.

use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

use crate::bind::durable::merge;
use crate::config::ConsumerOptions;
use crate::observe::target::CONSUMER;

/// No version declares these: a message beyond `max_deliver` would stay in the stream, unseen, and `backoff`
/// would change the delays of retries.
const LIMITS: [&str; 2] = ["max_deliver", "backoff"];

/// How a durable differs from its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drift {
    /// How long the server waits for a sign of life.
    pub(crate) ack_wait: Duration,
    fields: Vec<&'static str>,
}

impl Drift {
    /// What differs in the configuration that the server has.
    pub(crate) fn of(config: &Value, options: &ConsumerOptions, durable: &str) -> Self {
        let mut declared = config.as_object().cloned().unwrap_or_default();
        // Where nothing is declared, how many may be unsettled follows the size of the messages.
        let allowed = options.max_ack_pending.or(config["max_ack_pending"].as_i64()).unwrap_or(-1);
        let fields = merge(&mut declared, options, durable, allowed);
        let ack_wait = config["ack_wait"].as_u64().map_or(options.ack_wait, Duration::from_nanos);
        Self { ack_wait, fields }
    }

    /// Warns, where there is something to warn of.
    pub(crate) fn tell(&self, options: &ConsumerOptions) {
        if !self.fields.is_empty() {
            warn!(
                target: CONSUMER,
                consumer = options.name,
                "The durable was changed on the server: {} differ from the declaration. Consuming continues. max_deliver \
                 and backoff are removed now; the next worker that starts restores the other fields.",
                self.fields.join(", ")
            );
        }
    }

    /// Takes away what no version declares; the rest may be the declaration of a newer one.
    pub(crate) fn lift_limits(&self, config: &mut Map<String, Value>) {
        if self.fields.iter().any(|field| LIMITS.contains(field)) {
            config.insert("max_deliver".into(), (-1).into());
            config.remove("backoff");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drift(change: impl FnOnce(&mut Map<String, Value>)) -> Drift {
        let options = ConsumerOptions::pull("orders", "billing").filter("orders.*");
        let mut config = Map::new();
        merge(&mut config, &options, "billing", 2000);
        change(&mut config);
        Drift::of(&Value::Object(config), &options, "billing")
    }

    #[test]
    fn a_durable_as_declared_does_not_differ() {
        assert_eq!(drift(|_| {}), Drift { ack_wait: Duration::from_secs(30), fields: vec![] });
    }

    #[test]
    fn what_somebody_changed_is_named() {
        let changed = drift(|config| {
            config.insert("ack_wait".into(), json!(2_000_000_000));
            config.insert("max_deliver".into(), json!(3));
            config.insert("filter_subject".into(), json!("orders.created"));
            config.insert("description".into(), json!("no matter"));
        });
        assert_eq!(changed.fields, ["ack_wait", "max_deliver", "filter_subject"]);
        assert_eq!(changed.ack_wait, Duration::from_secs(2));
    }
}
