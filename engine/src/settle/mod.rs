//! An outcome becomes what the server understands, written in batches; what is not settled yet is
//! kept alive.
//!
//! Settling is synchronous and cheap: it pushes one entry to a queue. One task a consumption writes,
//! so that nothing is written on a dead link: what was settled meanwhile waits until it is up again.

mod age;
pub(crate) mod hook;
pub(crate) mod lease;
pub(crate) mod verdict;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_nats::{Client, Subject};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::dead_letter::store::{DeadLetter, DeadLetterStore};
use crate::error::{Error, ErrorKind, Result};
use crate::fail_point;
use crate::jetstream::api::API_TIMEOUT;
use crate::lock::lock;
use crate::message::Message;
use crate::observe::count;
use crate::observe::meter::{HandlerMeter, Settled};
use crate::observe::target::{CONSUMER, DEAD_LETTER};
use crate::retry::SHORTEST_PATIENCE;
use crate::settle::hook::{Hook, ReturnDuty};
use crate::settle::lease::{Arrival, Leases, Question, Ticket, Unsettled};
use crate::settle::verdict::Verdict;
use crate::shared::Shared;

/// How long settlements of a busy consumer wait for each other: one write for all of them spares the worker and
/// the server a third of their work (docs/decisions/0010).
const GATHERING: Duration = Duration::from_millis(1);

/// Largest batch of settlements.
const MANY: usize = 256;

/// A server that waits for the settlements before it sends more must not wait for the gathering.
fn many(options: &ConsumerOptions) -> usize {
    let quarter = options.max_ack_pending.and_then(|most| usize::try_from(most / 4).ok());
    quarter.map_or(MANY, |quarter| quarter.clamp(1, MANY))
}

#[derive(Debug)]
pub(crate) struct Settlement {
    reply: Subject,
    /// The lease of the delivery; it ends with everything but a heartbeat.
    lease: usize,
    verdict: Verdict,
}

/// Settles the deliveries of one consumption.
#[derive(Debug)]
pub(crate) struct Settler {
    pub(crate) shared: Arc<Shared>,
    dead_letters: DeadLetterStore,
    return_duty: OnceLock<ReturnDuty>,
    queue: Mutex<Vec<Settlement>>,
    leases: Mutex<Leases>,
    upheavals: Arc<AtomicUsize>,
    /// Deliveries that came too late to be started, since the log was told of some.
    passed_over: AtomicUsize,
    is_signalled: AtomicBool,
    work: Notify,
    many: usize,
}

impl Settler {
    /// A settler; [`write`](Self::write) must run beside it.
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let leases = Leases::new(shared.options.ack_wait, Instant::now());
        Arc::new(Self {
            dead_letters: DeadLetterStore::of(&shared.options),
            return_duty: OnceLock::new(),
            upheavals: leases.upheavals().clone(),
            leases: Mutex::new(leases),
            passed_over: AtomicUsize::new(0),
            many: many(&shared.options),
            shared,
            queue: Mutex::default(),
            is_signalled: AtomicBool::new(false),
            work: Notify::new(),
        })
    }

    /// Begins the leases of deliveries that just arrived.
    pub(crate) fn open_leases(&self, arrivals: &[Arrival]) -> Vec<Ticket> {
        lock(&self.leases).begin(Instant::now(), arrivals)
    }

    /// Whether the handler of the delivery with this lease may start.
    pub(crate) fn may_start(&self, now: Instant, ticket: &Ticket) -> bool {
        let may_start = ticket.holds(now, &self.upheavals) || lock(&self.leases).start(now, ticket.key);
        if !may_start {
            self.passed_over.fetch_add(1, Relaxed);
        }
        may_start
    }

    /// Deliveries that are not settled, the oldest first.
    pub(crate) fn unsettled(&self) -> Vec<Unsettled> {
        lock(&self.leases).unsettled(Instant::now())
    }

    /// Notes that the server is asked something now, after everything that was written.
    pub(crate) fn ask(&self) -> Question {
        lock(&self.leases).ask(Instant::now())
    }

    /// The server answered, when it had made `made` deliveries for the durable. `is_same_link` is whether the connection
    /// stayed up meanwhile.
    pub(crate) fn answered(&self, question: Question, made: Option<u64>, is_same_link: bool) {
        lock(&self.leases).answered(Instant::now(), question, made, is_same_link);
    }

    /// Notes that the server did not answer in time.
    pub(crate) fn unanswered(&self) {
        lock(&self.leases).unanswered();
    }

    /// Pause before the next question.
    pub(crate) fn pause(&self) -> Duration {
        lock(&self.leases).pause()
    }

    /// A subscription or a connection begins.
    pub(crate) fn link_begins(&self) {
        lock(&self.leases).link_begins(Instant::now());
    }

    /// Whether the delivery with this lease is still ours.
    pub(crate) fn holds(&self, lease: usize) -> bool {
        lock(&self.leases).holds(Instant::now(), lease)
    }

    /// Stores a dead letter, then ends the original: never the other way round. The lease stays
    /// meanwhile, and if the copy cannot be stored the message is handed back. `ran_at` is the attempt, or `None` of a suspect
    /// that never ran.
    pub(crate) fn dead_letter(
        self: &Arc<Self>,
        letter: DeadLetter,
        handler: Arc<HandlerMeter>,
        ran_at: Option<u64>,
        reply: Subject,
        lease: usize,
        hook: Option<Arc<dyn Hook>>,
    ) {
        let (settler, size) = (self.clone(), letter.message.size());
        self.shared.spawn(async move {
            let (verdict, hook) = match settler.copy_to_dead_letters(&letter).await {
                Ok(()) => {
                    fail_point::pass("stored");
                    handler.settled(Settled::DeadLetter);
                    (Verdict::Term(letter.reason), hook)
                }
                Err(error) => {
                    let delay = settler.shared.options.retry.longest().max(SHORTEST_PATIENCE);
                    handler.settled(Settled::Retry);
                    warn!(
                        target: DEAD_LETTER,
                        consumer = settler.shared.options.name,
                        subject = %letter.message.subject(),
                        "A dead letter could not be stored ({error}). The message is delivered again in {delay:?}."
                    );
                    let duty = ran_at.and_then(|attempt| {
                        settler.shared.note_returned(&letter.message, attempt);
                        settler.duty_after(attempt, &letter.message, lease)
                    });
                    (Verdict::Nak(delay), hook.or(duty))
                }
            };
            settler.close_with(hook, reply, lease, size, verdict);
        });
    }

    /// Has deliveries carry this duty that are to come again beyond their last attempt.
    pub(crate) fn set_return_duty(&self, duty: ReturnDuty) {
        let _ = self.return_duty.set(duty);
    }

    /// The duty before a message comes again after this attempt: beyond the last one, workers of other processes are told
    /// that it ended none.
    pub(crate) fn duty_after(&self, attempt: u64, message: &Message, lease: usize) -> Option<Arc<dyn Hook>> {
        let shared = &self.shared;
        // Nobody else reads an ephemeral durable. Without the lease, another worker may have a mark of its own there.
        let is_due = attempt >= shared.last_attempt()
            && shared.options.ephemeral.is_none()
            && !shared.is_without_marks()
            && self.holds(lease);
        if !is_due {
            return None;
        }
        self.return_duty.get()?(message, attempt)
    }

    /// Has the last verdict on a delivery written, and gives back its place.
    fn close(&self, reply: Subject, lease: usize, size: usize, verdict: Verdict) {
        self.enqueue(reply, lease, verdict);
        // Only now: when nothing is held any more, a drain has the last words written.
        self.shared.places.release(size);
    }

    /// Does the same as [`close`](Self::close) and runs the hook, before the message can come again.
    pub(crate) fn close_with(
        self: &Arc<Self>,
        hook: Option<Arc<dyn Hook>>,
        reply: Subject,
        lease: usize,
        size: usize,
        verdict: Verdict,
    ) {
        let Some(hook) = hook else {
            self.close(reply, lease, size, verdict);
            return;
        };
        let settler = self.clone();
        self.shared.spawn(async move {
            if verdict.is_final() {
                settler.close(reply, lease, size, verdict);
                hook.run(&settler).await;
            } else {
                hook.run(&settler).await;
                settler.close(reply, lease, size, verdict);
            }
        });
    }

    /// Has a place for dead letters before there are any.
    pub(crate) async fn prepare_dead_letters(&self) {
        self.dead_letters.prepare(&self.shared.connection(), &self.shared.options).await;
    }

    pub(crate) async fn copy_to_dead_letters(&self, letter: &DeadLetter) -> Result<()> {
        self.dead_letters.store(&self.shared.connection(), letter).await?;
        count(&self.shared.counters.dead_lettered);
        Ok(())
    }

    /// Ends a message that never became a delivery, and waits until the server has taken note.
    pub(crate) async fn end(&self, connection: &Connection, reply: String, reason: &str) -> Result<()> {
        let request = async_nats::Request::new().payload(Verdict::Term(reason.to_owned()).wire());
        let sending = connection.client().send_request(reply, request.timeout(Some(API_TIMEOUT)));
        match tokio::time::timeout(API_TIMEOUT, sending).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(ErrorKind::Timeout, "The server did not confirm the end of a message.")),
        }
    }

    /// Has something written; returns at once.
    pub(crate) fn enqueue(&self, reply: Subject, lease: usize, verdict: Verdict) {
        let mut queue = lock(&self.queue);
        queue.push(Settlement { reply, lease, verdict });
        let are_many = queue.len() == self.many;
        drop(queue);
        if !self.is_signalled.swap(true, AcqRel) || are_many {
            self.work.notify_one();
        }
    }

    /// Acknowledges by a request, which the server answers.
    pub(crate) async fn confirm(&self, reply: Subject, limit: Duration) -> bool {
        let client = self.shared.connection().client().clone();
        let request = async_nats::Request::new().payload(Verdict::Ack.wire()).timeout(Some(limit));
        matches!(tokio::time::timeout(limit, client.send_request(reply, request)).await, Ok(Ok(_)))
    }

    /// Writes settlements and heartbeats until `stop`, then the rest of them.
    pub(crate) async fn write(self: Arc<Self>, stop: CancellationToken) {
        let mut written = Instant::now();
        let mut beat = written;
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // Before the work, of which a busy consumer always has some.
                () = sleep_until(beat) => {
                    self.renew_leases().await;
                    self.tell_of_the_late();
                    beat = Instant::now() + lock(&self.leases).beat();
                }
                () = self.work.notified() => self.gather(written).await,
            }
            self.write_out().await;
            written = Instant::now();
        }
        // What was settled while the last batch was written.
        self.write_out().await;
        self.shared.end();
    }

    /// Waits for more to write, unless the last write was long ago.
    async fn gather(&self, written: Instant) {
        if written.elapsed() < GATHERING && lock(&self.queue).len() < self.many {
            // The next word comes when there are many.
            let _ = tokio::time::timeout(GATHERING, self.work.notified()).await;
        }
    }

    async fn write_out(&self) {
        let connection = self.shared.connection();
        if !connection.is_up() {
            return;
        }
        for Settlement { reply, verdict, .. } in self.take_settled() {
            publish(connection.client(), reply, &verdict).await;
            fail_point::pass("written");
        }
    }

    /// Takes the settlements to write now; their leases have ended.
    pub(crate) fn take_settled(&self) -> Vec<Settlement> {
        self.is_signalled.store(false, Release);
        let mut batch = std::mem::take(&mut *lock(&self.queue));
        self.end_leases(&mut batch);
        batch
    }

    fn end_leases(&self, batch: &mut Vec<Settlement>) {
        let now = Instant::now();
        let mut leases = lock(&self.leases);
        batch.retain(|settlement| {
            let Settlement { lease, verdict, .. } = settlement;
            // Without a lease somebody settled it before.
            let holds = match verdict {
                Verdict::InProgress => leases.holds(now, *lease),
                _ => leases.end(now, *lease, verdict.is_final()),
            };
            holds || !verdict.needs_lease()
        });
    }

    /// Tells the server of every delivery that has been quiet for a third of `ack_wait`.
    async fn renew_leases(&self) {
        let connection = self.shared.connection();
        if !connection.is_up() {
            return;
        }
        // First: what is settled is not kept alive.
        self.write_out().await;
        let due = lock(&self.leases).renew(Instant::now());
        for reply in due {
            publish(connection.client(), reply, &Verdict::InProgress).await;
        }
        lock(&self.leases).said();
    }

    fn tell_of_the_late(&self) {
        let count = self.passed_over.swap(0, Relaxed);
        if count > 0 {
            info!(
                target: CONSUMER,
                consumer = self.shared.options.name,
                "{count} messages were not handled because their ack_wait passed in this process. The server \
                 delivers them again."
            );
        }
    }

    /// Somebody may have made the server's patience shorter than declared; a longer one changes nothing.
    pub(crate) fn follow(&self, ack_wait: Duration) {
        lock(&self.leases).follow(ack_wait.min(self.shared.options.ack_wait));
    }

    /// Hands back the deliveries that its handlers will never settle. Later settlements of theirs are ignored.
    pub(crate) fn hand_back_the_rest(&self) {
        let is_settled = |entry: &&Settlement| entry.verdict != Verdict::InProgress;
        let settled: HashSet<usize> =
            lock(&self.queue).iter().filter(is_settled).map(|entry| entry.lease).collect();
        let rest: Vec<_> = lock(&self.leases)
            .iter()
            .filter(|(key, _)| !settled.contains(key))
            .map(|(key, reply)| (key, reply.clone()))
            .collect();
        lock(&self.leases).upset();
        for (key, reply) in rest {
            count(&self.shared.counters.handed_back);
            self.shared.meter().handler().settled(Settled::HandedBack);
            self.enqueue(reply, key, Verdict::Nak(Duration::ZERO));
        }
    }
}

/// A closed client is noticed by the fetch loop, which makes a new one; the server delivers again
/// what was not settled.
async fn publish(client: &Client, reply: Subject, verdict: &Verdict) {
    let _ = client.publish(reply, verdict.wire()).await;
}

#[cfg(test)]
mod tests {
    use crate::observe::Monitor;

    use super::*;

    #[tokio::test]
    async fn what_said_that_it_is_alive_at_the_end_of_a_drain_is_still_handed_back() {
        let connection = Connection::to_nowhere().await.unwrap();
        let options = Arc::new(ConsumerOptions::pull("orders", "billing"));
        let settler = Settler::new(Shared::new(options.clone(), connection, Monitor::alone(&options)));
        let Ticket { key: lease, .. } = settler.open_leases(&[Arrival::of(None)])[0];
        settler.enqueue("reply".into(), lease, Verdict::InProgress);
        settler.hand_back_the_rest();
        let verdicts: Vec<_> = settler.take_settled().into_iter().map(|entry| entry.verdict).collect();
        assert_eq!(verdicts, [Verdict::InProgress, Verdict::Nak(Duration::ZERO)]);
    }
}
