//! `nats_consumer._native`: the engine, as Python sees it.
//!
//! The only place that knows PyO3, and it holds no policy: what becomes of a message is decided by the
//! engine or by the user's code. A message crosses from tokio to Python through [`deliver`], in [`tasks`] (for
//! `async def` handlers) or [`threads`] (for `def`), and its outcome goes back by [`deliver::judge`].

#![deny(unsafe_code)]
#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod client;
mod consumption;
mod dead_letters;
mod deliver;
mod host;
mod monitor;
mod options;
mod publish;
mod route;
mod rules;
mod stall;
mod tasks;
mod threads;
mod view;

/// The Rust engine of nats_consumer.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::client::events::Events;
    #[pymodule_export]
    use crate::client::subscription::{Pull, Subscription};
    #[pymodule_export]
    use crate::client::{Connection, connect, plan_known_durable};
    #[pymodule_export]
    use crate::consumption::{Consumption, consume};
    #[pymodule_export]
    use crate::dead_letters::{DeadLetters, StoredLetter, StoredLetters};
    #[pymodule_export]
    use crate::deliver::batch::{Halves, Turn};
    #[pymodule_export]
    use crate::deliver::message::Message;
    #[pymodule_export]
    use crate::host::future::{Promise, promise};
    #[pymodule_export]
    use crate::host::log::{take_logs, wake_logs};
    #[pymodule_export]
    use crate::host::parent::end_with_parent;
    #[pymodule_export]
    use crate::host::signals::{SignalWatch, describe_at, watch_signals};
    #[pymodule_export]
    use crate::host::watchdog::keep_watchdog;
    #[pymodule_export]
    use crate::monitor::fleet::Fleet;
    #[pymodule_export]
    use crate::monitor::memory::Page;
    #[pymodule_export]
    use crate::monitor::outbox::OutboxMetrics;
    #[pymodule_export]
    use crate::monitor::probes::Probes;
    #[pymodule_export]
    use crate::monitor::{
        count_into, declare, metric_families, metrics_text, note_failed_start, serve_probes,
    };
    #[pymodule_export]
    use crate::publish::drafts::Drafts;
    #[pymodule_export]
    use crate::publish::{Publisher, check_draft};
    #[pymodule_export]
    use crate::route::router::Router;
    #[pymodule_export]
    use crate::route::template::{Template, Tokens};
    #[pymodule_export]
    use crate::rules::{Rules, identity_of, read_letter, replayed};
    #[pymodule_export]
    use crate::threads::seat::ThreadSeat;
    #[pymodule_export]
    use crate::view::metadata::{Metadata, SequencePair};
    #[pymodule_export]
    use crate::view::msg::Msg;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::host::log::install();
        crate::host::forked::count_forks(module.py())?;
        module.add("version", env!("CARGO_PKG_VERSION"))
    }
}
