//! Push: the server sends as messages come, up to `max_ack_pending` for all workers together. The worker adjusts that
//! number to its handlers' speed.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use crate::bind::durable::upsert;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::demand::Problem;
use crate::fetch::pace::Pace;
use crate::fetch::{BURST, Fetch};
use crate::handle::delivery::Delivery;
use crate::jetstream::info::{ConsumerInfo, consumer_info};
use crate::jetstream::status::{answer_flow_control, flow_control, is_status};
use crate::observe::target::CONSUMER;

/// How soon after the first arrival it is looked whether the handlers keep up.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// The server's backlog, according to the arrivals.
#[derive(Debug, Default)]
struct Arrivals {
    came: Notify,
    /// Whether messages waited behind the last one that came.
    is_backlogged: AtomicBool,
    /// The bytes of the largest message since the last look.
    largest: AtomicUsize,
}

impl Fetch<'_> {
    pub(super) async fn push(&self, subject: &str) -> Result<(), Problem> {
        let subscriber = self.subscribe(subject).await.ok_or(Problem::Closed)?;
        let arrivals = Arrivals::default();
        let pacing = async {
            // What arrives during a drain is not in hand: it would look as if nothing came.
            let _: Option<Infallible> = self.stop.run_until_cancelled(self.keep_pace(&arrivals)).await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            // What arrived before an answer of the server is taken first.
            biased;
            ended = self.take_pushes(subscriber, &arrivals) => ended,
            never = pacing => match never {},
        }
    }

    async fn subscribe(&self, subject: &str) -> Option<Subscriber> {
        let client = self.connection.client();
        let subject = subject.to_owned();
        match self.durable.deliver_group().map(str::to_owned) {
            Some(group) => client.queue_subscribe(subject, group).await.ok(),
            None => client.subscribe(subject).await.ok(),
        }
    }

    async fn take_pushes(&self, mut subscriber: Subscriber, arrivals: &Arrivals) -> Result<(), Problem> {
        let (mut arrived, mut deliveries) = (Vec::with_capacity(BURST), Vec::with_capacity(BURST));
        loop {
            let message = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.take_last_arrivals(subscriber).await;
                    return Ok(());
                }
                message = subscriber.next() => message.ok_or(Problem::Closed)?,
            };
            let mut next = Some(message);
            while let Some(message) = next {
                if !is_status(&message) {
                    arrived.push(message);
                } else if let Some(subject) = flow_control(&message) {
                    // Older durables may have flow control.
                    answer_flow_control(self.connection, subject).await;
                }
                next = if arrived.len() < BURST { subscriber.next().now_or_never().flatten() } else { None };
            }
            self.admit(&mut arrived, &mut deliveries, |last| arrivals.note(last));
        }
    }

    /// Has the server send as much as the handlers use up, if the declaration leaves that open.
    async fn keep_pace(&self, arrivals: &Arrivals) -> Infallible {
        if !self.options.is_paced() {
            return std::future::pending().await;
        }
        let (places, counters) = (&self.settler.shared.places, &self.settler.shared.counters);
        let mut pace = Pace::new(Instant::now(), self.options, places);
        let mut known = self.known.clone();
        known.mark_unchanged();
        let mut retried = counters.retried.load(Relaxed);
        let mut link = self.connection.link();
        let mut generation = link.borrow_and_update().generation;
        loop {
            let now = Instant::now();
            pace.observe(now, places, arrivals.largest.swap(0, Relaxed));
            // A retry that waits takes a place at the server.
            let has_retried = counters.retried.load(Relaxed) != retried;
            let may_wait = arrivals.is_backlogged.load(Relaxed) || has_retried || pace.misses_some(now);
            let has_reason = may_wait && self.connection.is_up();
            if pace.wants_look(now, has_reason) {
                retried = counters.retried.load(Relaxed);
                self.adjust(&mut pace).await;
            }
            let wait = pace.wait(has_reason);
            tokio::select! {
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                // A worker that holds nothing learns from it that messages wait, or that far too much is allowed.
                Ok(()) = known.changed() => {
                    let info = known.borrow_and_update().clone();
                    pace.observe(Instant::now(), places, arrivals.largest.swap(0, Relaxed));
                    self.apply(&mut pace, info).await;
                }
                () = arrivals.came.notified(), if places.held() == 0 => tokio::time::sleep(FIRST_LOOK).await,
                Ok(()) = link.changed() => {
                    let now = link.borrow_and_update().generation;
                    if now != generation {
                        generation = now;
                        pace.lose(Instant::now());
                        self.adjust(&mut pace).await;
                    }
                }
            }
        }
    }

    async fn adjust(&self, pace: &mut Pace) {
        if !pace.may_change() {
            return;
        }
        let (stream, name) = (&self.options.stream, &self.durable.name);
        match self.answered(consumer_info(self.connection, stream, name)).await {
            Ok(info) => {
                // What came before the answer is not missing.
                pace.observe(Instant::now(), &self.settler.shared.places, 0);
                self.apply(pace, info).await;
            }
            Err(error) => self.note_refusal(pace, &error),
        }
    }

    /// Has the server send as much as the pace finds right for this state of the durable.
    async fn apply(&self, pace: &mut Pace, info: ConsumerInfo) {
        let allowed = pace.look(Instant::now(), &info).filter(|_| pace.may_change());
        let Some(allowed) = allowed else { return };
        let mut config = info.config;
        config.insert("max_ack_pending".into(), allowed.into());
        let writing = upsert(self.connection, &self.options.stream, &self.durable.name, &config);
        match self.answered(writing).await {
            Ok(_) => {
                debug!(target: CONSUMER, consumer = self.options.name, "The server may send {allowed} messages at once.");
            }
            Err(error) => self.note_refusal(pace, &error),
        }
    }

    /// The answer, unless the connection is lost before: then there is none, and the next look must not wait for it.
    async fn answered<T>(&self, asking: impl Future<Output = Result<T>>) -> Result<T> {
        let mut link = self.connection.link();
        let generation = link.borrow().generation;
        tokio::select! {
            answer = asking => answer,
            _ = link.wait_for(|now| now.generation != generation) => {
                let text = "The connection was lost before the server answered.";
                Err(Error::new(ErrorKind::Disconnected, text))
            }
        }
    }

    fn note_refusal(&self, pace: &mut Pace, error: &Error) {
        pace.refused(Instant::now(), error);
        self.settler.shared.runs_short.fetch_or(pace.may_run_short(), Relaxed);
        debug!(target: CONSUMER, consumer = self.options.name, "max_ack_pending could not be changed: {error}");
    }
}

impl Arrivals {
    fn note(&self, last: &Delivery) {
        self.largest.fetch_max(last.message().payload().len(), Relaxed);
        let metadata = last.message().metadata();
        self.is_backlogged.store(metadata.is_ok_and(|metadata| metadata.pending > 0), Relaxed);
        self.came.notify_one();
    }
}
