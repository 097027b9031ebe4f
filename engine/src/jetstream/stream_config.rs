//! The wanted configuration of a stream.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::jetstream::api::nanoseconds;
use crate::route::Pattern;

/// The wanted configuration of a stream. A field that is not set gets the server's default in a new stream, and keeps
/// its value in an existing one.
///
/// ```
/// use nats_consumer::StreamConfig;
/// use std::time::Duration;
///
/// let orders = StreamConfig::new("orders")
///     .subject("orders.>")
///     .max_age(Duration::from_secs(7 * 24 * 60 * 60))
///     .option("retention", "interest");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig(Map<String, Value>);

impl StreamConfig {
    /// A stream of this name. Without a [`subject`](Self::subject) it stores what is published to its name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(Map::new()).option("name", name.into())
    }

    /// Stores what is published to this subject, or to subjects that match; may be called again for more. In a text,
    /// `{name}` stands for `*`.
    #[must_use]
    pub fn subject(mut self, pattern: impl Into<String>) -> Self {
        let text = pattern.into();
        // A malformed one is refused by the server.
        let pattern = Pattern::try_from(&text).map_or(text, |pattern| String::from(&pattern));
        let subjects = self.0.entry("subjects").or_insert_with(|| json!([]));
        if let Value::Array(subjects) = subjects {
            subjects.push(pattern.into());
        }
        self
    }

    /// How long a message is kept; without limit.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        self.option("max_age", nanoseconds(age))
    }

    /// How many bytes the stream may hold before the oldest messages go; without limit.
    #[must_use]
    pub fn max_bytes(self, limit: u64) -> Self {
        self.option("max_bytes", limit)
    }

    /// How many messages the stream may hold before the oldest go; without limit.
    #[must_use]
    pub fn max_messages(self, limit: u64) -> Self {
        self.option("max_msgs", limit)
    }

    /// How long a second message with the same [`id`](crate::Outgoing::id) is not stored; 2 minutes.
    #[must_use]
    pub fn duplicate_window(self, window: Duration) -> Self {
        self.option("duplicate_window", nanoseconds(window))
    }

    /// How many servers of a cluster keep the stream; 1.
    #[must_use]
    pub fn replicas(self, count: u64) -> Self {
        self.option("num_replicas", count)
    }

    /// Any other option, by its name in the server's own JSON.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    pub(crate) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    pub(crate) fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The differences of an existing stream, as sentences.
    pub(crate) fn differences(&self, existing: &Map<String, Value>) -> Vec<String> {
        let differ = self.0.iter().filter_map(|(name, wanted)| {
            let found = existing.get(name).unwrap_or(&Value::Null);
            (!is_same(wanted, found)).then(|| format!("`{name}` is {found} and should be {wanted}"))
        });
        differ.collect()
    }
}

/// Subjects are in no order, and a server leaves out what is nothing, or says -1 for no limit.
fn is_same(wanted: &Value, found: &Value) -> bool {
    let nothing = [Value::Null, json!(0), json!(-1), json!(false), json!(""), json!([])];
    let is_nothing = |value: &Value| nothing.contains(value);
    match (wanted, found) {
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().all(|value| found.contains(value))
        }
        _ => wanted == found || is_nothing(wanted) && is_nothing(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existing(config: &Value) -> Map<String, Value> {
        config.as_object().unwrap().clone()
    }

    #[test]
    fn an_existing_stream_with_more_options_or_another_order_is_the_same() {
        let config =
            StreamConfig::new("orders").subject("orders.{id}.paid").subject("refunds.>").max_bytes(0);
        let found = json!({ "name": "orders", "subjects": ["refunds.>", "orders.*.paid"], "max_age": 7 });
        assert_eq!(config.differences(&existing(&found)), Vec::<String>::new());
    }

    #[test]
    fn each_option_that_differs_is_named_with_both_values() {
        let config =
            StreamConfig::new("orders").subject("orders.>").max_age(Duration::from_secs(1)).replicas(3);
        let found = json!({ "name": "orders", "subjects": ["orders.*"], "num_replicas": 3 });
        assert_eq!(
            config.differences(&existing(&found)),
            [
                "`max_age` is null and should be 1000000000",
                "`subjects` is [\"orders.*\"] and should be [\"orders.>\"]"
            ]
        );
    }
}
