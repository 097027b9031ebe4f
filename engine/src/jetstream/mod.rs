//! The JetStream API: requests with a deadline, typed answers, and the statuses of pull requests.

pub mod api;
pub(crate) mod beside;
pub(crate) mod headers;
pub(crate) mod info;
pub(crate) mod sign;
pub(crate) mod status;
pub(crate) mod stored;
pub mod stream;
mod stream_config;
