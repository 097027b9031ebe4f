//! Asks the server for the state of the durable, again and again.
//!
//! The answers feed the inspection. They also show how old deliveries can be, and which heartbeats have arrived.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::bind::durable::Durable;
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::error::{Error, ErrorKind};
use crate::fetch::demand::Problem;
use crate::jetstream::info::{ConsumerInfo, consumer_info};
use crate::jitter::jittered;
use crate::observe::target::CONSUMER;
use crate::settle::Settler;
use crate::watch::inspect::Switch;

/// Asks for the state of one durable.
pub(crate) struct Asker {
    options: Arc<ConsumerOptions>,
    settler: Arc<Settler>,
    is_refused: Switch,
}

impl Asker {
    pub(crate) fn new(options: Arc<ConsumerOptions>, settler: Arc<Settler>) -> Self {
        Self { options, settler, is_refused: Switch::default() }
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
        loop {
            let _ = link.wait_for(|link| link.is_up).await;
            let question = self.settler.ask();
            let answer = consumer_info(connection, &self.options.stream, &durable.name).await;
            let is_same_link = connection.link().borrow().generation == generation;
            let made = answer.as_ref().ok().map(|info| info.delivered.consumer_seq);
            match answer.as_ref().map_err(Error::kind) {
                Err(ErrorKind::Timeout) => self.settler.unanswered(),
                Err(ErrorKind::Disconnected | ErrorKind::Closed) => {}
                _ => self.settler.answered(question, made, is_same_link),
            }
            match answer {
                Ok(info) => {
                    self.is_refused.look(false);
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

    /// A pull request gets the error itself; a push consumer whose account may not use JetStream any more is just silent.
    fn warn_if_refused(&mut self, error: &Error) {
        let is_refused = matches!(error.kind(), ErrorKind::Api { .. });
        if self.is_refused.look(is_refused) == Some(true) {
            warn!(target: CONSUMER, consumer = self.options.name, "The durable cannot be inspected: {error}");
        }
    }
}
