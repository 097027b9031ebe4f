//! What can be observed: one list of counters, read by Rust, by Python and by tests alike.

pub mod target;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
