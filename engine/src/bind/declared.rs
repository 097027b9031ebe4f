//! The configuration of a durable that the options declare, and how a durable on the server differs from it.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::{ConsumerOptions, Kind, Start};
use crate::jetstream::api::nanoseconds;
use crate::route::Pattern;

/// The fields that can differ between the declared durable and the server's, and can be changed there.
const CHANGEABLE: [&str; 8] = [
    "ack_wait",
    "max_deliver",
    "max_ack_pending",
    "filter_subject",
    "filter_subjects",
    "deliver_group",
    "backoff",
    "inactive_threshold",
];

/// One field of a durable that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The server's name of the field.
    pub field: &'static str,
    from: Value,
    to: Value,
}

impl Change {
    /// The value on the server, in words; `none` without one.
    #[must_use]
    pub fn from(&self) -> String {
        display(self.field, &self.from)
    }

    /// The declared value, in words.
    #[must_use]
    pub fn to(&self) -> String {
        display(self.field, &self.to)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.field, self.from(), self.to())
    }
}

/// The changes in words.
pub(crate) fn list(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn display(field: &str, value: &Value) -> String {
    match (field, value) {
        (_, Value::Null) => "none".to_owned(),
        ("ack_wait" | "inactive_threshold", value) => value.as_u64().map_or_else(
            || value.to_string(),
            |nanos| humantime::format_duration(Duration::from_nanos(nanos)).to_string(),
        ),
        _ => value.to_string(),
    }
}

/// How `now` differs from `before`, in what can be declared.
pub(crate) fn differences(before: &Map<String, Value>, now: &Map<String, Value>) -> Vec<Change> {
    let value = |config: &Map<String, Value>, field| config.get(field).cloned().unwrap_or(Value::Null);
    let changes = CHANGEABLE.map(|field| Change { field, from: value(before, field), to: value(now, field) });
    changes.into_iter().filter(|change| change.from != change.to).collect()
}

/// Puts what is declared into `config`, a durable's. `allowed` is its `max_ack_pending`, where that is to be set.
pub(crate) fn merge(
    config: &mut Map<String, Value>,
    options: &ConsumerOptions,
    name: &str,
    allowed: Option<i64>,
) {
    let mut filters = wanted_filters(options);
    let (one, many) = match filters.len() {
        0 => (Value::Null, Value::Null),
        1 => (filters.remove(0).into(), Value::Null),
        _ => (Value::Null, json!(filters)),
    };
    let group = if options.kind == Kind::Push { json!(name) } else { Value::Null };
    let allowed = allowed.map(Value::from).or_else(|| config.get("max_ack_pending").cloned());
    let values = [
        json!(nanoseconds(options.ack_wait)),
        // No limit of the server's: a message beyond it would stay in the stream, unseen. Ours is the engine's.
        json!(-1),
        allowed.unwrap_or_default(),
        one,
        many,
        group,
        // A NAK's delay would be added to it, and its first entry would replace `ack_wait`.
        Value::Null,
        // With a limit, the position would be gone after a deploy that takes longer.
        options.ephemeral.map_or(Value::Null, |threshold| json!(nanoseconds(threshold))),
    ];
    for (field, value) in CHANGEABLE.into_iter().zip(values) {
        if value.is_null() {
            config.remove(field);
        } else {
            config.insert(field.into(), value);
        }
    }
}

/// The configuration of a durable that does not exist yet, and how much it allows at first.
pub(crate) fn wanted(
    options: &ConsumerOptions,
    name: &str,
    start: Start,
    allowed: i64,
) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("durable_name".into(), name.into());
    config.insert("ack_policy".into(), "explicit".into());
    config.insert("replay_policy".into(), "instant".into());
    let (policy, detail) = match start {
        Start::All => ("all", None),
        Start::Last => ("last", None),
        Start::LastPerSubject => ("last_per_subject", None),
        Start::New => ("new", None),
        Start::Sequence(sequence) => ("by_start_sequence", Some(("opt_start_seq", json!(sequence)))),
        Start::Time(time) => ("by_start_time", Some(("opt_start_time", json!(time)))),
    };
    config.insert("deliver_policy".into(), policy.into());
    if let Some((field, value)) = detail {
        config.insert(field.into(), value);
    }
    if options.kind == Kind::Push {
        config.insert("deliver_subject".into(), deliver_subject(options, name).into());
    }
    merge(&mut config, options, name, Some(allowed));
    config
}

pub(crate) fn deliver_subject(options: &ConsumerOptions, name: &str) -> String {
    format!("_deliver.{}.{name}", options.stream)
}

pub(crate) fn kind(config: &Map<String, Value>) -> Kind {
    if config.get("deliver_subject").is_some_and(Value::is_string) { Kind::Push } else { Kind::Pull }
}

pub(crate) fn filters(config: &Map<String, Value>) -> Vec<String> {
    let many = config.get("filter_subjects").and_then(Value::as_array).into_iter().flatten();
    let found = many.chain(config.get("filter_subject")).filter_map(Value::as_str);
    found.filter(|filter| !filter.is_empty()).map(str::to_owned).collect()
}

/// `>` is how users say "everything"; the server then has no filter at all.
pub(crate) fn wanted_filters(options: &ConsumerOptions) -> Vec<String> {
    if options.filter_subjects == [">"] { Vec::new() } else { options.filter_subjects.clone() }
}

/// Whether no message of the stream, whose configuration it is, can match the filters. What sources, a mirror or a
/// transform bring is not known.
pub(crate) fn has_nothing_for(options: &ConsumerOptions, config: &Map<String, Value>) -> bool {
    let brings_others = ["sources", "mirror", "subject_transform"]
        .iter()
        .any(|field| config.get(*field).is_some_and(|value| !value.is_null()));
    let subjects = config.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let parse = |text: &str| Pattern::parse(text).ok();
    let subjects: Vec<_> = subjects.iter().filter_map(|subject| parse(subject.as_str()?)).collect();
    let filters: Vec<_> = wanted_filters(options).iter().filter_map(|filter| parse(filter)).collect();
    let meets = |filter: &Pattern| subjects.iter().any(|subject| subject.overlaps(filter));
    !brings_others && !filters.is_empty() && !filters.iter().any(meets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_from_what_to_what() {
        let options = ConsumerOptions::pull("orders", "billing").filter("orders.*");
        let declared = wanted(&options, "billing", options.start.clone(), 1000);
        let mut other = declared.clone();
        other.insert("ack_wait".into(), json!(90_000_000_000_u64));
        other.remove("filter_subject");
        other.insert("description".into(), json!("does not matter"));
        assert_eq!(
            list(&differences(&other, &declared)),
            "ack_wait from 1m 30s to 30s, filter_subject from none to \"orders.*\""
        );
    }
}
