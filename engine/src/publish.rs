//! Publishing into a stream: the message counts when the stream has confirmed it.

use std::time::Duration;

use async_nats::{HeaderMap, Request, RequestErrorKind, Subject};
use bytes::Bytes;
use serde::Deserialize;

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};

/// The stream's confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PublishAck {
    /// The stream that stored the message.
    pub stream: String,
    /// Its place there.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// Whether a message with the same `Nats-Msg-Id` was stored before, and this one was not.
    #[serde(default)]
    pub duplicate: bool,
    /// The stream's JetStream domain, if it has one.
    #[serde(default)]
    pub domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reply {
    Refused { error: Refusal },
    Stored(PublishAck),
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Publishes and waits, at most `limit`, until a stream has stored the message.
///
/// # Errors
/// [`ErrorKind::NoStream`] when no stream has the subject, [`ErrorKind::TooLarge`] before anything is sent,
/// [`ErrorKind::Timeout`] when the confirmation did not come (the message may be stored all the same),
/// [`ErrorKind::Unreachable`] at once while disconnected, or what the stream answered.
pub async fn publish(
    connection: &Connection,
    subject: Subject,
    headers: HeaderMap,
    payload: Bytes,
    limit: Duration,
) -> Result<PublishAck> {
    if !connection.is_up() {
        return Err(Error::new(
            ErrorKind::Unreachable,
            format!("Not connected to NATS, so nothing was published to {subject}. Try again when it is back."),
        ));
    }
    let request = Request::new().payload(payload).headers(headers).timeout(Some(limit));
    let sending = connection.client().send_request(subject.clone(), request);
    let answer = match tokio::time::timeout(limit, sending).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(refused(&subject, limit, connection.client().max_payload(), error)),
        Err(_) => return Err(late(&subject, limit)),
    };
    match serde_json::from_slice(&answer.payload) {
        Ok(Reply::Stored(ack)) => Ok(ack),
        Ok(Reply::Refused { error: Refusal { code, err_code, description } }) => Err(Error::new(
            ErrorKind::Api { code, err_code },
            format!("The stream refused the message for {subject}: {description} (error {err_code})."),
        )),
        Err(error) => Err(Error::new(
            ErrorKind::NoStream,
            format!("Whoever answered on {subject} is no stream: is it a request subject?"),
        )
        .because(error)),
    }
}

fn refused(subject: &str, limit: Duration, largest: usize, error: async_nats::RequestError) -> Error {
    let (kind, message) = match error.kind() {
        RequestErrorKind::TimedOut => return late(subject, limit),
        RequestErrorKind::NoResponders => (
            ErrorKind::NoStream,
            format!("No stream has the subject {subject}: create one that does, or check the subject."),
        ),
        RequestErrorKind::MaxPayloadExceeded => (
            ErrorKind::TooLarge,
            format!("The message for {subject} is larger than the {largest} bytes the server takes."),
        ),
        RequestErrorKind::InvalidSubject => {
            (ErrorKind::Config, format!("{subject:?} is no subject: it must not be empty or contain spaces."))
        }
        RequestErrorKind::Other => {
            (ErrorKind::Unreachable, format!("The message for {subject} could not be sent: {error}."))
        }
    };
    Error::new(kind, message).because(error)
}

fn late(subject: &str, limit: Duration) -> Error {
    let message = format!(
        "No confirmation for {subject} within {limit:?}; the message may be stored all the same. \
         Publish it again with the same `Nats-Msg-Id` to be sure."
    );
    Error::new(ErrorKind::Timeout, message)
}
