//! The messages that a consumer's threads work on, to be named when no thread gets free.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use pyo3::prelude::*;

use crate::deliver::message::Message;
use crate::host::lock::lock;

/// Messages by the number of the thread whose handler has them.
#[derive(Default)]
pub(crate) struct AtWork(Mutex<BTreeMap<u64, (Instant, Py<Message>)>>);

impl AtWork {
    /// The handler of the thread begins.
    pub(crate) fn begin(&self, py: Python<'_>, message: &Py<Message>, thread: u64) {
        lock(&self.0).insert(thread, (Instant::now(), message.clone_ref(py)));
    }

    /// It has ended.
    pub(crate) fn end(&self, thread: u64) {
        let ended = lock(&self.0).remove(&thread);
        drop(ended);
    }

    /// Messages and threads; what began first comes first.
    pub(crate) fn by_age(&self, py: Python<'_>) -> Vec<(Py<Message>, u64)> {
        let all = lock(&self.0);
        let mut all: Vec<_> =
            all.iter().map(|(thread, (began, message))| (*began, message.clone_ref(py), *thread)).collect();
        all.sort_by_key(|(began, ..)| *began);
        all.into_iter().map(|(_, message, thread)| (message, thread)).collect()
    }
}
