//! `nats_consumer._native`: the engine, as Python sees it.
//!
//! The only place that knows PyO3, and it holds no policy: what becomes of a message is decided by the
//! engine or by the user's code. A message crosses from tokio to Python through [`inbox`], in [`tasks`] (for
//! `async def` handlers) or [`threads`] (for `def`), and its outcome goes back by [`judge`].

#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod connection;
mod consumption;
mod dead_letters;
mod drafts;
mod error;
mod events;
mod future;
mod handler;
mod inbox;
mod judge;
mod lane;
mod late;
mod lock;
mod log;
mod message;
mod msg;
mod nats_py;
mod outcome;
mod panic;
mod pub_ack;
mod publisher;
mod rest;
mod router;
mod runtime;
mod settings;
mod step;
mod subscription;
mod tasks;
mod threads;
mod wake;

/// The Rust engine of nats_consumer.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::connection::{Connection, connect};
    #[pymodule_export]
    use crate::consumption::{Consumption, consume};
    #[pymodule_export]
    use crate::dead_letters::{DeadLetters, StoredLetter, StoredLetters};
    #[pymodule_export]
    use crate::drafts::Drafts;
    #[pymodule_export]
    use crate::events::Events;
    #[pymodule_export]
    use crate::log::take_logs;
    #[pymodule_export]
    use crate::message::{Message, Metadata, SequencePair};
    #[pymodule_export]
    use crate::msg::Msg;
    #[pymodule_export]
    use crate::publisher::{Publisher, check_draft};
    #[pymodule_export]
    use crate::router::Router;
    #[pymodule_export]
    use crate::subscription::{Pull, Subscription};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::log::install();
        module.add("version", env!("CARGO_PKG_VERSION"))
    }
}
