//! Counters of the messages and bytes that a client has sent and received.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the messages of a connection and the bytes of their payloads; what the protocol adds, subjects and
/// headers too, is left out. Of what a consumption handles, nothing is counted: that has counters of its own.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    received: Pair,
    sent: Pair,
}

#[derive(Debug, Default)]
struct Pair {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// The messages of a connection so far, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Messages received.
    pub messages_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl Counted {
    pub(crate) fn received(&self, payload: usize) {
        self.received.add(payload);
    }

    pub(crate) fn sent(&self, payload: usize) {
        self.sent.add(payload);
    }

    pub(crate) fn so_far(&self) -> Traffic {
        Traffic {
            messages_in: self.received.messages.load(Relaxed),
            bytes_in: self.received.bytes.load(Relaxed),
            messages_out: self.sent.messages.load(Relaxed),
            bytes_out: self.sent.bytes.load(Relaxed),
        }
    }
}

impl Pair {
    fn add(&self, payload: usize) {
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(payload as u64, Relaxed);
    }
}
