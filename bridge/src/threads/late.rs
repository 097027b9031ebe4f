//! Blocking handlers that run longer than their timeout.
//!
//! No thread can be ended from outside. So what ends is the delivery: when its handler's time is over, it is
//! judged as if the handler had raised, and what the late handler says from then on is ignored. Its place
//! stays occupied until its thread is free again. One timer watches all handlers of a consumer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nats_consumer::{Delivery, Follows};
use tokio::time::sleep_until;
use tracing::{error, warn};

use crate::deliver::attempt::Attempt;
use crate::host::context::Context;
use crate::host::lock::lock;
use crate::threads::{ConsumerLane, pool};

/// The logger that hears of every failed attempt.
const LOG: &str = "nats_consumer::handler";

/// The handlers of one consumer.
#[derive(Debug)]
pub(crate) struct Late {
    consumer: String,
    limit: Duration,
    concurrency: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    /// Runs by their number, so that the one that began first comes first.
    running: BTreeMap<u64, Arc<Run>>,
    late: usize,
    /// Late, and what follows: to be reported, and `failed` to be asked after the last attempt.
    judged: VecDeque<(Arc<Run>, Follows)>,
}

/// A handler at work in a thread.
#[derive(Debug)]
pub(crate) struct Run {
    number: u64,
    began: Instant,
    attempt: Arc<Attempt>,
    thread: Arc<str>,
    context: Arc<Context>,
}

impl Run {
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The name of the thread that runs the handler.
    pub(crate) fn thread(&self) -> &str {
        &self.thread
    }

    /// The attempt, to be shared with the message.
    pub(crate) fn attempt(&self) -> Arc<Attempt> {
        self.attempt.clone()
    }
}

impl Late {
    pub(crate) fn new(consumer: String, limit: Duration, concurrency: usize) -> Self {
        Self { consumer, limit, concurrency, state: Mutex::default() }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// A handler begins.
    pub(crate) fn begin(&self, delivery: Delivery, thread: &Arc<str>, context: &Arc<Context>) -> Arc<Run> {
        let mut state = lock(&self.state);
        state.begun += 1;
        let run = Arc::new(Run {
            number: state.begun,
            began: Instant::now(),
            attempt: Arc::new(Attempt::new(delivery)),
            thread: thread.clone(),
            context: context.clone(),
        });
        state.running.insert(run.number, run.clone());
        run
    }

    /// The handler of the attempt has returned, and middleware around it goes on. Whether in time: then its word counts.
    pub(crate) fn end_handler(&self, attempt: &Arc<Attempt>) -> bool {
        let mut state = lock(&self.state);
        let number =
            state.running.values().find(|run| Arc::ptr_eq(&run.attempt, attempt)).map(|run| run.number);
        if let Some(number) = number {
            state.running.remove(&number);
            attempt.end();
        }
        attempt.has_ended()
    }

    /// The handler has returned. Whether in time: then its word counts.
    pub(crate) fn end(&self, run: &Run) -> bool {
        let mut state = lock(&self.state);
        if state.running.remove(&run.number).is_some() || run.attempt.has_ended() {
            return true;
        }
        state.late -= 1;
        drop(state);
        run.attempt.free_place();
        false
    }

    /// Logs the decision of a handler that `end` found late.
    pub(crate) fn ignore(&self, run: &Run, said: &str) {
        warn!(
            target: LOG,
            consumer = self.consumer,
            "The handler of {} {said} after {:.1} s, beyond handler_timeout. Its result is ignored. The thread {} is \
             free.",
            run.attempt.delivery().describe(),
            run.began.elapsed().as_secs_f64(),
            run.thread,
        );
    }

    /// A handler that ran late and was not reported.
    pub(crate) fn next_judged(&self) -> Option<(Arc<Run>, Follows)> {
        lock(&self.state).judged.pop_front()
    }

    /// When the next handler may be late. One that begins meanwhile is not late before that.
    fn next_look(&self) -> Instant {
        let state = lock(&self.state);
        state.running.first_key_value().map_or_else(Instant::now, |(_, run)| run.began) + self.limit
    }

    /// Takes the runs whose time is over; also says whether no thread is left.
    fn take_overdue(&self) -> (Vec<Arc<Run>>, bool) {
        let mut overdue = Vec::new();
        let mut state = lock(&self.state);
        while let Some(first) = state.running.first_entry()
            && first.get().began.elapsed() >= self.limit
        {
            let run = first.remove();
            run.attempt.run_late();
            overdue.push(run);
        }
        state.late += overdue.len();
        let is_stuck = !overdue.is_empty() && state.late >= self.concurrency;
        (overdue, is_stuck)
    }

    /// Ends the attempt as if its handler had raised.
    fn time_out(&self, run: Arc<Run>) {
        let delivery = run.attempt.delivery();
        delivery.note_late();
        let follows = delivery.fail_with("TimeoutError", None);
        lock(&self.state).judged.push_back((run, follows));
    }
}

/// Watches the handlers of the lane, until it is closed.
pub(crate) async fn watch(late: Arc<Late>, lane: Arc<ConsumerLane>) {
    loop {
        tokio::select! {
            () = sleep_until(late.next_look().into()) => {}
            () = lane.closed() => return,
        }
        let (overdue, is_stuck) = late.take_overdue();
        for run in overdue {
            late.time_out(run);
            pool().send(&lane);
        }
        if is_stuck {
            error!(
                target: LOG,
                consumer = late.consumer,
                "All {} threads are held by handlers that exceeded handler_timeout. No message is handled until one \
                 returns. Set timeouts on blocking calls, or restart the worker.",
                late.concurrency,
            );
        }
    }
}
