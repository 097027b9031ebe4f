//! A message on its way out.

use std::collections::HashMap;

use nats_consumer::Outgoing;
use pyo3::prelude::*;

use crate::host::error::to_python;

/// The engine's message; `InvalidMessage` for a subject or a header that cannot be sent.
pub(crate) fn outgoing(
    subject: &str,
    payload: &[u8],
    headers: Option<&HashMap<String, String>>,
) -> PyResult<Outgoing> {
    let bare = Outgoing::to(subject, payload.to_vec());
    let headers = headers.into_iter().flatten();
    let whole = headers.fold(bare, |outgoing, (name, value)| outgoing?.header(name, value));
    whole.map_err(|error| to_python(&error))
}
