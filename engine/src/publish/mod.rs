//! Publishing into a stream: the message counts when the stream has confirmed it.

pub(crate) mod later;
pub mod publisher;

use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Request, RequestErrorKind, Subject};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::connect::{Connection, SEND_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::route::validate_publish_subject;

/// The server's word on a message id whose first message waits for a majority: that one may be stored yet.
const MESSAGE_ID_IN_PROCESS: u64 = 10158;

/// The stream's confirmation.
///
/// ```
/// use nats_consumer::{Outgoing, Publisher};
/// use std::time::Duration;
///
/// # async fn example(publisher: Publisher) -> nats_consumer::Result<()> {
/// let outgoing = Outgoing::to("orders.7.paid", "")?.id("paid-7")?;
/// let ack = publisher.publish(outgoing, Duration::from_secs(5)).await?;
/// if ack.duplicate {
///     println!("{} has it already, at {}", ack.stream, ack.sequence);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishAck {
    /// The stream that stored the message.
    pub stream: String,
    /// Its place there.
    pub sequence: u64,
    /// Whether a message with the same `Nats-Msg-Id` was stored before, and this one was not.
    pub duplicate: bool,
    /// The stream's JetStream domain, if it has one.
    pub domain: Option<String>,
}

/// No untagged enum: that reads an answer twice, which publishing many feels.
#[derive(Deserialize)]
struct Reply {
    error: Option<Refusal>,
    stream: Option<String>,
    #[serde(rename = "seq")]
    sequence: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    domain: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// A message to be published: where to, and what.
///
/// ```
/// use nats_consumer::Outgoing;
///
/// let outgoing = Outgoing::to("orders.7.paid", "EUR 12")?.id("paid-7")?.header("Trace", "abc")?;
/// assert_eq!(outgoing.payload(), b"EUR 12");
/// assert!(Outgoing::to("orders.*.paid", "").is_err()); // a message goes to one subject
/// # Ok::<(), nats_consumer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Outgoing {
    subject: Subject,
    headers: HeaderMap,
    payload: Bytes,
}

impl Outgoing {
    /// A message for `subject`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the subject is malformed or has wildcards: the server would store a
    /// message published to a literal `orders.*`.
    pub fn to(subject: &str, payload: impl Into<Bytes>) -> Result<Self> {
        validate_publish_subject(subject)
            .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        Ok(Self { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() })
    }

    /// A message for `subject` whose payload is the value as JSON.
    ///
    /// ```
    /// use nats_consumer::Outgoing;
    ///
    /// let outgoing = Outgoing::json("orders.7.created", &7)?.id("order-7")?.header("Trace", "abc")?;
    /// assert_eq!(outgoing.payload(), b"7");
    /// # Ok::<(), nats_consumer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`to`](Self::to), and [`ErrorKind::Invalid`] when the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(subject: &str, value: &T) -> Result<Self> {
        let json = serde_json::to_vec(value).map_err(|error| {
            let text = format!("The message for {subject} cannot be written as JSON.");
            Error::new(ErrorKind::Invalid, text).because(error)
        })?;
        Self::to(subject, json)
    }

    /// Sets the message's id, the header `Nats-Msg-Id`: a stream stores only one message with it within its
    /// deduplication window, which is two minutes unless configured.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn id(self, id: &str) -> Result<Self> {
        self.header("Nats-Msg-Id", id)
    }

    /// [`to`](Self::to), its texts copied into `block`: what many messages share one for is allocated once, not
    /// twice for each.
    ///
    /// # Errors
    /// As [`to`](Self::to).
    #[doc(hidden)]
    pub fn packed(block: &mut BytesMut, subject: &str, payload: &[u8]) -> Result<Self> {
        validate_publish_subject(subject)
            .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        block.extend_from_slice(subject.as_bytes());
        let subject = Subject::from_utf8(block.split().freeze()).expect("a copy of a text is a text");
        block.extend_from_slice(payload);
        Ok(Self { subject, headers: HeaderMap::new(), payload: block.split().freeze() })
    }

    /// The subject to publish to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The headers, those of [`id`](Self::id) and [`header`](Self::header).
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Adds a header.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the name or the value cannot be sent as it is, line breaks above all.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let unfit = |what: &str| {
            let message = format!("The header {name:?} has a {what} that cannot be sent: ");
            Error::new(ErrorKind::Invalid, message + "use visible ASCII for names, and one line for values.")
        };
        let is_token = |c: char| c.is_ascii_graphic() && c != ':';
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(unfit("name"));
        }
        if value.contains(char::is_control) {
            return Err(unfit("value"));
        }
        let name: HeaderName = name.parse().map_err(|_| unfit("name"))?;
        let value: HeaderValue = value.parse().map_err(|_| unfit("value"))?;
        self.headers.append(name, value);
        Ok(self)
    }

    pub(crate) fn into_parts(self) -> (Subject, HeaderMap, Bytes) {
        (self.subject, self.headers, self.payload)
    }

    pub(crate) fn with_headers(subject: String, headers: HeaderMap, payload: Bytes) -> Self {
        Self { subject: subject.into(), headers, payload }
    }
}

/// Publishes and waits, at most `limit`, until a stream has stored the message.
///
/// # Errors
/// [`ErrorKind::NoStream`] when no stream has the subject, [`ErrorKind::TooLarge`] before anything is sent,
/// [`ErrorKind::Unconfirmed`] when the confirmation did not come (the message may still be stored),
/// [`ErrorKind::Disconnected`] or [`ErrorKind::Closed`] soon without a connection, [`ErrorKind::Denied`] at once
/// without the permission, or what the stream answered.
pub async fn publish(connection: &Connection, outgoing: Outgoing, limit: Duration) -> Result<PublishAck> {
    let outgoing = if outgoing.is_for_later() { later::waiting(connection, outgoing)? } else { outgoing };
    let subject = outgoing.subject.clone();
    let answer = match request(connection, outgoing, limit).await {
        Err(error) if error.kind() == ErrorKind::Timeout => return Err(unconfirmed(&subject, limit)),
        Err(error) if error.kind() == ErrorKind::NoResponders => {
            return Err(no_stream(&subject).because(error));
        }
        answer => answer?,
    };
    read_ack(&subject, answer.payload())
}

/// [`publish`]; where no stream has the subject, `create` makes it, and it is tried once more.
pub(crate) async fn publish_or_create(
    connection: &Connection,
    outgoing: Outgoing,
    limit: Duration,
    create: impl Future<Output = Result<()>> + Send,
) -> Result<PublishAck> {
    match publish(connection, outgoing.clone(), limit).await {
        Err(error) if error.kind() == ErrorKind::NoStream => {
            create.await?;
            publish(connection, outgoing, limit).await
        }
        stored => stored,
    }
}

/// Reads the answer of a stream to a message for `subject`.
pub(crate) fn read_ack(subject: &str, answer: &[u8]) -> Result<PublishAck> {
    let foreign = || {
        let text = format!(
            "The answer on {subject} did not come from a stream. Check that the subject belongs to one."
        );
        Error::new(ErrorKind::NoStream, text)
    };
    match serde_json::from_slice(answer).map_err(|error| foreign().because(error))? {
        Reply { error: Some(Refusal { err_code: MESSAGE_ID_IN_PROCESS, .. }), .. } => Err(undecided(subject)),
        Reply { error: Some(refusal), stream, .. } => Err(refused_by(stream.as_deref(), subject, refusal)),
        Reply { stream: Some(stream), sequence: Some(sequence), duplicate, domain, .. } => {
            Ok(PublishAck { stream, sequence, duplicate, domain })
        }
        Reply { .. } => Err(foreign()),
    }
}

fn refused_by(stream: Option<&str>, subject: &str, refusal: Refusal) -> Error {
    let Refusal { code, err_code, description } = refusal;
    let kind = ErrorKind::NotStored { code, err_code };
    if let Some(advice) = stream.and_then(|stream| later::advice(err_code, stream, subject)) {
        return Error::new(kind, advice);
    }
    let text = format!("The stream refused the message for {subject}: {description} (error {err_code}).");
    Error::new(kind, text).because(description)
}

/// Publishes and waits, at most `limit`, for somebody's answer.
///
/// # Errors
/// [`ErrorKind::NoResponders`] when nobody listens, [`ErrorKind::Timeout`] when nobody answered, and as [`publish`].
pub async fn request(connection: &Connection, outgoing: Outgoing, limit: Duration) -> Result<Message> {
    let Outgoing { subject, headers, payload } = outgoing;
    connection.wait_until_up(limit, || format!("nothing was published to {subject}")).await?;
    let size = payload.len();
    // One timer is enough: ours, below.
    let mut request = Request::new().payload(payload).timeout(None);
    // No headers at all take no bytes of the payload's limit.
    if !headers.is_empty() {
        request = request.headers(headers);
    }
    connection.counted().sent(size);
    let sending = connection.client().send_request(subject.clone(), request);
    let asking = async {
        match tokio::time::timeout(limit, sending).await {
            Ok(Ok(answer)) => {
                connection.counted().received(answer.payload.len());
                Ok(Message::new(answer))
            }
            Ok(Err(error)) => Err(refused(&subject, limit, connection.max_payload(), error)),
            Err(_) => Err(late(&subject, limit)),
        }
    };
    connection.unless_denied(&[&subject], asking).await
}

/// Publishes to the subscribers of this moment, without a confirmation (core NATS). Answers go to `reply`.
///
/// # Errors
/// [`ErrorKind::Disconnected`] or [`ErrorKind::Closed`] soon without a connection, [`ErrorKind::TooLarge`], or
/// [`ErrorKind::Invalid`] for a `reply` that is not a subject, before anything is sent.
pub async fn send(connection: &Connection, outgoing: Outgoing, reply: Option<String>) -> Result<()> {
    let Outgoing { subject, headers, payload } = outgoing;
    if let Some(reply) = &reply {
        validate_publish_subject(reply).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
    }
    connection.wait_until_up(SEND_TIMEOUT, || format!("nothing was published to {subject}")).await?;
    let client = connection.client();
    connection.counted().sent(payload.len());
    let sending = async {
        match reply {
            Some(reply) => {
                client.publish_with_reply_and_headers(subject.clone(), reply, headers, payload).await
            }
            None => client.publish_with_headers(subject.clone(), headers, payload).await,
        }
    };
    // A frozen server counts as connected until it has missed its pings; meanwhile the queue fills.
    let sent = tokio::time::timeout(SEND_TIMEOUT, sending).await.map_err(|_| {
        let text = format!("The message for {subject} could not be sent: the server has stopped reading.");
        Error::new(ErrorKind::Disconnected, text)
    })?;
    sent.map_err(|error| {
        let kind = match error.kind() {
            async_nats::PublishErrorKind::MaxPayloadExceeded => ErrorKind::TooLarge,
            async_nats::PublishErrorKind::InvalidSubject => ErrorKind::Invalid,
            async_nats::PublishErrorKind::Send => ErrorKind::Closed,
        };
        Error::new(kind, format!("The message for {subject} could not be sent: {error}.")).because(error)
    })
}

fn refused(subject: &str, limit: Duration, largest: usize, error: async_nats::RequestError) -> Error {
    let (kind, message) = match error.kind() {
        RequestErrorKind::TimedOut => return late(subject, limit),
        RequestErrorKind::NoResponders => (
            ErrorKind::NoResponders,
            format!("No service answers on {subject}. Check that the service that answers there is running."),
        ),
        RequestErrorKind::MaxPayloadExceeded => (
            ErrorKind::TooLarge,
            format!("The message for {subject} is larger than the {largest} bytes the server takes."),
        ),
        RequestErrorKind::InvalidSubject => (
            ErrorKind::Invalid,
            format!("{subject:?} is not a subject: it must not be empty or contain spaces."),
        ),
        RequestErrorKind::Other => {
            (ErrorKind::Closed, format!("The message for {subject} could not be sent: {error}."))
        }
    };
    Error::new(kind, message).because(error)
}

pub(crate) fn no_stream(subject: &str) -> Error {
    let message = later::without_place(subject).unwrap_or_else(|| {
        format!("No stream has the subject {subject}: create one that does, or check the subject.")
    });
    Error::new(ErrorKind::NoStream, message)
}

fn late(subject: &str, limit: Duration) -> Error {
    let message = format!(
        "No answer on {subject} within {limit:?}. Check that the service that answers there is running."
    );
    Error::new(ErrorKind::Timeout, message)
}

pub(crate) fn unconfirmed(subject: &str, limit: Duration) -> Error {
    let message = format!(
        "No confirmation for {subject} within {limit:?}. The message may still have been stored. \
         Publish it again with the same `Nats-Msg-Id` to be sure."
    );
    Error::new(ErrorKind::Unconfirmed, message)
}

fn undecided(subject: &str) -> Error {
    let message = format!(
        "The stream has not decided yet whether it stores an earlier message for {subject} with the same \
         `Nats-Msg-Id`. Publish it again with the same one to be sure."
    );
    Error::new(ErrorKind::Unconfirmed, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn a_header_goes_out_as_one_line_or_not_at_all(
            name in "[ -~\\PC\r\n\t]{0,8}|[!-9;-~]{1,8}",
            value in "[ -~\\PC\r\n\t]{0,8}|\\PC{0,8}",
        ) {
            let outgoing = Outgoing::to("orders.created", "").unwrap();
            if let Ok(outgoing) = outgoing.header(&name, &value) {
                let (_, headers, _) = outgoing.into_parts();
                let (kept, values) = headers.iter().next().unwrap();
                let kept: &str = kept.as_ref();
                let line = format!("{kept}: {}", values[0].as_str());
                prop_assert_eq!(&line, &format!("{name}: {value}"));
                prop_assert!(!line.contains(|c: char| c.is_control()));
                prop_assert_eq!(line.split_once(": "), Some((name.as_str(), value.as_str())));
            }
        }

        #[test]
        fn a_subject_goes_out_as_one_word_or_not_at_all(subject in "[a-z.*> \r\n\t\0\\PC]{0,12}") {
            if Outgoing::to(&subject, "").is_ok() {
                prop_assert_eq!(subject.split_whitespace().collect::<Vec<_>>(), [&subject]);
            }
        }

        #[test]
        fn what_a_stream_confirms_is_read(
            (stream, domain) in any::<(String, Option<String>)>(),
            (sequence, duplicate) in any::<(u64, bool)>(),
        ) {
            let answer = json!({ "stream": stream, "seq": sequence, "duplicate": duplicate, "domain": domain });
            let ack = PublishAck { stream, sequence, duplicate, domain };
            prop_assert_eq!(read_ack("orders.created", answer.to_string().as_bytes()).unwrap(), ack);
        }

        #[test]
        fn no_answer_of_a_stream_panics(
            answer in prop::collection::vec(any::<u8>(), 0..60),
            code in prop_oneof![any::<u64>().prop_map(|n| n.to_string()), "\\PC{0,6}"],
        ) {
            let _ = read_ack("orders.created", &answer);
            let error = format!(r#"{{"error":{{"code":{code},"err_code":{code}}},"stream":"orders","seq":{code}}}"#);
            let _ = read_ack("orders.created", error.as_bytes());
        }
    }

    #[test]
    fn messages_in_one_block_keep_apart() {
        let mut block = BytesMut::new();
        let texts = ["", "a", "grün", &"x".repeat(100_000), "b"];
        let pack = |text: &&str| Outgoing::packed(&mut block, "orders.created", text.as_bytes()).unwrap();
        let messages: Vec<_> = texts.iter().map(pack).collect();
        assert!(Outgoing::packed(&mut block, "orders.*", b"").is_err());
        for (message, text) in messages.iter().zip(texts) {
            assert_eq!((message.subject(), message.payload()), ("orders.created", text.as_bytes()));
        }
    }

    #[test]
    fn a_repeat_of_what_the_stream_has_not_decided_on_is_unconfirmed_and_may_be_repeated() {
        let answer =
            br#"{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}"#;
        assert_eq!(read_ack("orders.created", answer).unwrap_err().kind(), ErrorKind::Unconfirmed);
    }

    #[test]
    fn refuses_to_publish_to_a_pattern() {
        for subject in ["orders.*", "orders.>", "orders..x", "two words", ""] {
            assert_eq!(Outgoing::to(subject, "").unwrap_err().kind(), ErrorKind::Invalid, "{subject:?}");
        }
    }

    #[test]
    fn a_header_cannot_smuggle_another_one_in() {
        let outgoing = || Outgoing::to("orders.created", "").unwrap();
        assert!(outgoing().header("Trace", "abc\r\nNats-Rollup: all").is_err());
        assert!(outgoing().header("Trace: x", "abc").is_err());
        assert!(outgoing().header("Tr\u{e4}ce", "abc").is_err());
        assert!(outgoing().header("Trace", "gr\u{fc}n").is_ok());
    }
}
