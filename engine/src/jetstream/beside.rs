//! Streams beside a stream: its dead letters and its marks.

use serde_json::{Value, json};
use tracing::info;

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::info::stream_info;
use crate::jetstream::stream::create_stream;
use crate::observe::target::CONSUMER;

/// The server's answer where the account wants every stream to have `max_bytes`.
const NO_MAX_BYTES: u64 = 10113;

/// Its answers where an account has less room than `max_bytes` asks for: storage, memory, and the largest stream.
const TOO_LARGE: [u64; 3] = [10047, 10028, 10122];

/// The size below which a stream beside another one is of no use, in bytes.
const SMALLEST: i64 = 1024 * 1024;

/// Creates a stream for this consumer that is kept as safely as `source`: same storage, same replicas. Returns whether it was created.
///
/// In an account that wants limits it gets the `max_bytes` of `source`, or the half, and so on, as the account allows.
///
/// # Errors
/// [`ErrorKind::StreamNotFound`] where there is no `source`, or what the API answered.
pub(crate) async fn create_beside(
    connection: &Connection,
    consumer: &str,
    source: &str,
    mut config: Value,
) -> Result<bool> {
    let info = stream_info(connection, source).await?;
    for field in ["storage", "num_replicas"] {
        config[field] = info.config.get(field).cloned().unwrap_or_default();
    }
    let unlimited = create_stream(connection, &config).await;
    if !refused(&unlimited, &[NO_MAX_BYTES]) {
        return unlimited;
    }
    let mut bytes = info.config.get("max_bytes").and_then(Value::as_i64).unwrap_or_default().max(SMALLEST);
    loop {
        config["max_bytes"] = json!(bytes);
        let limited = create_stream(connection, &config).await;
        if !refused(&limited, &TOO_LARGE) || bytes / 2 < SMALLEST {
            if matches!(limited, Ok(true)) {
                let name = &config["name"];
                info!(
                    target: CONSUMER,
                    consumer,
                    "The account requires max_bytes, so the stream {name} was created with max_bytes={bytes}."
                );
            }
            return limited;
        }
        bytes /= 2;
    }
}

fn refused<T>(created: &Result<T>, answers: &[u64]) -> bool {
    let answer = created.as_ref().err().map(Error::kind);
    matches!(answer, Some(ErrorKind::Api { err_code, .. }) if answers.contains(&err_code))
}
