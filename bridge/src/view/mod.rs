//! A message of the engine, as Python sees it.

pub(crate) mod nats_py;
