//! The durable that is wanted, compared with what the server has: found, made, or changed to fit.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::{debug, info, warn};

use crate::bind::allowance::allowance;
use crate::bind::declared::{
    Change, deliver_subject, differences, filters, kind, list, merge, wanted, wanted_filters,
};
use crate::bind::limits::{most_allowed, refuse_forgetting, too_much_declared};
use crate::bind::position::{Resume, is_later_than_now};
use crate::bind::replay::warn_of_a_replay;
use crate::config::{ConsumerOptions, Kind};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::call;
use crate::jetstream::info::{ConsumerInfo, StreamInfo, ask, consumer_info, pause, stream_info};
use crate::observe::target::CONSUMER;

/// The server's answer when the deliver subject of a durable that somebody listens to is to change.
const IN_USE: u64 = 10013;

/// Its answers when a work queue has another durable for some of the messages: for all of them, or by its filter.
const TAKEN: [u64; 2] = [10099, 10100];

/// Its answer when a durable of a work queue is to begin elsewhere than at the beginning.
const NOT_ALL: u64 = 10101;

/// A durable on the server, as it was bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Durable {
    pub(crate) name: String,
    pub(crate) config: Map<String, Value>,
}

impl Durable {
    /// The subject of a push consumer's messages; none for pull.
    pub(crate) fn deliver_subject(&self) -> Option<&str> {
        self.config.get("deliver_subject")?.as_str()
    }

    pub(crate) fn deliver_group(&self) -> Option<&str> {
        self.config.get("deliver_group")?.as_str()
    }

    /// The most messages that one request may ask for.
    pub(crate) fn max_batch(&self) -> Option<usize> {
        usize::try_from(self.limit("max_batch")?).ok()
    }

    /// The most bytes that one request may ask for.
    pub(crate) fn max_bytes(&self) -> Option<usize> {
        usize::try_from(self.limit("max_bytes")?).ok()
    }

    /// The longest that one request may wait.
    pub(crate) fn max_expires(&self) -> Option<Duration> {
        self.limit("max_expires").map(Duration::from_nanos)
    }

    /// The priority group that requests have to name.
    pub(crate) fn group(&self) -> Option<&str> {
        self.config.get("priority_groups")?.get(0)?.as_str()
    }

    fn limit(&self, field: &str) -> Option<u64> {
        self.config.get(field)?.as_u64().filter(|limit| *limit > 0)
    }
}

/// The subject that asks the durable for its next messages.
pub(crate) fn next_subject(connection: &Connection, stream: &str, durable: &str) -> String {
    let prefix = connection.api_prefix();
    format!("{prefix}.CONSUMER.MSG.NEXT.{stream}.{durable}")
}

/// Finds the durable, makes it, or changes it to fit; `resume` says how one that was lost begins again.
///
/// # Errors
/// [`ErrorKind::StreamNotFound`] naming the stream, [`ErrorKind::Mismatch`] naming what differs and
/// cannot be changed, [`ErrorKind::Overlap`] where another durable of a work queue gets the messages,
/// [`ErrorKind::Config`] for a server that is too old, or naming the option that asks for more than is allowed.
pub(crate) async fn bind(
    connection: &Connection,
    options: &ConsumerOptions,
    resume: &Resume,
) -> Result<Durable> {
    let Found { name, durable, stream } = look(connection, options).await?;
    let step = decide(options, &name, durable.as_ref(), stream.as_ref(), resume)?;
    let config = match (step, durable) {
        (Step::Fit(fit), Some(found)) => {
            let config = adjust(connection, options, &name, &found, fit).await?;
            restore_pause(connection, options, &name, resume.lost_pause(&found)).await;
            config
        }
        (Step::Create(config) | Step::Fit(Fit { config, .. }), _) => {
            create(connection, options, &name, resume, stream.as_ref(), config).await?
        }
    };
    if options.ephemeral.is_none() {
        refuse_forgetting(options, &name, &config)?;
    }
    warn_of_a_pause(options, &name, &config);
    Ok(Durable { name, config })
}

/// The durable and its stream, as they are on the server.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) durable: Option<ConsumerInfo>,
    pub(crate) stream: Option<StreamInfo>,
}

/// Looks for what is to be bound.
///
/// # Errors
/// As [`bind`].
pub(crate) async fn look(connection: &Connection, options: &ConsumerOptions) -> Result<Found> {
    connection.check_version()?;
    let (name, durable) = find(connection, options).await?;
    // A worker may do without the permission to look at the stream.
    let stream = stream_info(connection, &options.stream).await.ok();
    Ok(Found { name, durable, stream })
}

/// The step that binding takes with a durable.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// It does not exist: it is created so.
    Create(Map<String, Value>),
    Fit(Fit),
}

/// How a durable is made to fit its declaration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fit {
    pub(crate) config: Map<String, Value>,
    pub(crate) changes: Vec<Change>,
    /// Only `max_ack_pending` changes, which nobody declared.
    pub(crate) is_minor: bool,
}

/// Decides what binding does; a plan shows the same.
///
/// # Errors
/// [`ErrorKind::Mismatch`] naming what differs and cannot be changed.
pub(crate) fn decide(
    options: &ConsumerOptions,
    name: &str,
    found: Option<&ConsumerInfo>,
    stream: Option<&StreamInfo>,
    resume: &Resume,
) -> Result<Step> {
    let Some(found) = found else {
        let mut config = wanted(options, name, resume.start(&options.start), allowance(options, stream));
        if let Some(until) = &resume.pause_until {
            config.insert("pause_until".into(), until.clone().into());
        }
        return Ok(Step::Create(config));
    };
    refuse_what_cannot_change(options, name, &found.config)?;
    // Others that read from it have found out how much to allow.
    let is_shared_push = options.kind == Kind::Push && options.max_ack_pending.is_none() && found.push_bound;
    let allowed = (!is_shared_push).then(|| allowance(options, stream));
    let mut config = found.config.clone();
    merge(&mut config, options, name, allowed);
    if options.ephemeral.is_none() && stream.is_some_and(forgets_durables) {
        // The stream gives its own back.
        let own = found.config.get("inactive_threshold").cloned();
        own.and_then(|own| config.insert("inactive_threshold".into(), own));
    }
    let changes = differences(&found.config, &config);
    let is_minor =
        options.max_ack_pending.is_none() && changes.iter().all(|each| each.field == "max_ack_pending");
    Ok(Step::Fit(Fit { config, changes, is_minor }))
}

async fn create(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    resume: &Resume,
    stream: Option<&StreamInfo>,
    config: Map<String, Value>,
) -> Result<Map<String, Value>> {
    if !options.manages_durable {
        let message = format!(
            "The durable `{name}` of the stream `{}` does not exist, and {} may not create it because manage_durables \
             is False. Create the durable, or let the worker manage it.",
            options.stream, options.name
        );
        return Err(Error::new(ErrorKind::Gone, message));
    }
    if resume.is_first() {
        warn_of_a_replay(connection, options, name, stream).await;
    }
    let config = declare(connection, options, name, config).await?;
    info!(target: CONSUMER, consumer = options.name, stream = options.stream, durable = name, "The durable was created.");
    Ok(config)
}

/// Changes a durable to fit its declaration.
async fn adjust(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    found: &ConsumerInfo,
    Fit { config, changes, is_minor }: Fit,
) -> Result<Map<String, Value>> {
    if !options.manages_durable {
        refuse_disorder(options, name, found)?;
        warn_of_what_stays(options, name, &list(&changes));
        return Ok(found.config.clone());
    }
    if changes.is_empty() {
        return moved(connection, options, name, config).await;
    }
    match declare(connection, options, name, config).await {
        Ok(config) => {
            let changes = differences(&found.config, &config);
            if !is_minor && !changes.is_empty() {
                info!(
                    target: CONSUMER,
                    consumer = options.name,
                    stream = options.stream,
                    durable = name,
                    "The durable differed from its declaration and was updated: {}.",
                    list(&changes)
                );
            }
            moved(connection, options, name, config).await
        }
        // Nobody declared how many may be unsettled.
        Err(error) if is_minor => {
            debug!(target: CONSUMER, consumer = options.name, durable = name, "max_ack_pending was not changed: {error}");
            moved(connection, options, name, found.config.clone()).await
        }
        Err(error) => Err(error),
    }
}

/// Pauses a durable again that another worker created again without the pause.
async fn restore_pause(connection: &Connection, options: &ConsumerOptions, name: &str, until: Option<&str>) {
    let Some(until) = until.filter(|_| options.manages_durable) else { return };
    match pause(connection, &options.stream, name, until).await {
        Ok(()) => info!(
            target: CONSUMER,
            consumer = options.name,
            durable = name,
            "The durable was deleted while it was paused. It is paused again, until {until}."
        ),
        Err(error) => warn!(
            target: CONSUMER,
            consumer = options.name,
            "The durable was deleted while it was paused, and could not be paused again. {error}"
        ),
    }
}

fn forgets_durables(stream: &StreamInfo) -> bool {
    stream.config.get("consumer_limits").is_some_and(|limits| !limits["inactive_threshold"].is_null())
}

fn warn_of_what_stays(options: &ConsumerOptions, name: &str, changes: &str) {
    if !changes.is_empty() {
        warn!(
            target: CONSUMER,
            consumer = options.name,
            stream = options.stream,
            durable = name,
            "The durable differs from its declaration. The worker does not change it because manage_durables is False. \
             The declaration asks for: {changes}."
        );
    }
}

/// Refuses a durable that gives out several messages at once where one is declared: their order would be lost.
fn refuse_disorder(options: &ConsumerOptions, name: &str, found: &ConsumerInfo) -> Result<()> {
    let allowed = found.max_ack_pending();
    if options.max_ack_pending != Some(1) || allowed == 1 {
        return Ok(());
    }
    let message = format!(
        "The durable `{name}` of the stream `{}` has max_ack_pending {allowed}, so messages would be handled out of order, \
         and {} may not change it because manage_durables is False. Set it to 1, or let the worker manage the durable.",
        options.stream, options.name
    );
    Err(Error::new(ErrorKind::Mismatch, message))
}

fn warn_of_a_pause(options: &ConsumerOptions, name: &str, config: &Map<String, Value>) {
    let Some(until) = config.get("pause_until").and_then(Value::as_str) else { return };
    if is_later_than_now(until) {
        warn!(
            target: CONSUMER,
            consumer = options.name,
            stream = options.stream,
            durable = name,
            "The durable is paused until {until}. No message arrives before that. {}",
            how_to_resume(&options.stream, name)
        );
    }
}

/// The commands that end a pause: ours, and that of a Rust program.
pub(crate) fn how_to_resume(stream: &str, name: &str) -> String {
    format!(
        "End the pause with `manage.py nats_durable resume {stream}/{name}`, or with `nats consumer resume`."
    )
}

/// The durable, if it exists; the inherited one where the own does not.
async fn find(connection: &Connection, options: &ConsumerOptions) -> Result<(String, Option<ConsumerInfo>)> {
    let own = info_of(connection, options, &options.durable).await?;
    if let (None, Some(older)) = (&own, &options.inherits) {
        let found = info_of(connection, options, older).await?;
        let fits = |found: &ConsumerInfo| {
            kind(&found.config) == options.kind && filters(&found.config) == wanted_filters(options)
        };
        if let Some(found) = found.filter(fits) {
            info!(
                target: CONSUMER,
                consumer = options.name,
                stream = options.stream,
                "The durable `{older}` of an older version is taken over with its position."
            );
            return Ok((older.clone(), Some(found)));
        }
    }
    Ok((options.durable.clone(), own))
}

async fn info_of(
    connection: &Connection,
    options: &ConsumerOptions,
    durable: &str,
) -> Result<Option<ConsumerInfo>> {
    match consumer_info(connection, &options.stream, durable).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ErrorKind::Gone => Ok(None),
        Err(error) if error.kind() == ErrorKind::StreamNotFound => Err(Error::new(
            ErrorKind::StreamNotFound,
            format!(
                "The stream `{}`, which {} consumes, does not exist. Run the worker with --setup if its setup() creates \
                 the stream, create it otherwise, or correct the name.",
                options.stream, options.name
            ),
        )),
        Err(error) => Err(error),
    }
}

/// [`upsert`], where what the server refuses is adapted to, or explained.
async fn declare(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    mut config: Map<String, Value>,
) -> Result<Map<String, Value>> {
    let declared = upsert(connection, &options.stream, name, &config).await;
    let Err(error) = declared else { return declared };
    let Some(allowed) = most_allowed(&error) else { return Err(explained(options, name, error)) };
    if options.max_ack_pending.is_some() {
        return Err(too_much_declared(options, allowed).because(error));
    }
    debug!(
        target: CONSUMER,
        consumer = options.name,
        durable = name,
        "max_ack_pending is {allowed}, the largest value that is allowed."
    );
    config.insert("max_ack_pending".into(), allowed.into());
    upsert(connection, &options.stream, name, &config).await.map_err(|error| explained(options, name, error))
}

fn explained(options: &ConsumerOptions, name: &str, error: Error) -> Error {
    let ConsumerOptions { stream, name: consumer, .. } = options;
    match error.kind() {
        ErrorKind::Api { err_code, .. } if TAKEN.contains(&err_code) => {
            let message = format!(
                "The stream `{stream}` is a work queue: each message goes to one durable, and another durable \
                 than `{name}` takes messages of {consumer}. Choose filters that do not overlap, let both \
                 consumers use one durable, or change the stream's retention."
            );
            Error::new(ErrorKind::Overlap, message).because(error)
        }
        ErrorKind::Api { err_code: NOT_ALL, .. } => {
            let message = format!(
                "The stream `{stream}` is a work queue, which can only be read from the beginning. Set the \
                 deliver policy of {consumer} to `all`."
            );
            Error::new(ErrorKind::Config, message).because(error)
        }
        ErrorKind::Api { code, err_code } => {
            let message = format!("The durable `{name}` of {consumer} was refused. {}", error.message());
            Error::new(ErrorKind::Api { code, err_code }, message).because(error)
        }
        _ => error,
    }
}

/// Writes a durable; returns its configuration as the server has it then.
pub(crate) async fn upsert(
    connection: &Connection,
    stream: &str,
    name: &str,
    config: &Map<String, Value>,
) -> Result<Map<String, Value>> {
    let body = json!({ "stream_name": stream, "config": config });
    let written: ConsumerInfo =
        ask(connection, &format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &body).await?;
    Ok(written.config)
}

/// Deletes the durable.
///
/// # Errors
/// What the API answered.
pub(crate) async fn delete(connection: &Connection, stream: &str, name: &str) -> Result<()> {
    call(connection, &format!("CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await.map(drop)
}

/// Older versions used one deliver subject for every stream, and no group. The server delivers to a group that
/// was added only when the subject changes, in an update of its own; and it changes no subject that somebody
/// listens to: then an older worker still runs, and the next repair tries again.
async fn moved(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    config: Map<String, Value>,
) -> Result<Map<String, Value>> {
    let own = deliver_subject(options, name);
    if options.kind == Kind::Pull || config["deliver_subject"] == own.as_str() {
        return Ok(config);
    }
    let mut moved = config.clone();
    moved.insert("deliver_subject".into(), own.into());
    match upsert(connection, &options.stream, name, &moved).await {
        Err(error) if matches!(error.kind(), ErrorKind::Api { err_code: IN_USE, .. }) => {
            warn!(
                target: CONSUMER,
                consumer = options.name,
                durable = name,
                "An older worker still receives the messages of this durable. Stop it to receive them here."
            );
            Ok(config)
        }
        moved => moved,
    }
}

fn refuse_what_cannot_change(
    options: &ConsumerOptions,
    name: &str,
    found: &Map<String, Value>,
) -> Result<()> {
    let refuse = |what: String, remedy: &str| {
        let message = format!(
            "The durable `{name}` of the stream `{}` {what}. Give {} another durable name, or {remedy}.",
            options.stream, options.name
        );
        Err(Error::new(ErrorKind::Mismatch, message))
    };
    let delete = "delete the durable to begin again";
    let display = |kind: Kind| if kind == Kind::Pull { "pull" } else { "push" };
    if kind(found) != options.kind {
        let (is, declared) = (display(kind(found)), display(options.kind));
        let what = format!(
            "is a {is} consumer, but a {declared} one is declared, and the server cannot change that"
        );
        return refuse(what, delete);
    }
    if found.get("priority_policy").is_some_and(|policy| policy == "pinned_client") {
        let what =
            "pins its messages to one client (priority_policy `pinned_client`), which is not supported";
        return refuse(what.to_owned(), "take the priority group away from this one");
    }
    match found.get("ack_policy").and_then(Value::as_str) {
        Some("explicit") => Ok(()),
        policy => {
            let policy = policy.unwrap_or("none");
            let what = format!(
                "has the ack policy `{policy}` instead of `explicit`, which the server cannot change"
            );
            refuse(what, delete)
        }
    }
}
