//! Blocking handlers that run longer than their timeout.
//!
//! No thread can be ended from outside. So what ends is the delivery: when its handler's time is over, it is
//! judged as if the handler had raised, and what the late handler says from then on is ignored. Its place
//! stays occupied until its thread is free again. One timer watches all threads of a consumer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nats_consumer::{Delivery, Follows};
use tokio::time::sleep_until;
use tracing::{error, warn};

use crate::deliver::attempt::Attempt;
use crate::deliver::inbox::DeliveryQueue;
use crate::host::context::Context;
use crate::host::lock::lock;

/// The logger that hears of every failed attempt.
const LOG: &str = "nats_consumer::handler";

/// The threads of one consumer.
#[derive(Debug)]
pub(crate) struct Late {
    consumer: String,
    limit: Duration,
    threads: usize,
    state: Mutex<State>,
    /// Wakes the thread that waits for `judged`.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    /// Runs by their number, so that the one that began first comes first.
    running: BTreeMap<u64, Arc<Run>>,
    late: usize,
    /// Late, and what follows: to be reported, and `failed` to be asked after the last attempt.
    judged: VecDeque<(Arc<Run>, Follows)>,
    is_closed: bool,
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
    pub(crate) fn new(consumer: String, limit: Duration, threads: usize) -> Self {
        Self { consumer, limit, threads, state: Mutex::default(), changed: Condvar::new() }
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
            "{}: its handler {said} after {:.1?}, too late to count. The thread {} is free again.",
            run.attempt.delivery().describe(),
            run.began.elapsed(),
            run.thread,
        );
    }

    /// Waits for a handler that ran late; `None` when there will be none. Must be called without the GIL.
    pub(crate) fn next_judged(&self) -> Option<(Arc<Run>, Follows)> {
        let idle = |state: &mut State| state.judged.is_empty() && !state.is_closed;
        let waiting = self.changed.wait_while(lock(&self.state), idle);
        waiting.unwrap_or_else(PoisonError::into_inner).judged.pop_front()
    }

    fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
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
        let is_stuck = !overdue.is_empty() && state.late >= self.threads;
        (overdue, is_stuck)
    }

    /// Ends the attempt as if its handler had raised.
    fn time_out(&self, run: Arc<Run>) {
        let delivery = run.attempt.delivery();
        delivery.note_late();
        let follows = delivery.fail_with("TimeoutError", None);
        lock(&self.state).judged.push_back((run, follows));
        self.changed.notify_one();
    }
}

/// Watches the threads that take from `waiting`, until it is closed.
pub(crate) async fn watch(late: Arc<Late>, waiting: Arc<DeliveryQueue>) {
    loop {
        tokio::select! {
            () = sleep_until(late.next_look().into()) => {}
            () = waiting.closed() => return late.close(),
        }
        let (overdue, is_stuck) = late.take_overdue();
        for run in overdue {
            late.time_out(run);
        }
        if is_stuck {
            error!(
                target: LOG,
                consumer = late.consumer,
                "all its threads ({}) are held by handlers that outlast handler_timeout: it handles nothing until \
                 one of them returns. Give what they wait for a timeout, or restart the worker.",
                late.threads,
            );
        }
    }
}
