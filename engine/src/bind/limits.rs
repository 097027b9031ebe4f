//! Limits of account, server and stream for a durable.

use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

use crate::config::ConsumerOptions;
use crate::error::{Error, ErrorKind};
use crate::observe::target::CONSUMER;

/// The server's answer when `max_ack_pending` is larger than the account, the server or the stream allows.
const EXCEEDS: u64 = 10121;

/// A durable that lives this long without a worker outlives every deploy.
const LONG_ENOUGH: Duration = Duration::from_secs(3600);

/// The largest `max_ack_pending`, where the error says that it was exceeded. The server has no other way to tell all of its
/// limits.
pub(crate) fn most_allowed(error: &Error) -> Option<i64> {
    let ErrorKind::Api { err_code: EXCEEDS, .. } = error.kind() else { return None };
    let (_, rest) = error.message().split_once("limit of ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok().filter(|limit| *limit > 0)
}

pub(crate) fn too_much_declared(options: &ConsumerOptions, allowed: i64) -> Error {
    let declared = options.max_ack_pending.unwrap_or_default();
    let message = format!(
        "{} declares max_ack_pending = {declared}, but the account, the server or the stream `{}` allows {allowed}. \
         Lower max_ack_pending, or raise that limit.",
        options.name, options.stream
    );
    Error::new(ErrorKind::Config, message)
}

/// Refuses a durable that the stream's `consumer_limits` let the server delete during a deploy; warns of one that
/// lives longer, and of one that this worker may not change.
///
/// # Errors
/// [`ErrorKind::Mismatch`] naming stream, limit and remedy.
pub(crate) fn refuse_forgetting(
    options: &ConsumerOptions,
    name: &str,
    config: &Map<String, Value>,
) -> Result<(), Error> {
    let threshold = config.get("inactive_threshold").and_then(Value::as_u64).filter(|nanos| *nanos > 0);
    let Some(threshold) = threshold.map(Duration::from_nanos) else { return Ok(()) };
    let remedy = if options.manages_durable {
        format!("Remove `inactive_threshold` from the `consumer_limits` of the stream `{}`.", options.stream)
    } else {
        String::from(
            "Remove its `inactive_threshold`, which the worker leaves because manage_durables is False.",
        )
    };
    let message = format!(
        "The server deletes the durable `{name}` when no worker of {} reads from it for {}: its position is lost then, \
         and messages are handled again. {remedy}",
        options.name,
        humantime::format_duration(threshold),
    );
    if threshold < LONG_ENOUGH && options.manages_durable {
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    warn!(target: CONSUMER, consumer = options.name, "{message}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_refusal() {
        let refused =
            |err_code, text: &str| most_allowed(&Error::new(ErrorKind::Api { code: 400, err_code }, text));
        let text = "JetStream refused it: consumer max ack pending exceeds system limit of 1000 (code 400)";
        assert_eq!(refused(EXCEEDS, text), Some(1000));
        assert_eq!(refused(EXCEEDS, "another wording"), None);
        assert_eq!(refused(10025, text), None);
    }
}
