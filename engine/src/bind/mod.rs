//! Binding: the durable is found, created, or changed to fit its declaration; a difference is named.
//!
//! [`durable`] compares and applies; [`allowance`] bounds what a push consumer may be sent; [`drift`] follows a durable
//! that somebody else changed; [`position`] remembers where a durable stood, in case it is deleted.

pub(crate) mod allowance;
pub(crate) mod drift;
pub(crate) mod durable;
pub(crate) mod position;
