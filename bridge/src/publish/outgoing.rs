//! A message on its way out.

use std::collections::HashMap;

use nats_consumer::{Error, Outgoing};
use pyo3::prelude::*;

use crate::host::error::to_python;

/// The engine's message; `InvalidMessage` for a subject or a header that cannot be sent.
pub(crate) fn outgoing(
    subject: &str,
    payload: &[u8],
    headers: Option<&HashMap<String, String>>,
) -> PyResult<Outgoing> {
    with_headers(Outgoing::to(subject, payload.to_vec()), headers)
}

/// The message with the headers, or what is wrong with either.
pub(crate) fn with_headers(
    bare: Result<Outgoing, Error>,
    headers: Option<&HashMap<String, String>>,
) -> PyResult<Outgoing> {
    let headers = headers.into_iter().flatten();
    let whole = headers.fold(bare, |outgoing, (name, value)| outgoing?.header(name, value));
    whole.map_err(|error| to_python(&error))
}
