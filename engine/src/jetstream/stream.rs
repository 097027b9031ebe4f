//! Creating streams, and making sure of those that exist.

use serde_json::{Value, json};

use crate::config::validate_name;
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::call;
use crate::jetstream::info::stream_info;
pub use crate::jetstream::stream_config::StreamConfig;

/// The server's word on a stream that somebody else has created in the meantime, with other options.
const EXISTS_OTHERWISE: u64 = 10058;

/// Creates the stream, or makes sure that an existing one has every option that `config` sets. Returns whether it was
/// created. Several programs may do it at the same time.
///
/// ```no_run
/// use nats_consumer::{ConnectOptions, Connection, StreamConfig, ensure_stream};
///
/// # async fn example() -> nats_consumer::Result<()> {
/// let connection = Connection::open(&ConnectOptions::to(["nats://127.0.0.1:4222"])).await?;
/// ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Mismatch`], naming each option of the existing stream that differs. [`ErrorKind::Overlap`], naming the
/// stream that has the subjects. [`ErrorKind::Config`] for a name that no stream can have, or what the API answered.
pub async fn ensure_stream(connection: &Connection, config: &StreamConfig) -> Result<bool> {
    validate_name("stream", config.name())?;
    match create_stream(connection, &config.to_json()).await {
        Ok(false) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Api { err_code: EXISTS_OTHERWISE, .. }) => {}
        created => return created,
    }
    let differences = config.differences(&stream_info(connection, config.name()).await?.config);
    if differences.is_empty() {
        return Ok(false);
    }
    let message = format!(
        "The stream {} exists with other options: {}. Change the stream or the options.",
        config.name(),
        differences.join("; ")
    );
    Err(Error::new(ErrorKind::Mismatch, message))
}

/// Creates a stream, or leaves an existing one as it is, whatever its options are; see [`ensure_stream`]. Returns whether
/// it was created.
///
/// `config` is the server's own JSON with at least `name`.
///
/// ```
/// use nats_consumer::{Connection, stream::create_stream};
/// use serde_json::json;
///
/// # async fn example(connection: Connection) -> nats_consumer::Result<()> {
/// let config = json!({ "name": "orders", "subjects": ["orders.>"], "max_age": 7 * 24 * 3600 * 1_000_000_000_u64 });
/// let is_new = create_stream(&connection, &config).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Overlap`] naming the stream that has the subjects, or what the API answered.
pub async fn create_stream(connection: &Connection, config: &Value) -> Result<bool> {
    let name = config["name"].as_str().unwrap_or_default();
    match stream_info(connection, name).await {
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::StreamNotFound => {}
        Err(error) => return Err(error),
    }
    match call(connection, &format!("STREAM.CREATE.{name}"), config).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Overlap => {
            Err(name_the_owner(connection, config, error).await)
        }
        Err(error) => Err(error),
    }
}

async fn name_the_owner(connection: &Connection, config: &Value, error: Error) -> Error {
    let subjects = config["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    for subject in subjects {
        let asked = call(connection, "STREAM.NAMES", &json!({ "subject": subject })).await;
        let Some(owner) = asked.ok().and_then(|answer| answer["streams"][0].as_str().map(str::to_owned))
        else {
            continue;
        };
        let message = format!(
            "The stream {} cannot have the subject {subject}: it belongs to the stream \"{owner}\" already. \
             Use that stream, or choose subjects that do not overlap.",
            config["name"]
        );
        return Error::new(ErrorKind::Overlap, message).because(error);
    }
    error
}
