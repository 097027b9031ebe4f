//! Binding: the durable is found, created, or changed to fit its declaration; a difference is named.
//!
//! [`declared`] is what the options want; [`durable`] compares and applies; [`allowance`] is how much a durable may be sent
//! at first, and [`limits`] what account, server and stream leave of it; [`replay`] warns of a durable that begins
//! where another one has been; [`plan`] tells and does the same before a consumer starts; [`drift`] follows a durable that somebody else changed; [`position`] remembers where
//! a durable stood, in case it is deleted.

pub(crate) mod allowance;
pub(crate) mod declared;
pub(crate) mod drift;
pub(crate) mod durable;
pub(crate) mod limits;
pub mod plan;
pub(crate) mod position;
pub(crate) mod replay;
