//! Messages for a client that takes and settles them itself, as nats-py's users do.

pub mod pull;
pub mod settle;
pub mod subscribe;
