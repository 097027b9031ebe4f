//! Asks the server for the state of the durable, again and again; while it is idle, mostly only whether it is there.
//!
//! The answers feed the inspection. They also show how old deliveries can be, and which heartbeats have arrived.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::bind::durable::Durable;
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::error::{Error, ErrorKind};
use crate::fetch::demand::Problem;
use crate::jetstream::info::{ConsumerInfo, consumer_info};
use crate::jetstream::sign::is_confirmed;
use crate::jitter::jittered;
use crate::observe::target::CONSUMER;
use crate::settle::Settler;
use crate::watch::idle::Idle;
use crate::watch::inspect::Switch;

/// How long the leader of an idle durable may take to confirm that it is there.
const SIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the state of one durable.
pub(crate) struct Asker {
    options: Arc<ConsumerOptions>,
    settler: Arc<Settler>,
    is_refused: Switch,
    /// The last look at the metrics before the last question.
    looked: u64,
}

impl Asker {
    pub(crate) fn new(options: Arc<ConsumerOptions>, settler: Arc<Settler>) -> Self {
        Self { options, settler, is_refused: Switch::default(), looked: 0 }
    }

    /// Passes each answer to `known`; returns when the durable or the connection is gone.
    pub(crate) async fn run(
        &mut self,
        connection: &Connection,
        durable: &Durable,
        known: &watch::Sender<ConsumerInfo>,
    ) -> Problem {
        let mut link = connection.link();
        loop {
            let generation = link.borrow_and_update().generation;
            tokio::select! {
                biased;
                reconnected = link.wait_for(|link| link.generation != generation) => {
                    if reconnected.is_err() {
                        return Problem::Closed;
                    }
                    self.settler.link_begins();
                }
                problem = self.ask_over_one_link(connection, durable, generation, known) => return problem,
            }
        }
    }

    async fn ask_over_one_link(
        &mut self,
        connection: &Connection,
        durable: &Durable,
        generation: u64,
        known: &watch::Sender<ConsumerInfo>,
    ) -> Problem {
        let mut link = connection.link();
        let mut idle = Idle::default();
        loop {
            let _ = link.wait_for(|link| link.is_up).await;
            let received = self.settler.shared.counters.received.load(Relaxed);
            let question = self.settler.ask();
            if !idle.wants_state(Instant::now(), received, self.needs_state()) {
                if !is_confirmed(connection, &self.options.stream, &durable.name, SIGN_TIMEOUT).await {
                    idle.end();
                    continue;
                }
                self.settler.answered(question, None, is_same_link(connection, generation));
                self.rest().await;
                continue;
            }
            let answer = consumer_info(connection, &self.options.stream, &durable.name).await;
            let made = answer.as_ref().ok().map(|info| info.delivered.consumer_seq);
            match answer.as_ref().map_err(Error::kind) {
                Err(ErrorKind::Timeout) => self.settler.unanswered(),
                Err(ErrorKind::Disconnected | ErrorKind::Closed) => {}
                _ => self.settler.answered(question, made, is_same_link(connection, generation)),
            }
            match answer {
                Ok(info) => {
                    self.is_refused.look(false);
                    idle.note(Instant::now(), &info, received);
                    known.send_replace(info);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::StreamNotFound) => {
                    return Problem::Gone;
                }
                Err(error) => self.warn_if_refused(&error),
            }
            sleep(jittered(self.settler.pause())).await;
        }
    }

    /// Whether the state is of interest though nothing seems to happen.
    fn needs_state(&mut self) -> bool {
        let shared = &self.settler.shared;
        let looked = shared.meter().last_look();
        let is_looked_at = std::mem::replace(&mut self.looked, looked) != looked;
        is_looked_at || shared.places.held() > 0 || *shared.suspended.borrow()
    }

    /// Waits until the next question is due, or a message arrives: its handler needs to know what was changed meanwhile.
    async fn rest(&self) {
        tokio::select! {
            () = sleep(jittered(self.settler.pause())) => {}
            () = self.settler.shared.arrived.notified() => {}
        }
    }

    /// A pull request gets the error itself; a push consumer whose account may not use JetStream any more is just silent.
    fn warn_if_refused(&mut self, error: &Error) {
        let is_refused = matches!(error.kind(), ErrorKind::Api { .. });
        if self.is_refused.look(is_refused) == Some(true) {
            warn!(target: CONSUMER, consumer = self.options.name, "The durable cannot be inspected: {error}");
        }
    }
}

fn is_same_link(connection: &Connection, generation: u64) -> bool {
    connection.link().borrow().generation == generation
}
