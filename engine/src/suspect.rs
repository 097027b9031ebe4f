//! Suspects: messages whose attempts are used up, and yet they came again.
//!
//! Each may have ended its worker, or may only have been near one that ended: handed back at a drain, in the
//! same prefetch, on a lost connection. So it runs once more, under a mark and with nothing beside it. Where
//! such a run ends the worker, the mark tells the next one whose fault it was (docs/decisions/0014).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Exhausted;
use crate::delivery::{Delivery, HEADROOM};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Gate;
use crate::mark::{Found, Mark, Progress, may_pass};
use crate::message::Message;

/// How long all others wait for a suspect: until what runs has ended, and then until it has ended itself.
/// Beyond it they go on, and the suspect runs in company.
const QUIET_AT_MOST: Duration = Duration::from_secs(10);

/// Workers that a suspect may lose in company: there it may have been another one's fault.
const LOSSES: u64 = 3;

/// How long no mark is tried after one could not be kept.
const WITHOUT_MARKS: Duration = Duration::from_secs(600);

/// The suspects of one consumption.
#[derive(Debug)]
pub(crate) struct Suspects {
    gate: Arc<Gate>,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// The marks of those that run.
    marks: Mutex<Vec<Weak<Mark>>>,
    without_marks_until: Mutex<Option<Instant>>,
}

/// The suspects that do not run. They stay here whatever is found out about them, so that a drain has them all.
#[derive(Debug, Default)]
struct Waiting {
    deliveries: HashMap<u64, Delivery>,
    /// Whose turn it is.
    queue: VecDeque<Suspect>,
    known: u64,
}

/// A suspect by its number.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    number: u64,
    /// How many workers were lost with it in company, where that was found out.
    losses: Option<u64>,
}

/// The mark that another worker left behind, or still keeps.
#[derive(Debug)]
struct Left {
    number: u64,
    mark: Mark,
    found: Found,
}

impl Suspects {
    pub(crate) fn new(gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            gate,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            marks: Mutex::default(),
            without_marks_until: Mutex::default(),
        })
    }

    /// Takes the suspects out of what arrived; the rest goes to the handlers.
    pub(crate) fn put(&self, deliveries: &mut Vec<Delivery>) {
        let options = self.gate.settler.options();
        // Where the final word is NAK, coming again is ordinary.
        let limit = if options.exhausted == Exhausted::Nak { u64::MAX } else { options.retry.max_attempts() };
        deliveries
            .extract_if(.., |delivery| delivery.attempt() > limit)
            .for_each(|delivery| self.keep(delivery));
        if !deliveries.is_empty() {
            self.gate.put(deliveries);
        }
    }

    fn keep(&self, delivery: Delivery) {
        self.gate.keep(1);
        let mut waiting = lock(&self.waiting);
        let number = waiting.known;
        waiting.known += 1;
        waiting.deliveries.insert(number, delivery);
        waiting.queue.push_back(Suspect { number, losses: None });
        self.arrived.notify_one();
    }

    /// The suspect, for whoever settles it or gives it to the handlers; `None` when it was recalled.
    fn take(&self, number: u64) -> Option<Delivery> {
        let delivery = lock(&self.waiting).deliveries.remove(&number)?;
        self.gate.let_go(1);
        Some(delivery)
    }

    /// Gives back what no handler has started.
    pub(crate) fn recall(&self) -> Vec<Delivery> {
        let recalled = std::mem::take(&mut lock(&self.waiting).deliveries);
        self.gate.let_go(recalled.len());
        recalled.into_values().chain(self.gate.recall()).collect()
    }

    /// Looks at one suspect after the other until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut watching = JoinSet::new();
        let looking = async {
            loop {
                let next = lock(&self.waiting).queue.pop_front();
                let Some(suspect) = next else {
                    self.arrived.notified().await;
                    continue;
                };
                while watching.try_join_next().is_some() {}
                if let Some(left) = self.look_at(suspect).await {
                    watching.spawn(self.gate.settler.watched(self.clone().watch(left)));
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(looking).await;
    }

    /// Runs the suspect, unless another worker's mark is found.
    async fn look_at(&self, Suspect { number, losses }: Suspect) -> Option<Left> {
        let message = lock(&self.waiting).deliveries.get(&number)?.message().clone();
        if self.is_without_marks() {
            self.take(number).into_iter().for_each(|delivery| self.run_unmarked(delivery));
            return None;
        }
        match self.find(&message, losses).await {
            Ok((mark, Some(found))) => return Some(Left { number, mark, found }),
            Ok((mark, None)) => self.run_alone(number, Arc::new(mark)).await,
            Err(error) if error.kind() == ErrorKind::Disconnected => self.put_off(number),
            Err(error) => {
                self.do_without_marks(&error);
                self.take(number).into_iter().for_each(|delivery| self.run_unmarked(delivery));
            }
        }
        None
    }

    /// The suspect's mark, and how another worker left it; `losses` says that this is known.
    async fn find(&self, message: &Message, losses: Option<u64>) -> Result<(Mark, Option<Found>)> {
        let mark = Mark::of(message, losses.unwrap_or_default())?;
        if losses.is_some() {
            return Ok((mark, None));
        }
        let found = mark.find(&self.gate.settler.connection()).await?;
        // A process that is here is not lost.
        let left = found.filter(|found| !found.is_own && found.progress != Progress::Ended);
        Ok((mark, left))
    }

    async fn run_alone(&self, number: u64, mark: Arc<Mark>) {
        let settler = &self.gate.settler;
        let shut = self.gate.shut_all().await;
        let is_alone = timeout(QUIET_AT_MOST, shut.quiet()).await.is_ok();
        let Some(mut delivery) = self.take(number) else { return };
        let progress = if is_alone { Progress::Alone } else { Progress::Accompanied };
        // Before it is written: whatever happens from here on, it is ended before the message comes again.
        delivery.put_under(Some(mark.clone()));
        if let Err(error) = mark.begin(&settler.connection(), progress).await {
            drop(shut);
            self.do_without_marks(&error);
            if may_pass(&error) {
                // It may be stored, and must be ended before the message runs.
                delivery.hand_back_for(settler.options().ack_wait);
            } else {
                delivery.put_under(None);
                self.run_unmarked(delivery);
            }
            return;
        }
        info!(
            consumer = settler.options().name,
            subject = %delivery.message().subject(),
            attempt = delivery.attempt(),
            "a message came again after its last attempt: it runs once more, alone"
        );
        self.remember(&mark);
        self.gate.let_in(delivery);
        if is_alone && timeout(QUIET_AT_MOST, self.gate.quiet()).await.is_err() {
            mark.renew(&settler.connection(), Some(Progress::Accompanied)).await;
        }
    }

    /// The mark of what runs for long is written again and again, which shows that its worker is alive.
    fn remember(&self, mark: &Arc<Mark>) {
        let mut marks = lock(&self.marks);
        marks.retain(|mark| mark.strong_count() > 0);
        marks.push(Arc::downgrade(mark));
        let (settler, mark) = (self.gate.settler.clone(), Arc::downgrade(mark));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(settler.options().ack_wait / 3).await;
                let Some(mark) = mark.upgrade() else { return };
                if settler.is_over() || mark.renew(&settler.connection(), None).await {
                    return;
                }
            }
        });
    }

    /// Ends the marks of all that run: they will be handed back, and their worker is not lost.
    pub(crate) async fn end_marks(&self) {
        let marks: Vec<_> = lock(&self.marks).iter().filter_map(Weak::upgrade).collect();
        for mark in marks {
            self.gate.settler.end_mark(&mark).await;
        }
    }

    /// Waits whether the worker whose mark was found is alive, only out of the server's reach for a while: then
    /// it writes its mark again, or ends it.
    async fn watch(self: Arc<Self>, Left { number, mark, found }: Left) {
        let settler = &self.gate.settler;
        tokio::time::sleep(settler.options().ack_wait).await;
        let is_lost = match mark.find(&settler.connection()).await {
            Ok(Some(now)) => now.sequence == found.sequence,
            _ => false,
        };
        let losses = found.losses + 1;
        if !is_lost {
            self.put_off(number);
        } else if found.progress == Progress::Accompanied && losses < LOSSES {
            lock(&self.waiting).queue.push_back(Suspect { number, losses: Some(losses) });
            self.arrived.notify_one();
        } else if let Some(delivery) = self.take(number) {
            delivery.give_up();
        }
    }

    /// Hands it back for a while.
    fn put_off(&self, number: u64) {
        if let Some(delivery) = self.take(number) {
            delivery.hand_back_for(self.gate.settler.options().ack_wait);
        }
    }

    fn is_without_marks(&self) -> bool {
        lock(&self.without_marks_until).is_some_and(|until| Instant::now() < until)
    }

    fn do_without_marks(&self, error: &Error) {
        *lock(&self.without_marks_until) = Some(Instant::now() + WITHOUT_MARKS);
        warn!(
            consumer = self.gate.settler.options().name,
            "the marks of messages that came again after their last attempt cannot be kept: {error} For the next \
             ten minutes such messages run beside others, up to {HEADROOM} times more, and are given up then, though \
             they may not be what ended their workers."
        );
    }

    fn run_unmarked(&self, delivery: Delivery) {
        if delivery.attempt() > delivery.last_to_run() {
            delivery.give_up();
        } else {
            self.gate.put(&mut vec![delivery]);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
