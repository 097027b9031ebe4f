//! The state of each consumer, metrics for Prometheus, and the counters of one consumption.
//!
//! | | |
//! |---|---|
//! | `state` | the state of a consumption: facts come in, one state comes out |
//! | `families` | the one table of metrics |
//! | `page` | memory for numbers that another process can read |
//! | `meter` | the numbers of one consumer |
//! | `report` | a state as words of a page |
//! | `monitor` | the states and numbers of a process's consumers |
//! | `process` | the numbers of the process |
//! | `outbox` | the numbers of an outbox |
//! | `published` | the numbers of what is published |
//! | `fleet` | the states and numbers of several processes, as one |
//! | `expose` | numbers as text |
//! | `http` | probes and metrics over HTTP |

pub(crate) mod expose;
pub(crate) mod families;
#[cfg(feature = "http")]
pub(crate) mod fleet;
#[cfg(feature = "http")]
mod http;
pub(crate) mod meter;
pub(crate) mod monitor;
pub(crate) mod outbox;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod published;
pub(crate) mod report;
pub(crate) mod state;
pub mod target;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use expose::Format;
#[doc(hidden)]
pub use expose::text;
pub use families::{FAMILIES, Family, Kind};
#[cfg(feature = "http")]
#[doc(hidden)]
pub use fleet::{Fleet, WorkerState};
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use http::Probes;
#[cfg(feature = "http")]
#[doc(hidden)]
pub use http::beat;
#[doc(hidden)]
pub use meter::{Durations, Name};
pub use monitor::Metrics;
#[doc(hidden)]
pub use monitor::Monitor;
#[doc(hidden)]
pub use outbox::Outbox;
#[doc(hidden)]
pub use page::{Clock, Page, View};
#[doc(hidden)]
pub use process::{Host, Versions};
pub use state::{ConsumerState, Status};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The counters of one consumption, all since it began.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)+
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// Reads every counter.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Relaxed),)+ }
            }
        }

        impl Snapshot {
            /// Every counter with its name, in the order in which they are documented.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Deliveries that arrived.
    received,
    /// Deliveries whose handler succeeded.
    succeeded,
    /// Attempts whose handler raised.
    failed,
    /// Deliveries handed back to be tried again after a delay.
    retried,
    /// Messages whose last attempt failed.
    exhausted,
    /// Messages stored in the dead-letter stream.
    dead_lettered,
    /// Messages terminated without a copy.
    dropped,
    /// Deliveries handed back before they were handled, at a drain.
    handed_back,
    /// Places occupied right now: deliveries unsettled, and handlers that outlast theirs.
    in_flight,
    /// How often the link to the server was lost and made again, a request for messages was lost or refused
    /// and made again, or the durable had to be bound again.
    repairs,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
