//! A thread of the pool, as Python starts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::prelude::*;

use crate::host::call::{call, detached};
use crate::threads::at_work::Desk;
use crate::threads::pool::Turn;
use crate::threads::{ConsumerSeat, Visit, grow, pool, thread_number};

/// The place of one thread among those that run `def` handlers.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct ThreadSeat {
    seat: Arc<ConsumerSeat>,
    has_come: AtomicBool,
}

impl ThreadSeat {
    pub(crate) fn new(seat: Arc<ConsumerSeat>) -> Self {
        Self { seat, has_come: AtomicBool::new(false) }
    }

    fn serve_at(&self, py: Python<'_>, desk: &Desk, rest: &Bound<'_, PyAny>) -> PyResult<()> {
        let (pool, seat) = (pool(), &self.seat);
        let mut visit: Option<Visit> = None;
        let mut has_rested = false;
        loop {
            let turn = match pool.next(seat) {
                Some(turn) => turn,
                None => detached(py, || pool.wait(seat, has_rested)),
            };
            has_rested = matches!(turn, Turn::Rest);
            let lane = match &turn {
                Turn::End => return Ok(()),
                Turn::Rest => {
                    visit = None;
                    call(rest, ())?;
                    continue;
                }
                Turn::Hand(lane) | Turn::Batch(lane, _) | Turn::Errand(lane) => lane.clone(),
            };
            grow(py, &pool);
            if visit.as_ref().is_none_or(|visit| !Arc::ptr_eq(&visit.lane, &lane)) {
                visit = Some(Visit::begin(py, lane)?);
            }
            if let Some(visit) = &visit {
                seat.begin();
                visit.work(py, seat, desk, turn)?;
            }
        }
    }
}

#[pymethods]
impl ThreadSeat {
    /// Whether it is the thread that handles what other threads are too busy for.
    #[getter]
    fn is_spare(&self) -> bool {
        self.seat.is_runner
    }

    /// Runs `def` handlers in the calling thread until it is not needed any more. Calls `rest` whenever nothing has come
    /// for a second. An error is none of a handler's: call it again.
    fn serve(&self, py: Python<'_>, rest: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.has_come.swap(true, Relaxed) {
            pool().came(&self.seat);
        }
        let desk = Desk::new(thread_number(py)?);
        let served = self.serve_at(py, &desk, rest);
        desk.clear();
        if served.is_err() {
            pool().break_off(&self.seat);
        }
        served
    }
}
