//! A delivery: one attempt at one message. It owns its place in the prefetch until it is settled.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::*};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::Subject;
use tracing::{Span, debug, info, info_span, warn};

use crate::config::EXHAUSTED;
use crate::dead_letter::store::DeadLetter;
use crate::error::Result;
use crate::fail_point;
use crate::message::{Context, Message};
use crate::observe::count;
use crate::observe::meter::{HandlerMeter, Meter, Settled};
use crate::observe::page::nanoseconds;
use crate::observe::target::{DEAD_LETTER, HANDLER};
use crate::outcome::Outcome;
use crate::settle::Settler;
use crate::settle::hook::Hook;
use crate::settle::lease::{Arrival, Ticket};
use crate::settle::verdict::{Verdict, one_line};

/// A delivery is settled once; this was the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadySettled;

/// Consequence of a failed attempt. Its text ends the line of log that reports the failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing: the handler had settled the message itself.
    Settled,
    /// This outcome, already carried out.
    Outcome(Outcome),
    /// The final word, after the last attempt: see [`Delivery::exhaust`].
    FinalWord,
}

impl fmt::Display for Follows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled => f.write_str("the handler had settled the message itself, so nothing follows"),
            Self::Outcome(Outcome::Retry { after: Some(after) }) => {
                write!(f, "the next attempt follows in {after:?}")
            }
            Self::Outcome(Outcome::Retry { after: None }) => f.write_str("the next attempt follows"),
            Self::Outcome(Outcome::DeadLetter { .. }) => f.write_str("the message becomes a dead letter"),
            Self::Outcome(Outcome::Drop { .. }) => f.write_str("the message is dropped"),
            Self::Outcome(Outcome::Ack) => f.write_str("the message is acknowledged"),
            Self::FinalWord => f.write_str("it was the last attempt"),
        }
    }
}

/// The states of a delivery.
const OPEN: u8 = 0;
const ACKED: u8 = 1;
const SETTLED: u8 = 2;
/// Acknowledged, and the server was asked whether it knows; it has not answered.
const ASKED: u8 = 3;

/// One attempt at one message. The server is told regularly that it is alive, until it is settled;
/// dropping it unsettled hands the message back.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    attempt: u64,
    ticket: Ticket,
    state: AtomicU8,
    times: Times,
    /// The method that it was routed to.
    method: OnceLock<Arc<HandlerMeter>>,
    settler: Arc<Settler>,
    /// A suspect that no handler was started for: nothing has been found out about it, so it is one when it comes again.
    is_open_suspect: AtomicBool,
    /// Runs before the message may come again.
    hook: Option<Arc<dyn Hook>>,
}

/// Moments on the meter's clock.
#[derive(Debug)]
struct Times {
    /// When the message was stored, by the clock of the server.
    stored: Option<i64>,
    /// When its handler began; 0 while it does not run.
    began: AtomicU64,
}

/// Whether the log has a line about what becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logged {
    Already,
    Not,
}

/// Turns messages into deliveries.
pub(crate) fn admit(
    settler: &Arc<Settler>,
    messages: &mut Vec<async_nats::Message>,
    deliveries: &mut Vec<Delivery>,
) {
    settler.shared.counters.received.fetch_add(messages.len() as u64, Relaxed);
    settler.shared.places.take(messages.len(), messages.iter().map(|message| message.length).sum());
    settler.shared.arrived.notify_one();
    fail_point::pass("fetched");
    let arrivals: Vec<_> = messages.iter().map(|message| Arrival::of(message.reply.as_ref())).collect();
    let tickets = settler.open_leases(&arrivals);
    let meter = settler.shared.meter();
    let again = arrivals.iter().filter(|arrival| arrival.attempt > 1).count();
    meter.arrived(arrivals.len() as u64, again as u64);
    // What is stored on the meter's clock is stored so much later on the server's.
    let offset = since_1970().saturating_sub(as_i64(meter.clock(tokio::time::Instant::now())));
    deliveries.extend(messages.drain(..).zip(tickets).zip(&arrivals).map(|((raw, ticket), arrival)| {
        Delivery {
            message: Message::new(raw),
            attempt: arrival.attempt,
            ticket,
            state: AtomicU8::new(OPEN),
            times: Times {
                stored: (arrival.stored > 0).then(|| arrival.stored.saturating_sub(offset)),
                began: AtomicU64::new(0),
            },
            method: OnceLock::new(),
            settler: settler.clone(),
            is_open_suspect: AtomicBool::new(false),
            hook: None,
        }
    }));
}

fn since_1970() -> i64 {
    as_i64(nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A reason as the log has it.
fn display_reason(reason: &str) -> String {
    if reason.is_empty() { "no reason given".into() } else { one_line(reason) }
}

fn reply_of(reply: Option<&Subject>) -> Subject {
    reply.cloned().unwrap_or_else(|| Subject::from_static("_"))
}

impl Delivery {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Number of the attempt, from 1: the deliveries that the server counts, without those that a graceful shutdown is
    /// known to have handed back before they ran.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Whether its handler may start: not where the server has waited for `ack_wait` and delivers the message again,
    /// nor where a newer delivery of it has arrived here. Ask just before the start, and drop what may not start.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.starts(tokio::time::Instant::now())
    }

    /// [`may_start`](Self::may_start) for who has just looked at the clock: `now` is the present moment.
    #[must_use]
    pub fn may_start_at(&self, now: Instant) -> bool {
        self.starts(now.into())
    }

    fn starts(&self, now: tokio::time::Instant) -> bool {
        let may_start = self.settler.may_start(now, &self.ticket);
        if may_start {
            self.begin(now);
        } else {
            self.note_returned();
        }
        may_start
    }

    fn meter(&self) -> &Meter {
        self.settler.shared.meter()
    }

    /// Takes note that the method of this name handles the message: its metrics count for it.
    pub fn note_method(&self, name: &str) {
        let _ = self.method.set(self.meter().method(name));
    }

    /// The method that handles the message, if it was routed to one.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.method.get().map(|method| method.name())
    }

    fn handler(&self) -> &Arc<HandlerMeter> {
        self.method.get().unwrap_or_else(|| self.meter().handler())
    }

    fn begin(&self, now: tokio::time::Instant) {
        let clock = self.meter().clock(now);
        self.times.began.store(clock, Relaxed);
        if self.is_open_suspect.load(Relaxed) {
            self.is_open_suspect.store(false, Relaxed);
        }
        if let (1, Some(stored)) = (self.attempt, self.times.stored) {
            // Clocks of two machines differ: what seems to come from the future has not waited.
            self.meter().queued(u64::try_from(as_i64(clock).saturating_sub(stored)).unwrap_or_default());
        }
    }

    /// The handler has ended, or its time is over.
    fn note_end(&self) {
        let began = self.times.began.swap(0, Relaxed);
        if began > 0 {
            let now = self.meter().clock(tokio::time::Instant::now());
            self.handler().ran(now.saturating_sub(began));
        }
    }

    /// Settles it as its handler's outcome has it.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn conclude(&self, outcome: Outcome) -> Result<(), AlreadySettled> {
        self.note_end();
        self.settle(outcome)
    }

    /// Takes note that its handler has run longer than its timeout.
    pub fn note_late(&self) {
        self.meter().ran_late();
    }

    /// Name of the consumer.
    pub(crate) fn consumer(&self) -> &str {
        &self.settler.shared.options.name
    }

    /// The message as a Rust handler receives it.
    pub(crate) fn message_with_context(&self, deadline: Option<Instant>) -> Message {
        let consumer = self.settler.shared.consumer.clone();
        self.message.with_context(Context::new(consumer, self.attempt, deadline))
    }

    /// The span in which its handler runs.
    pub(crate) fn span(&self) -> Span {
        info_span!(
            target: HANDLER,
            "handle",
            consumer = self.consumer(),
            stream = self.settler.shared.options.stream,
            subject = %self.message.subject(),
            sequence = self.sequence(),
            attempt = self.attempt,
        )
    }

    /// The span in which a batch of `messages` runs whose first delivery it is.
    pub(crate) fn batch_span(&self, messages: usize) -> Span {
        info_span!(
            target: HANDLER,
            "handle_batch",
            consumer = self.consumer(),
            stream = self.settler.shared.options.stream,
            messages,
        )
    }

    /// Whether somebody settled it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.load(Acquire) != OPEN
    }

    /// Whether it is acknowledged by [`ack_confirmed`](Self::ack_confirmed) and the confirmation did not come: that
    /// can be asked for again.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.state.load(Acquire) == ASKED
    }

    /// Settles the delivery.
    ///
    /// # Errors
    /// [`AlreadySettled`] when it was settled before; then nothing is sent.
    pub fn settle(&self, outcome: Outcome) -> Result<(), AlreadySettled> {
        self.settle_because(outcome, None, Logged::Not)
    }

    /// Settles it as its handler's error has it, which the log has told of; unless somebody settled it.
    pub(crate) fn settle_failed(&self, outcome: Outcome, error: String) {
        let _ = self.settle_because(outcome, Some(error), Logged::Already);
    }

    fn settle_because(
        &self,
        outcome: Outcome,
        error: Option<String>,
        logged: Logged,
    ) -> Result<(), AlreadySettled> {
        self.decide(if outcome == Outcome::Ack { ACKED } else { SETTLED })?;
        let settler = &self.settler;
        let asks_again = matches!(outcome, Outcome::Retry { .. });
        match settler.shared.options.carried_out(self.attempt, outcome) {
            Outcome::Ack => {
                self.handler().settled(Settled::Ack);
                self.close(Verdict::Ack);
            }
            _ if !self.is_held() => self.leave_to_a_newer_one(),
            Outcome::DeadLetter { reason } if asks_again => {
                warn!(
                    target: DEAD_LETTER,
                    consumer = settler.shared.options.name,
                    subject = %self.message.subject(),
                    sequence = self.sequence(),
                    attempt = self.attempt,
                    "The handler asked for another attempt beyond the limit; the message becomes a dead letter."
                );
                self.dead_letter(reason, error);
            }
            Outcome::Retry { after } => self.retry(after.unwrap_or_default()),
            Outcome::Drop { reason } => {
                count(&settler.shared.counters.dropped);
                self.handler().settled(Settled::Drop);
                if logged == Logged::Not {
                    self.log_drop(&reason);
                }
                self.close(Verdict::Term(reason));
            }
            Outcome::DeadLetter { reason } => {
                // What failed its last attempt has been told of.
                if logged == Logged::Not && reason != EXHAUSTED {
                    self.log_dead_letter(&reason);
                }
                self.dead_letter(reason, error);
            }
        }
        Ok(())
    }

    /// Acknowledges, unless the handler settled the delivery itself. It counts as a success unless the handler
    /// settled it otherwise than by an acknowledgement.
    pub fn succeed(&self) {
        self.note_end();
        let _ = self.settle(Outcome::Ack);
        if matches!(self.state.load(Acquire), ACKED | ASKED) {
            count(&self.settler.shared.counters.succeeded);
        }
    }

    /// Somebody else may have the message by now, and decides what becomes of it.
    fn leave_to_a_newer_one(&self) {
        info!(
            target: HANDLER,
            consumer = self.settler.shared.options.name,
            subject = %self.message.subject(),
            sequence = self.sequence(),
            attempt = self.attempt,
            "A message was held up for longer than ack_wait, so the server delivers it again. The result of this attempt \
             is ignored."
        );
        self.close(Verdict::Nak(Duration::ZERO)); // which is not written without a lease
    }

    fn decide(&self, state: u8) -> Result<(), AlreadySettled> {
        match self.state.compare_exchange(OPEN, state, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(_) => Err(AlreadySettled),
        }
    }

    /// Occupies a place beyond the settlement, for a handler that still runs although the delivery is settled.
    pub fn occupy(&self) -> Place {
        let bytes = self.message.size();
        self.settler.shared.places.take(1, bytes);
        self.settler.shared.late.fetch_add(1, Relaxed);
        Place { settler: self.settler.clone(), bytes }
    }

    /// Ends an attempt that failed: with the outcome that the error insists on, otherwise as the retry policy says.
    /// After the last attempt it is still open: [`exhaust`](Self::exhaust) has the final word.
    #[must_use]
    pub fn fail(&self, insisted: Option<Outcome>) -> Follows {
        self.fail_with("error", insisted)
    }

    /// [`fail`](Self::fail), and the metrics name the class of the error.
    #[must_use]
    pub fn fail_with(&self, class: &str, insisted: Option<Outcome>) -> Follows {
        let Some(outcome) = self.note_failure(class, insisted).filter(|_| !self.is_settled()) else {
            return if self.is_settled() { Follows::Settled } else { Follows::FinalWord };
        };
        match self.settle(outcome.clone()) {
            Ok(()) => Follows::Outcome(outcome),
            Err(AlreadySettled) => Follows::Settled,
        }
    }

    /// Ends an attempt that no retry can mend, as after the last attempt: [`exhaust`](Self::exhaust) has the final word.
    #[must_use]
    pub fn fail_for_good(&self, class: &str) -> Follows {
        self.count_failure(class);
        if self.is_settled() { Follows::Settled } else { Follows::FinalWord }
    }

    /// Ends an attempt whose failure says nothing about the message: it comes again after its delay, also where this was
    /// its last attempt. Returns what was decided, unless somebody had settled it.
    pub fn fail_without_evidence(&self, class: &str) -> Outcome {
        self.count_failure(class);
        let after = self.settler.shared.options.retry.patient_delay(self.attempt);
        if self.decide(SETTLED).is_ok() {
            if self.is_held() {
                self.retry(after);
            } else {
                self.leave_to_a_newer_one();
            }
        }
        Outcome::Retry { after: Some(after) }
    }

    fn count_failure(&self, class: &str) {
        self.note_end();
        self.handler().failed(class);
        count(&self.settler.shared.counters.failed);
    }

    /// Counts a failed attempt. Returns the outcome that its error insists on, otherwise that of the retry policy; `None`
    /// after the last attempt.
    pub(crate) fn note_failure(&self, class: &str, insisted: Option<Outcome>) -> Option<Outcome> {
        self.count_failure(class);
        insisted.or_else(|| self.settler.shared.options.after_failure(self.attempt))
    }

    /// Whether the retry policy allows no attempt after this one.
    pub(crate) fn is_last(&self) -> bool {
        self.attempt >= self.settler.shared.options.retry.max_attempts()
    }

    /// Whether the retry policy has allowed no attempt as late as this one.
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        self.attempt > self.settler.shared.options.retry.max_attempts()
    }

    /// The attempt, for a line of log: `attempt 2 of 4 at message 17 of orders.created`.
    #[must_use]
    pub fn describe(&self) -> String {
        let limit = self.settler.shared.options.retry.max_attempts();
        let of = if self.attempt <= limit { "of" } else { "after the limit of" };
        format!(
            "attempt {} {of} {limit} at message {} of {}",
            self.attempt,
            self.sequence(),
            self.message.subject()
        )
    }

    /// The configured final word on a message whose attempts are used up.
    #[must_use]
    pub fn final_outcome(&self) -> Outcome {
        self.settler.shared.options.final_word()
    }

    /// Gives the message its final treatment, unless somebody settled it. `error` is kept with a dead letter.
    pub fn exhaust(&self, outcome: Outcome, error: Option<String>) {
        count(&self.settler.shared.counters.exhausted);
        self.meter().exhausted();
        let _ = self.settle_because(outcome, error, Logged::Not);
    }

    /// Stores a copy in the dead-letter stream and waits until it is confirmed; the delivery stays open, to be
    /// settled as its handler likes.
    ///
    /// # Errors
    /// When the copy could not be stored.
    pub async fn copy_to_dead_letters(&self, reason: String) -> Result<()> {
        self.settler.copy_to_dead_letters(&self.letter(reason, None)).await
    }

    /// Hands the message back for somebody else, at once: no attempt was made.
    pub fn hand_back(&self) {
        self.hand_back_for(Duration::ZERO);
    }

    /// Hands the message back, to come again after the delay: no attempt was made.
    pub(crate) fn hand_back_for(&self, delay: Duration) {
        if self.decide(SETTLED).is_ok() {
            count(&self.settler.shared.counters.handed_back);
            self.handler().settled(Settled::HandedBack);
            self.close(Verdict::Nak(delay));
        }
    }

    /// Sends a heartbeat for the delivery. The engine sends one every third of `ack_wait` without being asked.
    pub fn in_progress(&self) {
        if !self.is_settled() {
            self.settler.enqueue(self.reply(), self.ticket.key, Verdict::InProgress);
        }
    }

    /// Acknowledges and waits until the server has confirmed it. Returns whether it did within `limit`; where it
    /// did not, you can ask again.
    ///
    /// # Errors
    /// [`AlreadySettled`] when it was settled otherwise, or confirmed, before; then nothing is sent.
    pub async fn ack_confirmed(&self, limit: Duration) -> Result<bool, AlreadySettled> {
        // Without a confirmation, or when nobody waits for it any more, the plain acknowledgement follows.
        let _acked = match self.decide(ASKED) {
            Ok(()) => {
                self.handler().settled(Settled::Ack);
                Some(AckOnDrop(self))
            }
            Err(AlreadySettled) if self.is_unconfirmed() => None,
            Err(settled) => return Err(settled),
        };
        let is_confirmed = self.settler.confirm(self.reply(), limit).await;
        if is_confirmed {
            self.state.store(ACKED, Release);
        }
        Ok(is_confirmed)
    }

    fn log_dead_letter(&self, reason: &str) {
        warn!(
            target: DEAD_LETTER,
            consumer = self.settler.shared.options.name,
            subject = %self.message.subject(),
            sequence = self.sequence(),
            "A message becomes a dead letter: {}",
            display_reason(reason)
        );
    }

    fn log_drop(&self, reason: &str) {
        info!(
            target: HANDLER,
            consumer = self.settler.shared.options.name,
            subject = %self.message.subject(),
            sequence = self.sequence(),
            "A message is dropped: {}",
            display_reason(reason)
        );
    }

    /// Sequence of the message in its stream.
    pub(crate) fn sequence(&self) -> u64 {
        self.message.metadata().map_or(0, |metadata| metadata.stream_sequence)
    }

    /// The last delivery that runs where nobody can tell whether the message ended its workers.
    pub(crate) fn last_to_run(&self) -> u64 {
        self.settler.shared.options.last_to_run()
    }

    /// Makes it a dead letter without running it.
    pub(crate) fn give_up(&self) {
        warn!(
            target: DEAD_LETTER,
            consumer = self.settler.shared.options.name,
            subject = %self.message.subject(),
            attempt = self.attempt,
            "Worker lost: every worker that ran this message died. It does not run again."
        );
        // Whatever the final word is: nobody has seen this message fail, so it is kept.
        self.exhaust(Outcome::DeadLetter { reason: "worker lost".into() }, None);
    }

    /// Leaves out deliveries that ran nothing.
    pub(crate) fn leave_out(&mut self, count: u64) {
        self.attempt = self.attempt.saturating_sub(count).max(1);
    }

    /// Whether it is a suspect, until its handler is started.
    pub(crate) fn set_suspect(&mut self, is_suspect: bool) {
        *self.is_open_suspect.get_mut() = is_suspect;
    }

    /// Sets the duty that is done before the message may come again.
    pub(crate) fn set_hook(&mut self, hook: Option<Arc<dyn Hook>>) {
        self.hook = hook;
    }

    /// Whether it is still ours. When its lease has run out, the server delivers the message again.
    pub(crate) fn is_held(&self) -> bool {
        self.settler.holds(self.ticket.key)
    }

    fn dead_letter(&self, reason: String, error: Option<String>) {
        self.note_unrun();
        self.settler.dead_letter(
            self.letter(reason, error),
            self.handler().clone(),
            (!self.is_open_suspect.load(Relaxed)).then_some(self.attempt),
            self.reply(),
            self.ticket.key,
            self.hook.clone(),
        );
    }

    fn letter(&self, reason: String, error: Option<String>) -> DeadLetter {
        DeadLetter {
            message: self.message.clone(),
            reason,
            error,
            raw_headers: None,
            deliveries: self.message.metadata().map_or(self.attempt, |message| message.delivered),
        }
    }

    /// Reply subject, where the server expects the settlement.
    fn reply(&self) -> Subject {
        reply_of(self.message.reply())
    }

    /// Has the message come again after the delay.
    fn retry(&self, after: Duration) {
        count(&self.settler.shared.counters.retried);
        self.handler().settled(Settled::Retry);
        let duty = || self.settler.duty_after(self.attempt, &self.message, self.ticket.key);
        self.close_with(self.hook.clone().or_else(duty), Verdict::Nak(after));
    }

    /// Notes that the message ended no worker. Of a suspect that never ran, that is not known.
    fn note_returned(&self) {
        if !self.is_open_suspect.load(Relaxed) {
            self.settler.shared.note_returned(&self.message, self.attempt);
        }
    }

    fn note_unrun(&self) {
        if let Some(hook) = self.hook.as_ref().filter(|_| self.is_open_suspect.load(Relaxed)) {
            hook.note_unrun();
        }
    }

    /// Gives back the place and has the verdict written.
    fn close(&self, verdict: Verdict) {
        self.close_with(self.hook.clone(), verdict);
    }

    fn close_with(&self, hook: Option<Arc<dyn Hook>>, verdict: Verdict) {
        let (reply, lease, size) = (self.reply(), self.ticket.key, self.message.size());
        if !verdict.is_final() && self.attempt >= self.settler.shared.last_attempt() {
            self.note_returned();
        }
        self.note_unrun();
        self.settler.close_with(hook, reply, lease, size, verdict);
    }
}

/// A place among those of a consumption, free again when it is dropped.
#[derive(Debug)]
#[must_use = "dropped, the place is free at once"]
pub struct Place {
    settler: Arc<Settler>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settler.shared.late.fetch_sub(1, Relaxed);
        self.settler.shared.places.release(self.bytes);
    }
}

struct AckOnDrop<'a>(&'a Delivery);

impl Drop for AckOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close(Verdict::Ack);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if *self.state.get_mut() == OPEN {
            debug!(
                target: HANDLER,
                consumer = self.consumer(),
                subject = %self.message.subject(),
                "A delivery was dropped unsettled and is handed back."
            );
            self.handler().settled(Settled::HandedBack);
            self.close(Verdict::Nak(self.settler.shared.options.retry.delay(self.attempt)));
        }
    }
}
