//! Changes that the start of a consumer makes to its durable on the server, shown or made beforehand.
//!
//! The decision is that of binding itself, so that a plan and a start cannot differ.

pub use crate::bind::declared::Change;

use crate::bind::declared::{filters, has_nothing_for, wanted_filters};
use crate::bind::durable::{Found, Step, bind, decide, look};
use crate::bind::limits::refuse_forgetting;
use crate::bind::position::Resume;
use crate::bind::replay::{Predecessors, all};
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::error::{ErrorKind, Result};
use crate::jetstream::api::garbled;
use crate::jetstream::info::{ConsumerInfo, StreamInfo};
use crate::route::Pattern;

/// The change of a durable when its consumer starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// It is created.
    Create,
    /// It stays as it is.
    Keep,
    /// These fields change in place.
    Change(Vec<Change>),
    /// The consumer cannot start, for this reason.
    Refuse(String),
}

/// A durable and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The stream.
    pub stream: String,
    /// The durable: the declared one, or the one that it inherits.
    pub durable: String,
    /// Its change.
    pub action: Action,
    /// Messages that it would get now are not delivered to it any more, because its filter is narrower.
    pub skips: bool,
    /// A filter that no subject of the stream matches.
    pub unmatched: bool,
    /// Durables of the same kind and filter that nobody reads from, if this one is created in a stream with messages: it
    /// may be one of them under another name.
    pub replaces: Vec<String>,
}

/// Looks at the server and tells what starting the consumer would do to its durable. Nothing is changed.
///
/// ```no_run
/// use nats_consumer::durables::{Action, plan};
/// use nats_consumer::{Connection, ConsumerOptions};
///
/// # async fn example(connection: Connection) -> nats_consumer::Result<()> {
/// let planned = plan(&connection, &ConsumerOptions::pull("orders", "billing").filter("orders.*.paid")).await?;
/// if let Action::Change(changes) = &planned.action {
///     for change in changes {
///         println!("{}: {change}", planned.durable);
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::StreamNotFound`] without the stream; options that are wrong, and what the API answered.
pub async fn plan(connection: &Connection, options: &ConsumerOptions) -> Result<Plan> {
    options.validate()?;
    let options = &managed(options);
    let found = look(connection, options).await?;
    let (action, skips) = match decided(options, &found) {
        Ok(decided) => decided,
        Err(error) if error.kind() == ErrorKind::Mismatch => (Action::Refuse(error.message().into()), false),
        Err(error) => return Err(error),
    };
    let action = match &found.stream {
        Some(stream) => taken(connection, options, &found.name, stream).await.map_or(action, Action::Refuse),
        None => action,
    };
    let has_messages = found.stream.as_ref().is_some_and(|stream| stream.state.messages > 0);
    let replaces = match action {
        Action::Create if has_messages => Predecessors::find(connection, options).await.free,
        _ => Vec::new(),
    };
    let unmatched = found.stream.is_some_and(|stream| has_nothing_for(options, &stream.config));
    Ok(Plan { stream: options.stream.clone(), durable: found.name, action, skips, unmatched, replaces })
}

/// The changes of a durable that is known already, from the server's answers to `CONSUMER.INFO` and `STREAM.INFO`: for a
/// program that lists many. Nothing is asked.
///
/// # Errors
/// An answer that cannot be read.
#[doc(hidden)]
pub fn plan_known(options: &ConsumerOptions, durable: &[u8], stream: &[u8]) -> Result<Action> {
    let read_durable = serde_json::from_slice(durable).map_err(|error| garbled("CONSUMER.INFO", error))?;
    let read_stream = serde_json::from_slice(stream).map_err(|error| garbled("STREAM.INFO", error))?;
    let found =
        Found { name: options.durable.clone(), durable: Some(read_durable), stream: Some(read_stream) };
    match decided(&managed(options), &found) {
        Ok((action, _)) => Ok(action),
        Err(error) => Ok(Action::Refuse(error.message().into())),
    }
}

/// Creates the durable, or changes it to fit, as the start of the consumer does, and returns its name.
///
/// ```no_run
/// # async fn example(connection: nats_consumer::Connection) -> nats_consumer::Result<()> {
/// use nats_consumer::ConsumerOptions;
///
/// nats_consumer::durables::apply(&connection, &ConsumerOptions::pull("orders", "billing")).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`consume`](crate::consume).
pub async fn apply(connection: &Connection, options: &ConsumerOptions) -> Result<String> {
    options.validate()?;
    Ok(bind(connection, &managed(options), &Resume::default()).await?.name)
}

/// The options of a program that may create and change durables, though its workers may not.
fn managed(options: &ConsumerOptions) -> ConsumerOptions {
    ConsumerOptions { manages_durable: true, ..options.clone() }
}

fn decided(options: &ConsumerOptions, found: &Found) -> Result<(Action, bool)> {
    let Found { name, durable, stream } = found;
    let step = decide(options, name, durable.as_ref(), stream.as_ref(), &Resume::default())?;
    let config = match &step {
        Step::Create(config) => config,
        Step::Fit(fit) => &fit.config,
    };
    if options.ephemeral.is_none() {
        refuse_forgetting(options, name, config)?;
    }
    Ok(match (step, durable) {
        (Step::Fit(fit), Some(durable)) if !fit.changes.is_empty() && !fit.is_minor => {
            (Action::Change(fit.changes), skips(&filters(&durable.config), &wanted_filters(options)))
        }
        (Step::Fit(_), _) => (Action::Keep, false),
        (Step::Create(_), _) => (Action::Create, false),
    })
}

/// Whether the filters `now` leave out something that those `before` match. None is all.
fn skips(before: &[String], now: &[String]) -> bool {
    let everything = [String::from(">")];
    let patterns = |filters: &[String]| -> Vec<Pattern> {
        let filters = if filters.is_empty() { &everything } else { filters };
        filters.iter().filter_map(|filter| Pattern::parse(filter).ok()).collect()
    };
    let now = patterns(now);
    !patterns(before).iter().all(|before| now.iter().any(|now| now.covers(before)))
}

/// Why a work queue refuses the durable: it gives each message to one durable only.
async fn taken(
    connection: &Connection,
    options: &ConsumerOptions,
    name: &str,
    stream: &StreamInfo,
) -> Option<String> {
    if stream.config.get("retention").is_none_or(|retention| retention != "workqueue") {
        return None;
    }
    let wanted = wanted_filters(options);
    let clashes = |other: &ConsumerInfo| other.name != name && overlap(&filters(&other.config), &wanted);
    let others = all(connection, &options.stream).await;
    let other = others.iter().find(|other| clashes(other))?;
    Some(format!(
        "The stream `{}` is a work queue: each message goes to one durable, and `{}` takes messages of {}. Choose \
         filters that do not overlap, or let both consumers use one durable.",
        options.stream, other.name, options.name
    ))
}

/// Whether some subject matches both. No filter is all.
fn overlap(ours: &[String], theirs: &[String]) -> bool {
    let patterns = |filters: &[String]| -> Vec<Pattern> {
        filters.iter().filter_map(|filter| Pattern::parse(filter).ok()).collect()
    };
    let (ours, theirs) = (patterns(ours), patterns(theirs));
    ours.is_empty()
        || theirs.is_empty()
        || ours.iter().any(|ours| theirs.iter().any(|theirs| ours.overlaps(theirs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(filters: &[&str]) -> Vec<String> {
        filters.iter().map(|&filter| filter.to_owned()).collect()
    }

    #[test]
    fn a_narrower_filter_skips_messages_and_a_wider_one_does_not() {
        let skips = |before: &[&str], now: &[&str]| skips(&texts(before), &texts(now));
        assert!(skips(&[], &["orders.>"]));
        assert!(skips(&["orders.>"], &["orders.*"]));
        assert!(skips(&["orders.paid", "orders.sent"], &["orders.paid"]));
        assert!(!skips(&["orders.*"], &["orders.>"]));
        assert!(!skips(&["orders.paid"], &["orders.paid", "orders.sent"]));
        assert!(!skips(&["orders.paid"], &[]));
    }

    #[test]
    fn filters_overlap_where_one_message_fits_both() {
        let overlap = |ours: &[&str], theirs: &[&str]| overlap(&texts(ours), &texts(theirs));
        assert!(overlap(&[], &["orders.paid"]));
        assert!(overlap(&["orders.*"], &["mails.>", "orders.paid"]));
        assert!(!overlap(&["orders.paid"], &["orders.sent"]));
    }
}
