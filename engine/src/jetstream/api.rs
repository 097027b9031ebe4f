//! Requests to the JetStream API, each with a deadline, their errors told apart.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::connect::{API_PREFIX, Connection};
use crate::error::{Error, ErrorKind, Result};

/// How long the server may take to answer: leader elections last about four seconds.
pub const API_TIMEOUT: Duration = Duration::from_secs(5);

/// The subjects of the API begin with it, unless the connection says otherwise.
pub const PREFIX: &str = API_PREFIX;

const STREAM_NOT_FOUND: u64 = 10059;
const CONSUMER_NOT_FOUND: u64 = 10014;
const SUBJECTS_OVERLAP: u64 = 10065;

#[derive(Deserialize)]
struct Reply {
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Sends a request to `$JS.API.<subject>`, or behind the prefix of the connection, and returns the JSON of the answer.
///
/// # Errors
/// The API's own error as its [`ErrorKind`], with code 503 when nobody serves JetStream;
/// [`ErrorKind::Timeout`] when the answer did not come within `limit`; [`ErrorKind::Denied`] at once when the user
/// may not ask.
pub async fn request(connection: &Connection, subject: &str, body: Bytes, limit: Duration) -> Result<Bytes> {
    request_behind(connection, connection.api_prefix(), subject, body, limit).await
}

/// [`request`] to the API behind another prefix: that of a domain, `$JS.<domain>.API`, or of an import.
///
/// # Errors
/// As [`request`].
pub async fn request_behind(
    connection: &Connection,
    prefix: &str,
    subject: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Bytes> {
    connection.wait_until_up(limit, || format!("{subject} could not be asked")).await?;
    let request = Request::new().payload(body).timeout(Some(limit));
    let whole = format!("{prefix}.{subject}");
    let sending = connection.client().send_request(whole.clone(), request);
    let asking = async { tokio::time::timeout(limit, sending).await.map_err(|_| late(subject, limit)) };
    let answer = connection.unless_denied(&[&whole], asking).await?;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::TimedOut => late(subject, limit),
        RequestErrorKind::NoResponders => Error::new(
            ErrorKind::Api { code: 503, err_code: 0 },
            "JetStream is not available: enable it on the server (`jetstream {}` or `-js`) and for this \
             account, or wait until the cluster has a leader.",
        ),
        _ => Error::new(ErrorKind::Closed, format!("The request {subject} could not be sent: {error}."))
            .because(error),
    })?;
    refuse_errors(subject, &answer.payload)?;
    Ok(answer.payload)
}

/// [`request`] with a JSON value for both ways and the usual deadline.
pub(crate) async fn call(connection: &Connection, subject: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let answer = request(connection, subject, body, API_TIMEOUT).await?;
    read_object(&answer).map_err(|error| garbled(subject, error))
}

/// A duration as the API takes it: the server counts in 64 bits with a sign.
pub(crate) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Every answer is an object: what is looked up in it, or taken out, is there or is null.
fn read_object(answer: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Map<_, _>>(answer).map(Value::Object)
}

fn refuse_errors(subject: &str, payload: &[u8]) -> Result<()> {
    let reply: Reply = serde_json::from_slice(payload).map_err(|error| garbled(subject, error))?;
    let Some(ApiError { code, err_code, description }) = reply.error else { return Ok(()) };
    let target = subject.rsplit('.').next().unwrap_or(subject);
    Err(match err_code {
        STREAM_NOT_FOUND => Error::new(
            ErrorKind::StreamNotFound,
            format!(
                "The stream `{}` does not exist: create it first, or check the name.",
                stream_of(subject)
            ),
        ),
        CONSUMER_NOT_FOUND => {
            Error::new(ErrorKind::Gone, format!("The durable `{target}` does not exist on the server."))
        }
        SUBJECTS_OVERLAP => Error::new(
            ErrorKind::Overlap,
            format!("Subjects of the stream `{target}` belong to another stream already."),
        ),
        _ => Error::new(
            ErrorKind::Api { code, err_code },
            format!("JetStream refused {subject}: {description} (code {code}, error {err_code})."),
        )
        .because(description),
    })
}

/// The stream that a request is about: `STREAM.INFO.<stream>`, `CONSUMER.INFO.<stream>.<durable>` and the like.
fn stream_of(subject: &str) -> &str {
    let tokens: Vec<&str> = subject.split('.').collect();
    let index = match tokens.as_slice() {
        ["STREAM", "MSG", ..] | ["CONSUMER", "DURABLE", ..] | ["CONSUMER", "MSG", ..] => 3,
        _ => 2,
    };
    tokens.get(index).copied().unwrap_or(subject)
}

fn late(subject: &str, limit: Duration) -> Error {
    let message =
        format!("JetStream did not answer {subject} within {limit:?}. Check that the server is reachable.");
    Error::new(ErrorKind::Timeout, message)
}

pub(crate) fn garbled(subject: &str, error: serde_json::Error) -> Error {
    let message = format!("JetStream answered {subject} with something that is not JSON.");
    Error::new(ErrorKind::Api { code: 500, err_code: 0 }, message).because(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// JSON of any shape, with the words that the API uses.
    fn values() -> impl Strategy<Value = Value> {
        let leaves = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        let names = prop_oneof![
            prop::sample::select(vec!["error", "code", "err_code", "description", "config"])
                .prop_map(str::to_owned),
            "[a-z]{0,4}",
        ];
        leaves.prop_recursive(3, 16, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone(), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_answer_of_any_shape_is_read_or_refused(value in values()) {
            let text = value.to_string();
            let has_error = value.get("error").is_some_and(|error| !error.is_null());
            let refused = refuse_errors("STREAM.INFO.orders", text.as_bytes());
            prop_assert!(refused.is_err() || !has_error);
            if let Ok(mut object) = read_object(text.as_bytes()) {
                prop_assert_eq!(&object, &value);
                let _ = object["message"]["config"].as_str();
                let _ = object["message"].take();
            } else {
                prop_assert!(!value.is_object());
            }
        }

        #[test]
        fn an_error_of_the_api_keeps_its_numbers(code in any::<u16>(), err_code in any::<u64>(), words in any::<String>()) {
            let told_apart = [STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, SUBJECTS_OVERLAP];
            prop_assume!(!told_apart.contains(&err_code));
            let answer = json!({ "error": { "code": code, "err_code": err_code, "description": words } });
            let error = refuse_errors("STREAM.INFO.orders", answer.to_string().as_bytes()).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Api { code, err_code });
        }

        #[test]
        fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..100), subject in "[A-Z.*\\PC]{0,30}") {
            let _ = refuse_errors(&subject, &answer);
            let _ = read_object(&answer);
            let _ = stream_of(&subject);
        }
    }

    fn refused(json: &str) -> ErrorKind {
        refuse_errors("STREAM.INFO.orders", json.as_bytes()).unwrap_err().kind()
    }

    #[test]
    fn tells_the_errors_of_the_api_apart() {
        let error = |code, err_code| format!(r#"{{"error":{{"code":{code},"err_code":{err_code}}}}}"#);
        assert_eq!(refused(&error(404, 10059)), ErrorKind::StreamNotFound);
        assert_eq!(refused(&error(404, 10014)), ErrorKind::Gone);
        assert_eq!(refused(&error(400, 10065)), ErrorKind::Overlap);
        assert_eq!(refused(&error(400, 10025)), ErrorKind::Api { code: 400, err_code: 10025 });
        assert_eq!(refused("nonsense"), ErrorKind::Api { code: 500, err_code: 0 });
    }

    #[test]
    fn names_the_stream_that_is_missing() {
        for subject in ["STREAM.INFO.orders", "CONSUMER.INFO.orders.billing", "STREAM.MSG.GET.orders"] {
            assert_eq!(stream_of(subject), "orders");
        }
        assert_eq!(stream_of("CONSUMER.DURABLE.CREATE.orders.billing"), "orders");
    }

    #[test]
    fn an_answer_without_an_error_is_an_answer() {
        assert!(refuse_errors("STREAM.INFO.orders", b"{\"config\":{}}").is_ok());
    }
}
