//! Messages for later: they wait in their stream, and the server publishes each at its time.

use std::time::{Duration, SystemTime};

use async_nats::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::info::stream_info;
use crate::publish::Outgoing;

const SCHEDULE: &str = "Nats-Schedule";
const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
/// The `Nats-TTL` of the message that the server publishes.
const SCHEDULE_TTL: &str = "Nats-Schedule-TTL";
const TTL: &str = "Nats-TTL";
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A message for `orders.paid` waits at `_later.<id>.orders.paid`: a stream keeps one schedule for a subject.
const PLACE: &str = "_later.";

/// Characters of a message id that are one token of a subject as they are.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The server closes a connection on which a subject has more than 4 KiB.
const LONGEST_ID: usize = 1024;

/// Older servers take a message for later for any other, and never publish it.
const OLDEST_SERVER: (u64, u64) = (2, 12);

/// The longest time to live, in seconds: 200 years. The server counts nanoseconds in 64 bits, until 2262.
const LONGEST_TTL: u64 = 200 * 365 * 24 * 3600;

const TTL_INVALID: u64 = 10165;
const TTL_DISABLED: u64 = 10166;
const SCHEDULES_DISABLED: u64 = 10188;
const TARGET_INVALID: u64 = 10190;
const SCHEDULE_TTL_INVALID: u64 = 10191;

impl Outgoing {
    /// Has the server publish the message at that time, at once if it has passed. Until then it waits in its stream,
    /// which needs `allow_msg_schedules`, `allow_msg_ttl`, and a subject for messages that wait: `_later.*.orders.>`
    /// beside `orders.>`. The confirmation is of the waiting message. If it has an [`id`](Self::id) of one that
    /// waits, it replaces that one, unless the stream takes it for a duplicate.
    ///
    /// ```
    /// use nats_consumer::Outgoing;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    /// let outgoing = Outgoing::to("orders.7.remind", "")?.at(tomorrow)?;
    /// # Ok::<(), nats_consumer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a time after 2262-04-11, the latest that the server can store.
    pub fn at(mut self, time: SystemTime) -> Result<Self> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The server publishes at once what it cannot count (nats-server 2.12.8 and 2.15.1).
        if i64::try_from(since.as_nanos()).is_err() {
            let text =
                "A message cannot be published after 2262-04-11, the latest time that the server can store.";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let time = humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + since);
        let schedule = format!("@at {time}");
        self.headers.insert(SCHEDULE, line(&schedule));
        Ok(self)
    }

    /// Has the stream, which needs `allow_msg_ttl`, delete the message after this time, rounded up to whole seconds.
    /// With [`at`](Self::at) it begins when the message is published.
    ///
    /// ```
    /// use nats_consumer::Outgoing;
    /// use std::time::Duration;
    ///
    /// let outgoing = Outgoing::to("prices.pen", "EUR 2")?.ttl(Duration::from_secs(60));
    /// # Ok::<(), nats_consumer::Error>(())
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        self.headers.insert(TTL, line(&format!("{}s", seconds.clamp(1, LONGEST_TTL))));
        self
    }

    /// Whether it has a time, and no place to wait yet.
    pub(crate) fn is_for_later(&self) -> bool {
        let has = |name| self.headers.get(name).is_some();
        !self.headers.is_empty() && has(SCHEDULE) && !has(SCHEDULE_TARGET)
    }
}

/// The message as it waits.
///
/// # Errors
/// [`ErrorKind::NotStored`] if the server is too old, [`ErrorKind::Invalid`] for a message id that is too long.
pub(crate) fn waiting(connection: &Connection, outgoing: Outgoing) -> Result<Outgoing> {
    connection.server_since(OLDEST_SERVER).map_err(|version| {
        let text = format!(
            "The server has version {version}, and publishing at a later time needs nats-server {}.{} or later.",
            OLDEST_SERVER.0, OLDEST_SERVER.1
        );
        refusal(SCHEDULES_DISABLED, text)
    })?;
    let (target, mut headers, payload) = outgoing.into_parts();
    let subject = format!("{PLACE}{}.{target}", id(connection, &headers)?);
    headers.insert(SCHEDULE_TARGET, line(&target));
    if let Some(ttl) = headers.get(TTL).cloned() {
        headers.insert(SCHEDULE_TTL, ttl);
    }
    // What waits outlives the `max_age` of its stream.
    headers.insert(TTL, line("never"));
    Ok(Outgoing::with_headers(subject, headers, payload))
}

fn id(connection: &Connection, headers: &HeaderMap) -> Result<String> {
    let given = headers.get(MESSAGE_ID).map_or("", HeaderValue::as_str);
    if given.is_empty() {
        return Ok(connection.client().new_inbox().replace('.', "-"));
    }
    let id = utf8_percent_encode(given, TOKEN).to_string();
    if id.len() > LONGEST_ID {
        let text =
            format!("A message for later has an id of at most {LONGEST_ID} characters, encoded as in a URL.");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(id)
}

/// Checks that the stream, which has confirmed a message for later, has kept it.
///
/// # Errors
/// [`ErrorKind::NotStored`] if it has not.
pub(crate) async fn check_kept(connection: &Connection, stream: &str) -> Result<()> {
    // The server checks the rest itself. A user who may not ask relies on that.
    let Ok(info) = stream_info(connection, stream).await else { return Ok(()) };
    if info.config.get("retention").and_then(|value| value.as_str()) != Some("interest") {
        return Ok(());
    }
    let text = format!(
        "The stream {stream} has the retention \"interest\", which drops a scheduled message because no consumer waits for \
         it. Use the retention \"limits\" or \"workqueue\"."
    );
    Err(refusal(SCHEDULES_DISABLED, text))
}

/// Advice where a stream refused a message because of its time or its time to live; `None` for other errors.
pub(crate) fn advice(err_code: u64, stream: &str, subject: &str) -> Option<String> {
    let target = target_of(subject);
    match (err_code, target) {
        (SCHEDULES_DISABLED, _) => Some(format!(
            "The stream {stream} does not allow scheduled messages. Set allow_msg_schedules (nats-server 2.12)."
        )),
        (TTL_DISABLED, Some(_)) => Some(format!(
            "The stream {stream} does not let messages outlive its max_age, as scheduled messages do. Set \
             allow_msg_ttl."
        )),
        (TTL_DISABLED, None) => Some(format!(
            "The stream {stream} does not allow a time to live for messages. Set allow_msg_ttl."
        )),
        (TTL_INVALID | SCHEDULE_TTL_INVALID, _) => {
            Some("The time to live is not a number of seconds, at least 1, or \"never\".".to_owned())
        }
        (TARGET_INVALID, Some(target)) => Some(format!(
            "The stream {stream} has {subject}, for waiting messages, but not {target}. Add both subjects."
        )),
        _ => None,
    }
}

/// Advice where no stream has the subject at which a message waits; `None` for other subjects.
pub(crate) fn without_place(subject: &str) -> Option<String> {
    let target = target_of(subject)?;
    let first = target.split('.').next().unwrap_or(target);
    Some(format!(
        "No stream can hold scheduled messages for {target}. For each subject, such as \"{first}.>\", add \
         \"{PLACE}*.{first}.>\" to the stream."
    ))
}

/// The subject of the message that waits at `subject`.
fn target_of(subject: &str) -> Option<&str> {
    subject.strip_prefix(PLACE)?.split_once('.').map(|(_, target)| target)
}

fn refusal(err_code: u64, text: String) -> Error {
    Error::new(ErrorKind::NotStored { code: 400, err_code }, text)
}

/// A header's value, of text without line breaks.
fn line(text: &str) -> HeaderValue {
    text.parse().unwrap_or_else(|_| HeaderValue::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_rounded_up_to_seconds() {
        for (millis, text) in [(1, "1s"), (1000, "1s"), (1001, "2s"), (0, "1s")] {
            let outgoing = Outgoing::to("prices.pen", "").unwrap().ttl(Duration::from_millis(millis));
            assert_eq!(outgoing.headers().get(TTL).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_message_that_names_its_target_waits_where_it_says() {
        let outgoing = Outgoing::to("reminders.7", "").unwrap().at(SystemTime::UNIX_EPOCH).unwrap();
        assert!(outgoing.is_for_later());
        assert_eq!(outgoing.headers().get(SCHEDULE).unwrap().as_str(), "@at 1970-01-01T00:00:00.000000Z");
        assert!(!outgoing.header(SCHEDULE_TARGET, "reminders.due").unwrap().is_for_later());
    }

    #[test]
    fn a_time_that_cannot_be_written_is_refused() {
        let at = |time| Outgoing::to("reminders.7", "").unwrap().at(time);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(9_300_000_000);
        assert_eq!(at(far).unwrap_err().kind(), ErrorKind::Invalid);
        let past = at(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).unwrap();
        assert_eq!(past.headers().get(SCHEDULE).unwrap().as_str(), "@at 1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_time_to_live_beyond_what_the_server_counts_is_as_long_as_it_can_be() {
        let outgoing = Outgoing::to("prices.pen", "").unwrap().ttl(Duration::MAX);
        assert_eq!(outgoing.headers().get(TTL).unwrap().as_str(), "6307200000s");
    }

    #[test]
    fn advice_names_the_stream_and_its_setting() {
        let place = "_later.7.orders.paid";
        let told = |code, subject| advice(code, "shop", subject).unwrap();
        assert!(told(SCHEDULES_DISABLED, place).contains("shop does not allow scheduled messages"));
        assert!(told(TTL_DISABLED, "orders.paid").contains("shop does not allow a time to live"));
        assert!(told(TTL_DISABLED, place).contains("max_age"));
        assert!(told(TARGET_INVALID, place).contains("but not orders.paid"));
        assert_eq!(advice(10077, "shop", place), None);
        assert!(without_place(place).unwrap().contains("\"orders.>\", add \"_later.*.orders.>\""));
        assert_eq!(without_place("orders.paid"), None);
    }
}
