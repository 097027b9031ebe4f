//! The workers of a supervisor, seen from outside as one.

use nats_consumer::observe;
use pyo3::prelude::*;

use crate::host::seconds::seconds;
use crate::monitor::memory::{Page, clock};
use crate::monitor::probes::Probes;

/// Worker processes, each with its page.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Fleet(observe::Fleet);

#[pymethods]
impl Fleet {
    #[new]
    fn new() -> Self {
        Self(observe::Fleet::new(clock))
    }

    /// A worker of this slot is about to write the page.
    fn adopt(&self, page: &Page, slot: usize) {
        self.0.adopt(page.view.clone(), slot);
    }

    /// Another worker has taken the place of the one with this page, which ends.
    fn note_leaving(&self, page: &Page) {
        self.0.note_leaving(&page.view);
    }

    /// The worker with this page has ended: its counters are kept, and the page may be used again.
    fn retire(&self, page: &Page) {
        self.0.retire(&page.view);
    }

    /// Sets the number of slots, and how many of them have a worker that is ready or being replaced.
    fn set_slots(&self, wanted: usize, filled: usize) {
        self.0.set_slots(wanted, filled);
    }

    /// All workers drain, and none follows: nothing is ready from now on because it was until lately.
    fn note_drain(&self) {
        self.0.note_drain();
    }

    /// Counts a start of a worker.
    fn note_start(&self, reason: &str) {
        self.0.note_start(reason);
    }

    /// Says that the supervisor goes on.
    fn beat(&self) {
        self.0.beat();
    }

    /// Answers `/livez`, `/readyz` and `/metrics` for all at `address`, as `serve_probes` does for one process.
    fn serve(&self, address: String, grace: f64) -> PyResult<Probes> {
        let grace = seconds("grace", grace)?;
        Ok(Probes::new(observe::Probes::of_fleet(self.0.clone(), address, grace)?, None))
    }
}
