//! Creating streams.

use serde_json::{Value, json};

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::jetstream::api::call;
use crate::jetstream::info::stream_info;

/// Creates a stream, or leaves an existing one as it is. Returns whether it was created.
///
/// `config` is the server's own JSON with at least `name`.
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
