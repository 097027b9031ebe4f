//! Suspects: messages whose attempts are used up, and yet they came again.
//!
//! Each may have ended its worker, or may only have been near one that ended: handed back at a drain, in the
//! same prefetch, on a lost connection. So it runs once more, under a mark: alone if it came alone, in a group if
//! several came. Where such a run ends the worker, the marks tell the next one who ran, and smaller groups find the
//! guilty one (docs/decisions/0014).

pub(crate) mod gate;
mod handed_back;
pub(crate) mod mark;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::HEADROOM;
use crate::error::{Error, Result};
use crate::handle::delivery::Delivery;
use crate::lock::lock;
use crate::message::Message;
use crate::observe::target::CONSUMER;
use crate::settle::Settler;
use crate::settle::hook::Hook;
use crate::shared::Shared;
use crate::suspect::gate::{Gate, QUIET_TIMEOUT};
use crate::suspect::handed_back::HandedBack;
use crate::suspect::mark::{Mark, MarkState, Progress, longest_silence, may_pass};

/// Workers that a suspect may lose in company: there it may have been another one's fault.
const LOSSES: u64 = 3;

/// Suspects that run under marks of one group.
const LARGEST_GROUP: usize = 64;

/// The share of a group that runs together after its worker was lost: two more lost workers lead from the largest
/// group to one message.
const GROUP_DIVISOR: usize = 8;

/// Tries in a row to keep a mark. The pauses between them double, so that they last half a minute together: longer
/// than an election, or the restart of a server.
const MARK_TRIES: u32 = 6;
const FIRST_MARK_PAUSE: Duration = Duration::from_secs(1);

/// How long no mark is tried after one could not be kept.
const WITHOUT_MARKS: Duration = Duration::from_secs(600);

/// The suspects of one consumption.
#[derive(Debug)]
pub(crate) struct Suspects {
    settler: Arc<Settler>,
    gate: Arc<Gate>,
    handed_back: HandedBack,
    waiting: Mutex<Waitlist>,
    arrived: Notify,
    /// The marks of those that run.
    marks: Mutex<Vec<Weak<Mark>>>,
    /// The group that runs after a larger one was lost, and when the next such group may run beside it.
    regrouped: Mutex<Option<(Weak<Group>, Instant)>>,
}

/// The suspects that do not run. They stay here whatever is found out about them, so that a drain has them all.
#[derive(Debug, Default)]
struct Waitlist {
    deliveries: HashMap<u64, Waiting>,
    /// Whose turn it is.
    queue: VecDeque<Suspect>,
    known: u64,
}

/// A suspect that does not run.
#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    /// Its mark, which may have been written.
    tried: Option<Arc<Mark>>,
}

/// A suspect by its number.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    number: u64,
    /// How many workers were lost with it in company, where that was found out.
    losses: Option<u64>,
    /// Number of suspects that it may run with.
    group: usize,
}

/// Wakes the suspects that wait for their turn when the last of the group has been settled.
#[derive(Debug)]
struct Group(Weak<Suspects>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(suspects) = self.0.upgrade() {
            suspects.arrived.notify_one();
        }
    }
}

/// Suspects that run together.
struct Members {
    count: usize,
    group: Arc<Group>,
}

/// The mark that another worker left behind, or still keeps.
#[derive(Debug)]
struct FoundMark {
    number: u64,
    mark: Arc<Mark>,
    state: MarkState,
}

/// A suspect whose mark is being written. It waits again where that fails, or where a drain cuts it short.
struct Marking<'a> {
    suspects: &'a Suspects,
    number: u64,
    mark: &'a Arc<Mark>,
    delivery: Option<Delivery>,
}

impl Marking<'_> {
    fn done(mut self) -> Option<Delivery> {
        self.delivery.take()
    }
}

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            let suspect = Waiting { delivery, tried: Some(self.mark.clone()) };
            self.suspects.insert(&mut lock(&self.suspects.waiting), self.number, suspect);
        }
    }
}

/// The tries in a row that failed although the server could be reached.
#[derive(Debug, Default)]
struct FailedTries(u32);

impl FailedTries {
    /// The pause before the next try; `None` after the last one.
    fn pause(&mut self, is_up: bool) -> Option<Duration> {
        self.0 += u32::from(is_up);
        (self.0 < MARK_TRIES).then(|| FIRST_MARK_PAUSE * (1 << self.0.saturating_sub(1)))
    }
}

impl Suspects {
    pub(crate) fn new(settler: Arc<Settler>, gate: Arc<Gate>) -> Arc<Self> {
        settler.set_return_duty(mark::return_duty);
        Arc::new(Self {
            settler,
            gate,
            handed_back: HandedBack::default(),
            waiting: Mutex::default(),
            arrived: Notify::new(),
            marks: Mutex::default(),
            regrouped: Mutex::default(),
        })
    }

    /// Gives what arrived to the handlers. Deliveries whose number says that they are the last attempt, or one too many,
    /// are counted first.
    pub(crate) fn put(self: &Arc<Self>, deliveries: &mut Vec<Delivery>) {
        let last = self.settler.shared.last_attempt();
        let doubtful = |delivery: &mut Delivery| delivery.attempt() >= last && delivery.attempt() > 1;
        let doubtful: Vec<_> = deliveries.extract_if(.., doubtful).collect();
        if !doubtful.is_empty() {
            self.clone().count(doubtful);
        }
        if !deliveries.is_empty() {
            self.gate.put(deliveries);
        }
    }

    /// Leaves out deliveries that ran nothing. Those that are still beyond the last attempt are suspects.
    fn count(self: Arc<Self>, mut deliveries: Vec<Delivery>) {
        self.gate.keep(deliveries.len());
        let shared = self.settler.shared.clone();
        shared.clone().spawn(async move {
            let reading = self.handed_back.until_now(&shared);
            let read = shared.consumer.stop.run_until_cancelled(reading).await;
            let Some(unrun) = read.filter(|_| !*shared.suspended.borrow()) else {
                self.gate.let_go(deliveries.len());
                self.hand_back(deliveries).await;
                return;
            };
            for delivery in &mut deliveries {
                let count = delivery.message().metadata().map_or(0, |message| unrun.of(&message));
                delivery.leave_out(count);
            }
            self.gate.let_go(deliveries.len());
            // A message that this process itself handed back has ended no worker. What another one handed back shows in its
            // mark.
            let is_suspect = |delivery: &mut Delivery| {
                delivery.attempt() > shared.last_attempt()
                    && !shared.forget_returned(delivery.message(), delivery.attempt())
            };
            self.keep(deliveries.extract_if(.., is_suspect));
            self.gate.put(&mut deliveries);
        });
    }

    /// Hands back what no handler has started, and notes that it ran nothing.
    pub(crate) async fn hand_back(&self, deliveries: Vec<Delivery>) {
        let shared = &self.settler.shared;
        // Nobody reads a record of an ephemeral durable.
        let is_read = shared.options.ephemeral.is_none() && shared.last_attempt() < u64::MAX;
        if is_read && !deliveries.is_empty() {
            self.handed_back.note(shared, &deliveries).await;
        }
        deliveries.iter().for_each(Delivery::hand_back);
    }

    fn keep(&self, suspects: impl Iterator<Item = Delivery>) {
        let mut waiting = lock(&self.waiting);
        for mut delivery in suspects {
            delivery.set_suspect(true);
            let number = waiting.known;
            waiting.known += 1;
            waiting.queue.push_back(Suspect { number, losses: None, group: LARGEST_GROUP });
            self.insert(&mut waiting, number, Waiting { delivery, tried: None });
        }
        self.arrived.notify_one();
    }

    fn insert(&self, waiting: &mut Waitlist, number: u64, suspect: Waiting) {
        self.gate.keep(1);
        waiting.deliveries.insert(number, suspect);
    }

    /// The suspect, to settle it or to give it to the handlers; `None` when it was recalled.
    fn take(&self, number: u64) -> Option<Delivery> {
        let Waiting { delivery, .. } = lock(&self.waiting).deliveries.remove(&number)?;
        self.gate.let_go(1);
        Some(delivery)
    }

    /// Gives back what no handler has started.
    pub(crate) fn recall(&self) -> Vec<Delivery> {
        let mut waiting = lock(&self.waiting);
        waiting.queue.clear();
        let recalled = std::mem::take(&mut waiting.deliveries);
        drop(waiting);
        self.gate.let_go(recalled.len());
        recalled.into_values().map(|suspect| suspect.delivery).chain(self.gate.recall()).collect()
    }

    /// Tells the handlers that deliveries come again after a recall.
    pub(crate) fn reopen(&self) {
        self.gate.reopen();
    }

    /// Looks at the suspects, group by group, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut watching = JoinSet::new();
        let looking = async {
            let mut failed = FailedTries::default();
            loop {
                let group = self.next_group();
                if group.is_empty() {
                    failed = FailedTries::default();
                    self.next_turn().await;
                    continue;
                }
                while watching.try_join_next().is_some() {}
                let members = self.members(&group);
                let looks = group.iter().map(|suspect| self.look_at(*suspect, &members));
                let mut errors = Vec::new();
                for (suspect, looked) in group.iter().zip(join_all(looks).await) {
                    match looked {
                        Ok(None) => {}
                        Ok(Some(left)) => {
                            watching.spawn(self.settler.shared.watched(self.clone().watch(left)));
                        }
                        Err(error) => errors.push((*suspect, error)),
                    }
                }
                match errors.first() {
                    None => failed = FailedTries::default(),
                    Some((_, error)) => self.try_again(&errors, error, &mut failed).await,
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(looking).await;
        self.tell_of_company();
    }

    /// The gates of the process have opened while a suspect runs alone.
    fn tell_of_company(&self) {
        for mark in self.living_marks() {
            let shared = self.settler.shared.clone();
            self.settler.shared.spawn(async move {
                mark.renew(&shared, Some(Progress::Accompanied)).await;
            });
        }
    }

    /// The suspects that may run together now.
    fn next_group(&self) -> Vec<Suspect> {
        let mut waiting = lock(&self.waiting);
        let is_held_up = self.regrouped_until().is_some();
        let has_to_wait = |suspect: &Suspect| is_held_up && (2..LARGEST_GROUP).contains(&suspect.group);
        let Some(first) = waiting.queue.iter().find(|suspect| !has_to_wait(suspect)).copied() else {
            return Vec::new();
        };
        let mut group = Vec::new();
        waiting.queue.retain(|suspect| {
            let joins = suspect.group == first.group && group.len() < first.group;
            if joins {
                group.push(*suspect);
            }
            !joins
        });
        group
    }

    /// Until when groups wait for one that runs after a larger one was lost, if there is one.
    fn regrouped_until(&self) -> Option<Instant> {
        let regrouped = lock(&self.regrouped);
        let (group, until) = regrouped.as_ref()?;
        (group.strong_count() > 0 && Instant::now() < *until).then_some(*until)
    }

    /// Waits until there may be suspects that may run.
    async fn next_turn(&self) {
        match self.regrouped_until() {
            Some(until) => drop(timeout_at(until, self.arrived.notified()).await),
            None => self.arrived.notified().await,
        }
    }

    /// Makes the part that the marks of a group share.
    fn members(self: &Arc<Self>, group: &[Suspect]) -> Members {
        let members = Members { count: group.len(), group: Arc::new(Group(Arc::downgrade(self))) };
        if group[0].group < LARGEST_GROUP {
            let until = Instant::now() + QUIET_TIMEOUT;
            *lock(&self.regrouped) = Some((Arc::downgrade(&members.group), until));
        }
        members
    }

    /// Puts the suspects to the front again. They stay here meanwhile: each time they were handed back would count as
    /// a delivery.
    async fn try_again(&self, errors: &[(Suspect, Error)], error: &Error, failed: &mut FailedTries) {
        self.put_first(errors);
        let shared = &self.settler.shared;
        let pause = may_pass(error).then(|| failed.pause(shared.connection().is_up())).flatten();
        let Some(pause) = pause else {
            do_without_marks(shared, error);
            return;
        };
        info!(
            target: CONSUMER,
            consumer = shared.options.name,
            "A message that came again after its last attempt has no mark yet: {error} Trying again in {pause:?}."
        );
        tokio::time::sleep(pause).await;
    }

    fn put_first(&self, errors: &[(Suspect, Error)]) {
        let mut waiting = lock(&self.waiting);
        errors.iter().rev().for_each(|(suspect, _)| waiting.queue.push_front(*suspect));
    }

    /// Runs the suspect, unless another worker's mark is found.
    async fn look_at(&self, suspect: Suspect, members: &Members) -> Result<Option<FoundMark>> {
        let Suspect { number, losses, .. } = suspect;
        let Some((message, attempt, tried)) = self.held(number) else { return Ok(None) };
        if self.settler.shared.is_without_marks() {
            self.take(number).into_iter().for_each(|delivery| self.run_unmarked(delivery));
            return Ok(None);
        }
        let with_losses = |losses| Mark::of(&message, attempt, losses, members.count).map(Arc::new);
        let mut mark = match &tried {
            Some(mark) => mark.clone(),
            None => with_losses(losses.unwrap_or_default())?,
        };
        if losses.is_none()
            && let Some(state) = mark.find(&self.settler.shared.connection()).await?
        {
            if state.is_returned {
                self.run_as_usual(number);
                return Ok(None);
            }
            let is_open = state.progress != Progress::Ended;
            // A process that is here is not lost.
            if is_open && !state.is_own {
                self.forget_mark(number);
                return Ok(Some(FoundMark { number, mark, state }));
            }
            // An older delivery of it runs on after an outage: two would write one mark, and wait for each other.
            if is_open && self.runs_already(&mark) {
                self.put_off(number);
                return Ok(None);
            }
            // Nothing was found out under such a mark. The one that was tried here has its losses already, and only that one
            // knows that it may be stored.
            if tried.is_none() && (is_open || state.is_unrun) {
                mark = with_losses(state.losses)?;
            }
        }
        if members.count > 1 {
            self.run_together(number, mark, members).await?;
        } else {
            self.run_alone(number, mark).await?;
        }
        Ok(None)
    }

    /// The message of the suspect, its attempt, and the mark that could not be written; `None` when it was recalled, or
    /// somebody else may have it.
    fn held(&self, number: u64) -> Option<(Message, u64, Option<Arc<Mark>>)> {
        let waiting = lock(&self.waiting);
        let Waiting { delivery, tried } = waiting.deliveries.get(&number)?;
        if delivery.is_held() {
            return Some((delivery.message().clone(), delivery.attempt(), tried.clone()));
        }
        drop(waiting);
        self.put_off(number);
        None
    }

    /// The message is not a suspect, because its last worker handed it back.
    fn run_as_usual(&self, number: u64) {
        if let Some(mut delivery) = self.take(number) {
            delivery.set_suspect(false);
            self.gate.put(&mut vec![delivery]);
        }
    }

    /// The mark is another worker's: it is not ended with the delivery.
    fn forget_mark(&self, number: u64) {
        if let Some(suspect) = lock(&self.waiting).deliveries.get_mut(&number) {
            suspect.tried = None;
            suspect.delivery.set_hook(None);
        }
    }

    async fn run_together(&self, number: u64, mark: Arc<Mark>, members: &Members) -> Result<()> {
        let Some(delivery) = self.mark(number, &mark, Progress::Accompanied).await? else { return Ok(()) };
        mark.join(members.group.clone());
        info!(
            target: CONSUMER,
            consumer = self.settler.shared.options.name,
            subject = %delivery.message().subject(),
            attempt = delivery.attempt(),
            "A message came again after its last attempt; it runs once more, in a group of {}.",
            members.count
        );
        self.remember(&mark);
        self.gate.put(&mut vec![delivery]);
        Ok(())
    }

    async fn run_alone(&self, number: u64, mark: Arc<Mark>) -> Result<()> {
        let shared = &self.settler.shared;
        let shut = self.gate.shut_all().await;
        let is_alone = shut.quiet().await;
        let progress = if is_alone { Progress::Alone } else { Progress::Accompanied };
        let Some(delivery) = self.mark(number, &mark, progress).await? else { return Ok(()) };
        info!(
            target: CONSUMER,
            consumer = shared.options.name,
            subject = %delivery.message().subject(),
            attempt = delivery.attempt(),
            "A message came again after its last attempt; it runs once more, alone."
        );
        self.remember(&mark);
        self.gate.let_in(delivery);
        if is_alone && !shut.quiet().await {
            mark.renew(shared, Some(Progress::Accompanied)).await;
        }
        Ok(())
    }

    /// Whether an older delivery of the message runs in this process.
    fn runs_already(&self, mark: &Mark) -> bool {
        self.living_marks().iter().any(|other| other.is_of_same_message(mark))
    }

    /// Writes the mark of the suspect, and takes the suspect; `None` when it was recalled.
    async fn mark(&self, number: u64, mark: &Arc<Mark>, progress: Progress) -> Result<Option<Delivery>> {
        let Some(mut delivery) = self.take(number) else { return Ok(None) };
        // Before it is written: whatever happens from here on, it is ended before the message comes again.
        delivery.set_hook(Some(mark.clone()));
        let marking = Marking { suspects: self, number, mark, delivery: Some(delivery) };
        let begun = mark.begin(&self.settler.shared, progress).await;
        // Here the recall of a suspension does not find it.
        if *self.settler.shared.suspended.borrow() {
            self.hand_back(marking.done().into_iter().collect()).await;
            return Ok(None);
        }
        begun?;
        Ok(marking.done())
    }

    /// The mark of what runs for long is written again and again, which shows that its worker is alive.
    fn remember(&self, mark: &Arc<Mark>) {
        let mut marks = lock(&self.marks);
        marks.retain(|mark| mark.strong_count() > 0);
        marks.push(Arc::downgrade(mark));
        let (shared, mark) = (self.settler.shared.clone(), Arc::downgrade(mark));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(longest_silence(shared.options.ack_wait) / 3).await;
                let Some(mark) = mark.upgrade() else { return };
                if shared.is_over() || mark.renew(&shared, None).await {
                    return;
                }
            }
        });
    }

    /// Ends the marks of all that run: they will be handed back, and their worker is not lost.
    pub(crate) async fn end_marks(&self) {
        let marks = self.living_marks();
        join_all(marks.iter().map(|mark| mark.run(&self.settler))).await;
    }

    fn living_marks(&self) -> Vec<Arc<Mark>> {
        lock(&self.marks).iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits whether the worker whose mark was found is alive, only out of the server's reach for a while: then
    /// it writes its mark again, or ends it.
    async fn watch(self: Arc<Self>, FoundMark { number, mark, state }: FoundMark) {
        let shared = &self.settler.shared;
        tokio::time::sleep(longest_silence(shared.options.ack_wait)).await;
        let is_lost = match mark.find(&shared.connection()).await {
            Ok(Some(now)) => now.sequence == state.sequence,
            _ => false,
        };
        let losses = state.losses + 1;
        if !is_lost {
            self.put_off(number);
        } else if state.group > 1 {
            let group = (state.group / GROUP_DIVISOR).max(1);
            self.queue(Suspect { number, losses: Some(state.losses), group });
        } else if state.progress == Progress::Accompanied && losses < LOSSES {
            self.queue(Suspect { number, losses: Some(losses), group: 1 });
        } else if self.held(number).is_some()
            && let Some(delivery) = self.take(number)
        {
            delivery.give_up();
        }
    }

    fn queue(&self, suspect: Suspect) {
        lock(&self.waiting).queue.push_back(suspect);
        self.arrived.notify_one();
    }

    /// Hands it back for a while.
    fn put_off(&self, number: u64) {
        if let Some(delivery) = self.take(number) {
            delivery.hand_back_for(self.settler.shared.options.ack_wait);
        }
    }

    fn run_unmarked(&self, delivery: Delivery) {
        if delivery.attempt() > delivery.last_to_run() {
            delivery.give_up();
        } else {
            self.gate.put(&mut vec![delivery]);
        }
    }
}

fn do_without_marks(shared: &Shared, error: &Error) {
    if shared.is_without_marks() {
        return;
    }
    shared.do_without_marks(WITHOUT_MARKS);
    warn!(
        target: CONSUMER,
        consumer = shared.options.name,
        "The marks of messages that came again after their last attempt cannot be stored: {error} For ten \
         minutes, such messages run beside others, up to {HEADROOM} more times. Then they are given up, even if \
         another message ended the worker."
    );
}

#[cfg(test)]
mod tests {
    use crate::config::{ConsumerOptions, Exhausted};
    use crate::connect::Connection;
    use crate::handle::Inbox;
    use crate::handle::delivery::admit;
    use crate::observe::Monitor;
    use crate::retry::{RetryPolicy, Schedule};

    use super::*;

    async fn settler_with_one_attempt() -> Arc<Settler> {
        let retry = RetryPolicy::new(1, Schedule::Delays(vec![Duration::ZERO])).unwrap();
        let options = ConsumerOptions::pull("orders", "billing").retry(retry).exhausted(Exhausted::Drop);
        let options = Arc::new(options);
        let connection = Connection::to_nowhere().await.unwrap();
        Settler::new(Shared::new(options.clone(), connection, Monitor::alone(&options)))
    }

    fn suspect(settler: &Arc<Settler>, attempt: u64) -> Delivery {
        let raw = async_nats::Message {
            subject: "orders.created".into(),
            reply: Some(format!("$JS.ACK.orders.billing.{attempt}.7.7.1764000000123456789.0").into()),
            payload: "1".into(),
            headers: None,
            status: None,
            description: None,
            length: 1,
        };
        let mut deliveries = Vec::new();
        admit(settler, &mut vec![raw], &mut deliveries);
        let mut suspect = deliveries.remove(0);
        suspect.set_suspect(true);
        suspect
    }

    /// Whether the message runs as usual when it is delivered again.
    fn is_cleared(settler: &Settler, delivery: &Delivery) -> bool {
        settler.shared.forget_returned(delivery.message(), 2)
    }

    #[tokio::test]
    async fn a_suspect_that_is_handed_back_before_it_ran_is_still_one_when_it_comes_again() {
        let settler = settler_with_one_attempt().await;
        settler.link_begins();
        let waiting = suspect(&settler, 1);
        waiting.hand_back();
        assert!(!is_cleared(&settler, &waiting));
        let running = suspect(&settler, 1);
        assert!(running.may_start());
        running.hand_back();
        assert!(is_cleared(&settler, &running));
    }

    #[tokio::test]
    async fn a_suspect_that_came_too_late_to_be_started_is_still_one_when_it_comes_again() {
        let settler = settler_with_one_attempt().await;
        let [older, newer] = [suspect(&settler, 1), suspect(&settler, 2)];
        assert!(!older.may_start(), "a newer delivery of it is here");
        assert!(!is_cleared(&settler, &newer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_ended_its_workers_does_not_run_where_its_dead_letter_cannot_be_stored() {
        let settler = settler_with_one_attempt().await;
        let guilty = suspect(&settler, 1);
        guilty.give_up();
        settler.shared.places.fallen_to(0).await;
        assert!(!is_cleared(&settler, &guilty));
    }

    #[derive(Debug)]
    struct NoHandlers;

    impl Inbox for NoHandlers {
        fn put(&self, _: &mut Vec<Delivery>) {}
        fn waiting(&self) -> usize {
            0
        }
        fn recall(&self) -> Vec<Delivery> {
            Vec::new()
        }
        fn cancel(&self) {}
        fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_of_a_lost_group_do_not_wait_behind_one_that_hangs() {
        let settler = settler_with_one_attempt().await;
        let gate = Gate::new(settler.shared.clone(), Arc::new(NoHandlers));
        let suspects = Suspects::new(settler, gate);
        let number_of = |group: &[Suspect]| group.iter().map(|suspect| suspect.number).collect::<Vec<_>>();
        for number in 0..4 {
            suspects.queue(Suspect { number, losses: Some(0), group: 2 });
        }
        let first = suspects.next_group();
        let hanging = suspects.members(&first);
        assert_eq!((number_of(&first), number_of(&suspects.next_group())), (vec![0, 1], vec![]));
        suspects.next_turn().await; // which `queue` has announced
        suspects.next_turn().await;
        assert_eq!(number_of(&suspects.next_group()), [2, 3]);
        drop(hanging);
    }

    #[test]
    fn a_mark_is_tried_for_half_a_minute_that_the_server_can_be_reached() {
        let mut failed = FailedTries::default();
        let pauses: Vec<_> = std::iter::from_fn(|| failed.pause(true)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_mark_is_tried_for_as_long_as_the_server_is_away() {
        let mut failed = FailedTries::default();
        assert!((0..1000).all(|_| failed.pause(false) == Some(FIRST_MARK_PAUSE)));
    }
}
