//! Runs a [`BatchHandler`] in as many tasks as the consumer's `concurrency`.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tracing::{Instrument, error, warn};

use crate::batch::gather::Gatherer;
use crate::batch::halves::{Blame, Halves};
use crate::batch::{BatchHandler, Outcomes};
use crate::config::{Batching, ConsumerOptions};
use crate::defect::describe;
use crate::handle::delivery::Delivery;
use crate::handle::{Attempt, Inbox, conclude, judge};
use crate::lock::lock;
use crate::message::Message;
use crate::observe::target::HANDLER;
use crate::outcome::{HandlerError, Outcome};

/// A gatherer, and the tasks that take batches from it.
pub(crate) struct BatchPool {
    gatherer: Arc<Gatherer>,
    running: Mutex<JoinSet<()>>,
}

impl BatchPool {
    /// The tasks of a consumer with these options.
    pub(crate) fn start(handler: impl BatchHandler, limits: Batching, options: &ConsumerOptions) -> Self {
        let gatherer = Arc::new(Gatherer::new(limits));
        let handler = Arc::new(handler);
        let mut running = JoinSet::new();
        let (name, timeout) = (Arc::<str>::from(options.name.as_str()), options.handler_timeout);
        for _ in 0..options.concurrency {
            running.spawn(keep_running(name.clone(), gatherer.clone(), handler.clone(), timeout));
        }
        Self { gatherer, running: Mutex::new(running) }
    }
}

impl Inbox for BatchPool {
    fn put(&self, deliveries: &mut Vec<Delivery>) {
        self.gatherer.put(deliveries);
    }

    fn waiting(&self) -> usize {
        self.gatherer.waiting()
    }

    fn recall(&self) -> Vec<Delivery> {
        self.gatherer.recall()
    }

    fn wind_up(&self) {
        self.gatherer.wind_up();
    }

    fn cancel(&self) {
        lock(&self.running).abort_all();
    }

    fn close(&self) {
        self.gatherer.close();
    }
}

impl fmt::Debug for BatchPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchPool").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// A panic of ours costs the batch that met it an attempt, and not the task.
async fn keep_running(
    name: Arc<str>,
    gatherer: Arc<Gatherer>,
    handler: Arc<impl BatchHandler>,
    timeout: Option<Duration>,
) {
    let run = async || {
        while let Some(deliveries) = gatherer.next().await {
            Batch { deliveries, handler: &*handler, timeout }.run().await;
        }
    };
    while let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await {
        error!(target: HANDLER, consumer = &*name, "A task that runs handlers panicked ({}) and was restarted.", describe(panic.as_ref()));
    }
}

struct Batch<'a, H> {
    deliveries: Vec<Delivery>,
    handler: &'a H,
    timeout: Option<Duration>,
}

/// A call of the handler that failed as a whole.
struct Failure {
    class: &'static str,
    error: HandlerError,
    is_common: bool,
}

/// Part of a batch, for one call.
struct Part<'a> {
    deliveries: Vec<&'a Delivery>,
    messages: Vec<Message>,
    elapsed: Duration,
}

impl<H: BatchHandler> Batch<'_, H> {
    async fn run(self) {
        let mut halves = Halves::new(self.deliveries.len(), self.deliveries.iter().any(Delivery::is_beyond));
        let mut away = None;
        while let Some(range) = halves.next() {
            let deliveries = self.deliveries[range].iter().collect();
            let mut part = Part { deliveries, messages: Vec::new(), elapsed: Duration::ZERO };
            if let Some(failure) = away.as_ref().filter(|_| halves.should_stop()) {
                self.come_again(&part, failure);
                continue;
            }
            match self.call(&mut part).await {
                Ok(outcomes) => {
                    halves.succeeded();
                    self.settle(&part, outcomes);
                }
                Err(failure) => away = self.fail(&part, failure, &mut halves).or(away),
            }
        }
    }

    async fn call(&self, part: &mut Part<'_>) -> Result<Outcomes, Failure> {
        let running = HandBack(&self.deliveries);
        let began = Instant::now();
        let deadline = self.timeout.and_then(|limit| began.checked_add(limit));
        part.messages = part.deliveries.iter().map(|each| each.message_with_context(deadline)).collect();
        let messages = part.messages.clone();
        let handling = async { self.handler.handle_batch(messages).await };
        let handling = handling.instrument(part.deliveries[0].batch_span(part.deliveries.len()));
        let handling = AssertUnwindSafe(handling).catch_unwind();
        let ended = match self.timeout {
            Some(limit) => tokio::time::timeout(limit, handling).await,
            None => Ok(handling.await),
        };
        std::mem::forget(running);
        part.elapsed = began.elapsed();
        let failed = |class, error: HandlerError, is_common| Failure { class, error, is_common };
        match ended {
            Ok(Ok(result)) => {
                result.and_then(|outcomes| outcomes.of(part.deliveries.len())).map_err(|error| {
                    let is_common = self.handler.is_common(&error);
                    failed("error", error, is_common)
                })
            }
            Ok(Err(panic)) => {
                let text = format!("the handler panicked: {}", describe(panic.as_ref()));
                Err(failed("panic", text.into(), false))
            }
            Err(_) => {
                part.deliveries.iter().for_each(|delivery| delivery.note_late());
                Err(failed("timeout", "the handler ran longer than its timeout".into(), true))
            }
        }
    }

    fn settle(&self, part: &Part<'_>, mut outcomes: Outcomes) {
        for (index, delivery) in part.deliveries.iter().enumerate() {
            let (outcome, error) = conclude(delivery, "error", outcomes.take(index));
            self.tell(part, index, &outcome, error.as_ref());
        }
    }

    /// Returns the failure if the surroundings are at fault.
    fn fail(&self, part: &Part<'_>, failure: Failure, halves: &mut Halves) -> Option<Failure> {
        let blame = if failure.is_common { halves.failed_in_common() } else { halves.failed() };
        match blame {
            // The parts of a part say no more than the whole.
            Blame::Halves if part.deliveries.len() < self.deliveries.len() => {}
            Blame::Halves => warn!(
                target: HANDLER,
                consumer = part.deliveries[0].consumer(),
                messages = part.deliveries.len(),
                error = %format_args!("{:#}", failure.error),
                "A batch failed. Each half is handled separately."
            ),
            Blame::Proven => {
                for (index, delivery) in part.deliveries.iter().enumerate() {
                    let outcome = judge(delivery, failure.class, &failure.error);
                    self.tell(part, index, &outcome, Some(&failure.error));
                }
            }
            Blame::Nobody => {
                self.come_again(part, &failure);
                return Some(failure);
            }
        }
        None
    }

    /// All of them have failed this attempt, and nothing is said about any of them.
    fn come_again(&self, part: &Part<'_>, failure: &Failure) {
        let Failure { class, error, .. } = failure;
        warn!(
            target: HANDLER,
            consumer = part.deliveries[0].consumer(),
            messages = part.deliveries.len(),
            error = %format_args!("{error:#}"),
            "A batch failed with an error that blames no message. All its messages are delivered again."
        );
        for (index, delivery) in part.deliveries.iter().enumerate() {
            let outcome = delivery.fail_without_evidence(class);
            self.tell(part, index, &outcome, Some(error));
        }
    }

    fn tell(&self, part: &Part<'_>, index: usize, outcome: &Outcome, error: Option<&HandlerError>) {
        let message = part.messages.get(index).unwrap_or_else(|| part.deliveries[index].message());
        self.handler.attempted(&Attempt { message, outcome, error, elapsed: part.elapsed });
    }
}

/// A handler that is cancelled made no attempt worth counting: what it has not settled is handed back at once.
struct HandBack<'a>(&'a [Delivery]);

impl Drop for HandBack<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Delivery::hand_back);
    }
}
