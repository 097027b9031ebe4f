//! A delivery: one attempt at one message. It owns its place in the prefetch until it is settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::time::Duration;

use async_nats::Subject;
use tracing::debug;

use crate::message::Message;
use crate::observe::count;
use crate::outcome::Outcome;
use crate::retry::Next;
use crate::settle::{Settler, Verdict};

/// A delivery is settled once; this was the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadySettled;

/// One attempt at one message. The server is told regularly that it is alive, until it is settled;
/// dropping it unsettled hands the message back.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    attempt: u64,
    lease: usize,
    is_open: AtomicBool,
    settler: Arc<Settler>,
}

impl Delivery {
    pub(crate) fn new(message: Message, attempt: u64, lease: usize, settler: Arc<Settler>) -> Self {
        Self { message, attempt, lease, is_open: AtomicBool::new(true), settler }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The how-manieth delivery of the message this is, from 1: the server's count.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Whether somebody settled it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_open.load(Acquire)
    }

    /// Settles the delivery.
    ///
    /// # Errors
    /// [`AlreadySettled`] when it was settled before; then nothing is sent.
    pub fn settle(&self, outcome: Outcome) -> Result<(), AlreadySettled> {
        self.settle_because(outcome, None)
    }

    fn settle_because(&self, outcome: Outcome, error: Option<String>) -> Result<(), AlreadySettled> {
        if !self.is_open.swap(false, AcqRel) {
            return Err(AlreadySettled);
        }
        let settler = &self.settler;
        match outcome {
            Outcome::Ack => self.close(Verdict::Ack),
            Outcome::Retry { after } => {
                count(&settler.counters.retried);
                self.close(Verdict::Nak(after.unwrap_or_else(|| settler.retry().delay(self.attempt))));
            }
            Outcome::Drop { reason } => {
                count(&settler.counters.dropped);
                self.close(Verdict::Term(reason));
            }
            Outcome::DeadLetter { reason } => settler.bury(self, reason, error),
        }
        Ok(())
    }

    /// Notes that the handler succeeded, and settles the delivery unless the handler did so itself.
    pub fn succeed(&self, outcome: Outcome) {
        count(&self.settler.counters.succeeded);
        let _ = self.settle(outcome);
    }

    /// Notes that this attempt failed. Returns what the retry policy makes of it, or `None` after the
    /// last attempt: then [`exhaust`](Self::exhaust) has the final word.
    #[must_use]
    pub fn fail(&self) -> Option<Outcome> {
        count(&self.settler.counters.failed);
        match self.settler.retry().next(self.attempt) {
            Next::Retry(after) => Some(Outcome::Retry { after: Some(after) }),
            Next::Exhausted => None,
            // Only a message that is handed back for ever comes here: see `Settler::admit`.
            Next::Beyond => Some(Outcome::Retry { after: Some(self.settler.retry().longest()) }),
        }
    }

    /// The configured final word on a message whose attempts are used up.
    #[must_use]
    pub fn final_outcome(&self) -> Outcome {
        self.settler.final_outcome("attempts exhausted")
    }

    /// Gives the message its final treatment, unless somebody settled it. `error` is kept with a dead letter.
    pub fn exhaust(&self, outcome: Outcome, error: Option<String>) {
        count(&self.settler.counters.exhausted);
        let _ = self.settle_because(outcome, error);
    }

    /// Hands the message back for somebody else, at once: no attempt was made.
    pub fn hand_back(&self) {
        if self.is_open.swap(false, AcqRel) {
            count(&self.settler.counters.handed_back);
            self.close(Verdict::Nak(Duration::ZERO));
        }
    }

    /// Tells the server that the delivery is alive; the engine does so by itself every third of `ack_wait`.
    pub fn in_progress(&self) {
        if !self.is_settled() {
            self.settler.enqueue(self.reply(), None, Verdict::InProgress);
        }
    }

    /// Acknowledges and waits until the server has confirmed it. Returns whether it did within `limit`.
    ///
    /// # Errors
    /// [`AlreadySettled`] when it was settled before; then nothing is sent.
    pub async fn ack_confirmed(&self, limit: Duration) -> Result<bool, AlreadySettled> {
        if !self.is_open.swap(false, AcqRel) {
            return Err(AlreadySettled);
        }
        let confirmed = self.settler.confirm(self.reply(), limit).await;
        // Without a confirmation the plain acknowledgement is still worth a try.
        self.close(Verdict::Ack);
        Ok(confirmed)
    }

    /// Where the server waits for the settlement.
    pub(crate) fn reply(&self) -> Subject {
        self.message.reply().cloned().unwrap_or_else(|| Subject::from_static("_"))
    }

    /// Gives back the place and has the verdict written.
    pub(crate) fn close(&self, verdict: Verdict) {
        self.settler.places.release(self.message.size());
        self.settler.enqueue(self.reply(), Some(self.lease), verdict);
    }

    pub(crate) fn lease(&self) -> usize {
        self.lease
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if *self.is_open.get_mut() {
            debug!(subject = %self.message.subject(), "a delivery was dropped unsettled and is handed back");
            self.close(Verdict::Nak(self.settler.retry().delay(self.attempt)));
        }
    }
}
