//! What is wanted of streams and durables, compared with what the server has: plan, then apply.
//!
//! Configurations stay JSON, so that a field this version does not know survives an update.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::{info, warn};

use crate::bind::allowance::allowance;
use crate::config::{ConsumerOptions, Kind, Start};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::{PREFIX, call};
use crate::observe::target::CONSUMER;
use crate::route::Pattern;

/// The server's answer when the deliver subject of a durable that somebody listens to is to change.
const IN_USE: u64 = 10013;

/// Its answers when a work queue has another durable for some of the messages: for all of them, or by its filter.
const TAKEN: [u64; 2] = [10099, 10100];

/// Its answer when a durable of a work queue is to begin elsewhere than at the beginning.
const NOT_ALL: u64 = 10101;

/// What can differ between the declared durable and the server's, and can be changed there.
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

/// A durable on the server that fits its declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    pub(crate) name: String,
    /// Where a push consumer's messages go; none for pull.
    pub(crate) deliver_subject: Option<String>,
    pub(crate) deliver_group: Option<String>,
}

/// The subject that asks the durable for its next messages.
pub(crate) fn next_subject(stream: &str, durable: &str) -> String {
    format!("{PREFIX}.CONSUMER.MSG.NEXT.{stream}.{durable}")
}

/// Finds the durable, makes it, or changes it to fit; `resume_at` is the stream sequence where one that
/// was lost begins again.
///
/// # Errors
/// [`ErrorKind::StreamNotFound`] naming the stream, [`ErrorKind::Mismatch`] naming what differs and
/// cannot be changed, [`ErrorKind::Overlap`] where another durable of a work queue gets the messages.
pub(crate) async fn bind(
    connection: &Connection,
    options: &ConsumerOptions,
    resume_at: Option<u64>,
) -> Result<Durable> {
    let (name, found) = find(connection, options).await?;
    let allowed = allowance(connection, options).await;
    let Some(found) = found else {
        let config = wanted(options, &name, resume_at, allowed);
        declare(connection, options, &name, &config).await?;
        info!(target: CONSUMER, consumer = options.name, stream = options.stream, durable = name, "The durable was created.");
        return Ok(durable(&name, &config));
    };
    refuse_what_cannot_change(options, &name, &found)?;
    let mut config = found.as_object().cloned().unwrap_or_default();
    let changed = merge(&mut config, options, &name, allowed);
    if !changed.is_empty() {
        let config = Value::Object(config.clone());
        declare(connection, options, &name, &config).await?;
        info!(
            target: CONSUMER,
            consumer = options.name,
            stream = options.stream,
            durable = name,
            "The durable differed from its declaration and was updated: {}.",
            changed.join(", ")
        );
    }
    if options.kind == Kind::Push {
        move_to_own_subject(connection, options, &name, &mut config).await?;
    }
    Ok(durable(&name, &Value::Object(config)))
}

/// The durable's configuration, if it exists; the inherited one where the own does not.
async fn find(connection: &Connection, options: &ConsumerOptions) -> Result<(String, Option<Value>)> {
    let own = config_of(connection, options, &options.durable).await?;
    if let (None, Some(older)) = (&own, &options.inherits) {
        let found = config_of(connection, options, older).await?;
        let fits =
            |config: &Value| kind(config) == options.kind && filters(config) == wanted_filters(options);
        if let Some(config) = found.filter(fits) {
            info!(
                target: CONSUMER,
                consumer = options.name,
                stream = options.stream,
                "The durable `{older}` of an older version is taken over with its position."
            );
            return Ok((older.clone(), Some(config)));
        }
    }
    Ok((options.durable.clone(), own))
}

async fn config_of(
    connection: &Connection,
    options: &ConsumerOptions,
    durable: &str,
) -> Result<Option<Value>> {
    let subject = format!("CONSUMER.INFO.{}.{durable}", options.stream);
    match call(connection, &subject, &Value::Null).await {
        Ok(mut info) => Ok(Some(info["config"].take())),
        Err(error) if error.kind() == ErrorKind::Gone => Ok(None),
        Err(error) if error.kind() == ErrorKind::StreamNotFound => Err(Error::new(
            ErrorKind::StreamNotFound,
            format!("The stream `{}`, which {} consumes, does not exist.", options.stream, options.name),
        )),
        Err(error) => Err(error),
    }
}

/// [`upsert`], where what a work queue refuses is explained.
async fn declare(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    config: &Value,
) -> Result<()> {
    let ConsumerOptions { stream, name: consumer, .. } = options;
    upsert(connection, stream, name, config).await.map_err(|error| match error.kind() {
        ErrorKind::Api { err_code, .. } if TAKEN.contains(&err_code) => {
            let message = format!(
                "The stream `{stream}` is a work queue: each message goes to one durable, and another one than \
                 `{name}` takes messages that {consumer} is to get. Choose filters that do not overlap, let both \
                 consumers use one durable, or change the stream's retention."
            );
            Error::new(ErrorKind::Overlap, message).because(error)
        }
        ErrorKind::Api { err_code: NOT_ALL, .. } => {
            let message = format!(
                "The stream `{stream}` is a work queue, which is consumed from its beginning only: leave the \
                 deliver policy of {consumer} at `all`."
            );
            Error::new(ErrorKind::Config, message).because(error)
        }
        _ => error,
    })
}

pub(crate) async fn upsert(connection: &Connection, stream: &str, name: &str, config: &Value) -> Result<()> {
    let body = json!({ "stream_name": stream, "config": config });
    call(connection, &format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &body).await?;
    Ok(())
}

fn wanted(options: &ConsumerOptions, name: &str, resume_at: Option<u64>, allowed: i64) -> Value {
    let mut config = Map::new();
    config.insert("durable_name".into(), name.into());
    config.insert("ack_policy".into(), "explicit".into());
    config.insert("replay_policy".into(), "instant".into());
    let start = resume_at.map_or_else(|| options.start.clone(), Start::Sequence);
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
    merge(&mut config, options, name, allowed);
    Value::Object(config)
}

/// Older versions used one deliver subject for every stream, and no group. The server delivers to a group that
/// was added only when the subject changes, in an update of its own; and it changes no subject that somebody
/// listens to: then an older worker still runs, and the next repair tries again.
async fn move_to_own_subject(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    config: &mut Map<String, Value>,
) -> Result<()> {
    let own = deliver_subject(options, name);
    if config["deliver_subject"] == own.as_str() {
        return Ok(());
    }
    let mut moved = config.clone();
    moved.insert("deliver_subject".into(), own.into());
    let moved = Value::Object(moved);
    match upsert(connection, &options.stream, name, &moved).await {
        Ok(()) => {
            config.insert("deliver_subject".into(), moved["deliver_subject"].clone());
            Ok(())
        }
        Err(error) if matches!(error.kind(), ErrorKind::Api { err_code: IN_USE, .. }) => {
            warn!(
                target: CONSUMER,
                consumer = options.name,
                durable = name,
                "An older worker still receives the messages of this durable. Stop it to receive them here."
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn deliver_subject(options: &ConsumerOptions, name: &str) -> String {
    format!("_deliver.{}.{name}", options.stream)
}

/// Puts what is declared into `config`, a durable's; returns the names of the fields that changed.
pub(crate) fn merge(
    config: &mut Map<String, Value>,
    options: &ConsumerOptions,
    name: &str,
    allowed: i64,
) -> Vec<&'static str> {
    let mut filters = wanted_filters(options);
    let (one, many) = match filters.len() {
        0 => (Value::Null, Value::Null),
        1 => (filters.remove(0).into(), Value::Null),
        _ => (Value::Null, json!(filters)),
    };
    let group = if options.kind == Kind::Push { json!(name) } else { Value::Null };
    let values = [
        nanoseconds(options.ack_wait),
        // No limit of the server's: a message beyond it would stay in the stream, unseen. Ours is the engine's.
        json!(-1),
        json!(allowed),
        one,
        many,
        group,
        // A NAK's delay would be added to it, and its first entry would replace `ack_wait`.
        Value::Null,
        // The position would be gone after a deploy that takes longer.
        Value::Null,
    ];
    let mut changed = Vec::new();
    for (field, value) in CHANGEABLE.into_iter().zip(values) {
        let before = config.remove(field).unwrap_or(Value::Null);
        if before != value {
            changed.push(field);
        }
        if !value.is_null() {
            config.insert(field.into(), value);
        }
    }
    changed
}

fn refuse_what_cannot_change(options: &ConsumerOptions, name: &str, found: &Value) -> Result<()> {
    let refuse = |what: String| {
        let message = format!(
            "The durable `{name}` of the stream `{}` {what}, and the server cannot change that. Give {} another \
             durable name, or delete the durable to begin anew.",
            options.stream, options.name
        );
        Err(Error::new(ErrorKind::Mismatch, message))
    };
    let spell = |kind: Kind| if kind == Kind::Pull { "pull" } else { "push" };
    if kind(found) != options.kind {
        return refuse(format!(
            "is a {} consumer, but a {} one is declared",
            spell(kind(found)),
            spell(options.kind)
        ));
    }
    match found["ack_policy"].as_str() {
        Some("explicit") => Ok(()),
        policy => refuse(format!("has the ack policy `{}` instead of `explicit`", policy.unwrap_or("none"))),
    }
}

fn kind(config: &Value) -> Kind {
    if config["deliver_subject"].is_string() { Kind::Push } else { Kind::Pull }
}

fn filters(config: &Value) -> Vec<String> {
    let many = config["filter_subjects"].as_array().into_iter().flatten();
    let mut found: Vec<String> = many
        .chain([&config["filter_subject"]])
        .filter_map(|filter| filter.as_str().map(str::to_owned))
        .collect();
    found.retain(|filter| !filter.is_empty());
    found
}

/// `>` is how users say "everything"; the server then has no filter at all.
fn wanted_filters(options: &ConsumerOptions) -> Vec<String> {
    if options.filter_subjects == [">"] { Vec::new() } else { options.filter_subjects.clone() }
}

/// Whether no message of the stream, whose configuration it is, can match the filters. What sources, a mirror or a
/// transform bring is not known.
pub(crate) fn has_nothing_for(options: &ConsumerOptions, config: &Value) -> bool {
    let brings_others =
        ["sources", "mirror", "subject_transform"].iter().any(|field| !config[*field].is_null());
    let subjects = config["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parse = |text: &str| Pattern::parse(text).ok();
    let subjects: Vec<_> = subjects.iter().filter_map(|subject| parse(subject.as_str()?)).collect();
    let filters: Vec<_> = wanted_filters(options).iter().filter_map(|filter| parse(filter)).collect();
    let meets = |filter: &Pattern| subjects.iter().any(|subject| subject.overlaps(filter));
    !brings_others && !filters.is_empty() && !filters.iter().any(meets)
}

fn durable(name: &str, config: &Value) -> Durable {
    let text = |field: &str| config[field].as_str().map(str::to_owned);
    Durable {
        name: name.to_owned(),
        deliver_subject: text("deliver_subject"),
        deliver_group: text("deliver_group"),
    }
}

fn nanoseconds(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
