//! A message as its stream has it, asked for by the JetStream API: no consumer, and headers as raw bytes.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::{API_TIMEOUT, request_behind};

/// The server's answer for a message that is not there (any more).
const NO_MESSAGE: u64 = 10037;

/// A stored message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    /// The header block, with its first line; empty without headers.
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) time: SystemTime,
}

#[derive(Deserialize)]
struct Answer {
    message: Value,
}

#[derive(Deserialize)]
struct Wire {
    seq: u64,
    subject: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

/// One message of the stream; `None` where it is not there. `what` says which, as `STREAM.MSG.GET` takes it.
pub(crate) async fn get(connection: &Connection, stream: &str, what: &Value) -> Result<Option<Stored>> {
    get_behind(connection, connection.api_prefix(), stream, what).await
}

/// [`get`] by the API behind another prefix.
pub(crate) async fn get_behind(
    connection: &Connection,
    prefix: &str,
    stream: &str,
    what: &Value,
) -> Result<Option<Stored>> {
    let subject = format!("STREAM.MSG.GET.{stream}");
    match request_behind(connection, prefix, &subject, what.to_string().into(), API_TIMEOUT).await {
        Ok(answer) => {
            let answer: Answer = serde_json::from_slice(&answer).map_err(garbled)?;
            read(answer.message).map(Some)
        }
        Err(error) if matches!(error.kind(), ErrorKind::Api { err_code: NO_MESSAGE, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(message: Value) -> Result<Stored> {
    let wire: Wire = serde_json::from_value(message).map_err(garbled)?;
    Ok(Stored {
        sequence: wire.seq,
        subject: wire.subject,
        headers: STANDARD.decode(wire.hdrs).map_err(garbled)?,
        payload: STANDARD.decode(wire.data).map_err(garbled)?,
        time: humantime::parse_rfc3339(&wire.time).map_err(garbled)?,
    })
}

fn garbled(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = "JetStream sent a stored message that cannot be read.";
    Error::new(ErrorKind::Api { code: 500, err_code: 0 }, message).because(error)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_the_server_sends() {
        let message = json!({
            "subject": "orders.created",
            "seq": 71,
            "hdrs": "TkFUUy8xLjANCg0K",
            "data": "AP8=",
            "time": "1970-01-01T00:00:01.0000005Z",
        });
        let stored = read(message).unwrap();
        assert_eq!((stored.sequence, stored.subject.as_str()), (71, "orders.created"));
        assert_eq!((stored.headers, stored.payload), (b"NATS/1.0\r\n\r\n".to_vec(), vec![0, 255]));
        assert_eq!(stored.time, UNIX_EPOCH + Duration::from_nanos(1_000_000_500));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        assert!(read(json!({ "subject": "orders.created" })).is_err());
    }

    /// A field as the server sends it, or as it should not be.
    fn field(right: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
        let wrong = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,30}".prop_map(Value::from),
            "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?Z?".prop_map(Value::from),
            Just(json!([])),
        ];
        prop_oneof![3 => right, 1 => wrong]
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_as_it_was_sent(
            sequence in any::<u64>(),
            subject in any::<String>(),
            headers in prop::collection::vec(any::<u8>(), 0..40),
            payload in prop::collection::vec(any::<u8>(), 0..40),
            nanos in 0..4_000_000_000_000_000_000_u64,
        ) {
            let time = UNIX_EPOCH + Duration::from_nanos(nanos);
            let message = json!({
                "seq": sequence,
                "subject": subject,
                "hdrs": STANDARD.encode(&headers),
                "data": STANDARD.encode(&payload),
                "time": humantime::format_rfc3339_nanos(time).to_string(),
            });
            let stored = read(message).unwrap();
            prop_assert_eq!((stored.sequence, stored.subject, stored.time), (sequence, subject, time));
            prop_assert_eq!((stored.headers, stored.payload), (headers, payload));
        }

        #[test]
        fn no_stored_message_panics(
            seq in field(any::<u64>().prop_map(Value::from)),
            subject in field("\\PC{0,9}".prop_map(Value::from)),
            data in field("[A-Za-z0-9+/]{0,12}={0,2}".prop_map(Value::from)),
            time in field(Just(json!("1970-01-01T00:00:01.0000005Z"))),
        ) {
            let _ = read(json!({ "seq": seq, "subject": subject, "hdrs": data, "data": data, "time": time }));
        }
    }
}
