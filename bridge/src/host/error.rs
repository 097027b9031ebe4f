//! Errors of the engine become the exceptions of `nats_consumer.exceptions`.

use std::error::Error as _;

use nats_consumer::{Error, ErrorKind};
use pyo3::PyErr;

/// The exceptions, defined in Python, where their readers look for them.
pub(crate) mod exceptions {
    #![allow(missing_docs, reason = "documented in nats_consumer.exceptions")]
    use pyo3::import_exception;

    import_exception!(nats_consumer.exceptions, ApiError);
    import_exception!(nats_consumer.exceptions, ConfigurationError);
    import_exception!(nats_consumer.exceptions, ConnectionClosed);
    import_exception!(nats_consumer.exceptions, ConsumerGone);
    import_exception!(nats_consumer.exceptions, Denied);
    import_exception!(nats_consumer.exceptions, Disconnected);
    import_exception!(nats_consumer.exceptions, EngineBug);
    import_exception!(nats_consumer.exceptions, ForkedProcess);
    import_exception!(nats_consumer.exceptions, InvalidMessage);
    import_exception!(nats_consumer.exceptions, InvalidPayload);
    import_exception!(nats_consumer.exceptions, MessageAlreadySettled);
    import_exception!(nats_consumer.exceptions, MessageError);
    import_exception!(nats_consumer.exceptions, NoResponders);
    import_exception!(nats_consumer.exceptions, NoServers);
    import_exception!(nats_consumer.exceptions, NoStreamResponse);
    import_exception!(nats_consumer.exceptions, NotJetStreamMessage);
    import_exception!(nats_consumer.exceptions, NotReplayable);
    import_exception!(nats_consumer.exceptions, NotStored);
    import_exception!(nats_consumer.exceptions, PayloadTooLarge);
    import_exception!(nats_consumer.exceptions, PublishTimeout);
    import_exception!(nats_consumer.exceptions, RequestTimeout);
    import_exception!(nats_consumer.exceptions, SettledTooEarly);
    import_exception!(nats_consumer.exceptions, StreamMismatch);
    import_exception!(nats_consumer.exceptions, StreamNotFound);
    import_exception!(nats_consumer.exceptions, SubjectsOverlap);
}

use exceptions::*;

/// The exception for an error of the engine.
pub(crate) fn to_python(error: &Error) -> PyErr {
    let text = error.message().to_owned();
    match error.kind() {
        ErrorKind::Config => ConfigurationError::new_err(text),
        ErrorKind::Unreachable => NoServers::new_err(text),
        ErrorKind::Disconnected => Disconnected::new_err(text),
        ErrorKind::Closed => ConnectionClosed::new_err(text),
        ErrorKind::Denied => Denied::new_err(text),
        ErrorKind::StreamNotFound => StreamNotFound::new_err(text),
        ErrorKind::Mismatch => StreamMismatch::new_err(text),
        ErrorKind::Overlap => SubjectsOverlap::new_err(text),
        ErrorKind::Gone => ConsumerGone::new_err(text),
        ErrorKind::Api { code, err_code } => {
            // The server's own words, where it said something.
            let description = error.source().map_or(text, ToString::to_string);
            ApiError::new_err((code, err_code, description))
        }
        ErrorKind::NotStored { code, err_code } => {
            let description = error.source().map_or(text, ToString::to_string);
            NotStored::new_err((code, err_code, description))
        }
        ErrorKind::NoStream => NoStreamResponse::new_err(text),
        ErrorKind::NoResponders => NoResponders::new_err(text),
        ErrorKind::Invalid => InvalidMessage::new_err(text),
        ErrorKind::TooLarge => PayloadTooLarge::new_err(text),
        ErrorKind::Unconfirmed => PublishTimeout::new_err(text),
        ErrorKind::Timeout => RequestTimeout::new_err(text),
        ErrorKind::NotReplayable => NotReplayable::new_err(text),
        kind => EngineBug::new_err(format!("{text} (The extension module has no exception for {kind:?}.)")),
    }
}
