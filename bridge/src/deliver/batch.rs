//! Batches on their way to Python: they gather in the engine, and one call handles the messages of each.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nats_consumer::{Blame, Delivery, Gatherer, Inbox};
use pyo3::prelude::*;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::deliver::attempt::Attempt;
use crate::deliver::judge::timeout_text;
use crate::deliver::message::Message;
use crate::host::lock::lock;
use crate::host::runtime::runtime;

const LOG: &str = "nats_consumer::handler";

/// The inbox of a consumer that handles batches. Behind the gatherer, batches wait for a thread, or nothing waits and the
/// event loop is woken.
#[derive(Debug)]
pub(crate) struct BatchInbox {
    pub(crate) gatherer: Arc<Gatherer>,
    pub(crate) behind: Arc<dyn Inbox>,
}

impl Inbox for BatchInbox {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        self.gatherer.put(deliveries);
    }

    fn waiting(&self) -> usize {
        self.gatherer.waiting() + self.behind.waiting()
    }

    fn recall(&self) -> Vec<Delivery> {
        let mut recalled = self.gatherer.recall();
        recalled.append(&mut self.behind.recall());
        recalled
    }

    fn reopen(&self) {
        self.behind.reopen();
    }

    fn wind_up(&self) {
        self.gatherer.wind_up();
    }

    fn cancel(&self) {
        self.behind.cancel();
    }

    fn close(&self) {
        self.gatherer.close();
        self.behind.close();
    }
}

/// The messages of a batch. Where handlers in threads have a timeout, they lose their messages when it is over.
pub(crate) fn messages_of(
    py: Python<'_>,
    batch: Vec<Delivery>,
    may_run_late: bool,
) -> PyResult<Vec<Py<Message>>> {
    let message = |delivery| match may_run_late {
        true => Message::timed(Arc::new(Attempt::new(delivery))),
        false => Message::new(delivery),
    };
    batch.into_iter().map(|delivery| Py::new(py, message(delivery))).collect()
}

/// The parts of a batch that are still to be handled; see the engine.
#[pyclass(module = "nats_consumer._native")]
pub(crate) struct Halves(nats_consumer::Halves);

#[pymethods]
impl Halves {
    #[new]
    fn new(count: usize, probes: bool) -> Self {
        Self(nats_consumer::Halves::new(count, probes))
    }

    /// Bounds of the part to handle now.
    fn next(&mut self) -> Option<(usize, usize)> {
        self.0.next().map(|part| (part.start, part.end))
    }

    fn succeeded(&mut self) {
        self.0.succeeded();
    }

    fn failed(&mut self) -> &'static str {
        name_of(self.0.failed())
    }

    fn failed_in_common(&mut self) -> &'static str {
        name_of(self.0.failed_in_common())
    }

    #[getter]
    fn should_stop(&self) -> bool {
        self.0.should_stop()
    }
}

fn name_of(blame: Blame) -> &'static str {
    match blame {
        Blame::Halves => "halves",
        Blame::Proven => "proven",
        Blame::Nobody => "nobody",
    }
}

/// One call of a handler in a thread that nobody can end. When its time is over, it loses its messages: they come again,
/// and what the handler says from then on is ignored. Their places stay occupied until it returns.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Turn {
    call: Arc<Call>,
    timer: AbortHandle,
}

struct Call {
    consumer: String,
    began: Instant,
    attempts: Vec<Arc<Attempt>>,
    state: Mutex<CallState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CallState {
    Runs,
    Ended,
    Late,
}

impl Turn {
    pub(crate) fn begin(consumer: &str, limit: Duration, attempts: Vec<Arc<Attempt>>) -> Self {
        let state = Mutex::new(CallState::Runs);
        let call = Arc::new(Call { consumer: consumer.to_owned(), began: Instant::now(), attempts, state });
        let timed = call.clone();
        let timer = runtime().spawn(async move {
            tokio::time::sleep(limit).await;
            timed.time_out(limit);
        });
        Self { call, timer: timer.abort_handle() }
    }
}

impl Call {
    fn time_out(&self, limit: Duration) {
        let mut state = lock(&self.state);
        if *state != CallState::Runs {
            return;
        }
        *state = CallState::Late;
        // What the handler has settled is none of its messages any more.
        for attempt in self.attempts.iter().filter(|attempt| !attempt.delivery().is_settled()) {
            attempt.run_late();
            attempt.delivery().note_late();
            attempt.delivery().fail_without_evidence("TimeoutError");
        }
        warn!(
            target: LOG,
            consumer = self.consumer,
            "A batch of {} messages {}. All its messages are delivered again. The handler still runs in its thread, \
             because a thread cannot be stopped. Its result is ignored.",
            self.attempts.len(),
            timeout_text(limit),
        );
    }
}

#[pymethods]
impl Turn {
    /// The handler has returned. Whether in time: then its word counts.
    fn end(&self) -> bool {
        self.timer.abort();
        let mut state = lock(&self.call.state);
        if *state != CallState::Late {
            *state = CallState::Ended;
            return true;
        }
        self.call.attempts.iter().for_each(|attempt| attempt.free_place());
        warn!(
            target: LOG,
            consumer = self.call.consumer,
            "The handler of a batch returned after {:.1} s, beyond handler_timeout. Its result is ignored. Its thread \
             is free.",
            self.call.began.elapsed().as_secs_f64(),
        );
        false
    }
}
