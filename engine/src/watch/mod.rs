//! Keeps one consumption consuming: notices when it does not, and repairs it.
//!
//! [`ask`] asks the server for the state of the durable, [`inspect`] looks at the answers, [`quarantine`] searches for
//! messages that break the connection, [`lag`] keeps the numbers for the metrics, [`announce`] tells those who ask who
//! consumes. This file connects and binds again.

pub(crate) mod announce;
mod ask;
mod idle;
mod inspect;
mod lag;
mod load;
pub(crate) mod quarantine;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::bind::durable::{Durable, bind, next_subject};
use crate::bind::position::Position;
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::connect::denial::Permission;
use crate::connect::seat::Seat;
use crate::error::Result;
use crate::fetch::demand::Problem;
use crate::fetch::{Fetch, fetch};
use crate::jetstream::info::{ConsumerInfo, consumer_info};
use crate::jetstream::sign::is_confirmed;
use crate::jitter::jittered;
use crate::observe::meter::Repair;
use crate::observe::state::{Machine, trouble_of};
use crate::observe::target::CONSUMER;
use crate::settle::Settler;
use crate::suspect::Suspects;
use crate::watch::ask::Asker;
use crate::watch::inspect::Inspector;
use crate::watch::load::{LOAD_INTERVAL, Load, State};
use crate::watch::quarantine::{Search, sweep};

/// Interval of the checks whether the link still carries anything, and the time that the answer may take.
const LINK_CHECK_INTERVAL: Duration = Duration::from_secs(4);

/// Pauses between repairs double between these bounds.
const SHORTEST_REPAIR_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REPAIR_PAUSE: Duration = Duration::from_secs(10);

/// The pause after a connection that could not be opened for a consumption that would move.
const MOVE_RETRY_PAUSE: Duration = Duration::from_secs(60);

/// How long each step may take by which a connection is left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Silences in a row are not further apart.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// How soon after a repair a permission that is still missing shows.
const PROBATION: Duration = Duration::from_secs(2);

/// Keeps one consumption consuming.
pub(crate) struct Repairer {
    pub(crate) seat: Arc<Seat>,
    pub(crate) options: Arc<ConsumerOptions>,
    pub(crate) settler: Arc<Settler>,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) stop: CancellationToken,
}

/// The parts with a memory that outlives a repair.
struct Watchers {
    asker: Asker,
    inspector: Inspector,
    search: Search,
    load: Load,
}

/// Why a fetch ended that nobody has stopped.
enum End {
    Problem(Problem),
    /// It goes on over this connection.
    Moves(Connection),
}

impl Repairer {
    /// Fetches and repairs until stopped.
    pub(crate) async fn run(self, connection: Connection, durable: Durable) {
        let shared = self.settler.shared.clone();
        tokio::select! {
            () = self.keep_consuming(connection, durable) => {}
            never = shared.follow_link() => match never {},
        }
    }

    async fn keep_consuming(self, mut connection: Connection, mut durable: Durable) {
        let mut watchers = Watchers {
            asker: Asker::new(self.options.clone(), self.settler.clone()),
            inspector: Inspector::new(self.options.clone(), self.settler.clone()),
            search: Search::new(connection.server_id()),
            load: Load::new(tokio::time::Instant::now()),
        };
        let mut pause = SHORTEST_REPAIR_PAUSE;
        let mut probation = Duration::ZERO;
        let mut was_silent = false;
        loop {
            let began = tokio::time::Instant::now();
            // Boxed, as the repair: these futures are large, and every level above would have its copy on the stack.
            let fetching = Box::pin(self.fetch(&connection, &durable, &mut watchers));
            let Some(end) = self.unless_denied_again(probation, fetching).await else { return };
            let problem = match end {
                End::Problem(problem) => problem,
                End::Moves(other) => {
                    self.move_to(&connection, &other, &durable).await;
                    if self.stop.is_cancelled() {
                        return;
                    }
                    connection = other;
                    continue;
                }
            };
            self.settler.shared.monitor.note(|machine| machine.meets(problem.trouble()));
            self.settler.shared.note_repairs(problem.repair(), 1);
            let is_silent = problem == Problem::Silent;
            if is_silent && was_silent {
                // The server refuses subscriptions beyond the limit of a connection, and says so to nobody.
                self.seat.suspect();
            }
            was_silent = is_silent && began.elapsed() < LONGEST_SILENCE;
            let is_denied = problem == Problem::Denied;
            probation = if is_denied { PROBATION } else { Duration::ZERO };
            if !is_denied {
                let problem = self.describe(&problem, watchers.inspector.full_queue());
                warn!(target: CONSUMER, consumer = self.options.name, "{problem}; repairing.");
            }
            if began.elapsed() > LONGEST_REPAIR_PAUSE {
                pause = SHORTEST_REPAIR_PAUSE;
            }
            let repairing = Box::pin(self.repair(connection, &mut watchers, &mut pause));
            let Some(repaired) = repairing.await else { return };
            (connection, durable) = repaired;
            // What was denied may be denied again.
            if !is_denied {
                info!(target: CONSUMER, consumer = self.options.name, "Consuming again.");
            }
        }
    }

    /// Fetches, and reports it as consuming only after `probation`: a missing permission mostly shows again.
    async fn unless_denied_again<T>(&self, probation: Duration, fetching: impl Future<Output = T>) -> T {
        let consuming = async {
            if !probation.is_zero() {
                sleep(probation).await;
            }
            self.settler.shared.monitor.note(Machine::fetches);
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            never = consuming => match never {},
            ended = fetching => ended,
        }
    }

    /// Fetches until stopped (`None`) or until there is something to repair.
    async fn fetch(
        &self,
        connection: &Connection,
        durable: &Durable,
        watchers: &mut Watchers,
    ) -> Option<End> {
        self.settler.link_begins();
        let (told, known) = watch::channel(ConsumerInfo::default());
        let stop = self.stop.child_token();
        let mut fetching = pin!(self.fetch_unless_suspended(connection, durable, known.clone(), &stop));
        let mut denials = connection.denials();
        let (permission, subject) = needed(connection, &self.options, durable);
        let watching = async {
            let problem = tokio::select! {
                problem = watchers.asker.run(connection, durable, &told) => problem,
                problem = watchers.inspector.run(connection, durable, known) => problem,
                () = self.follow_link(connection, durable, &mut watchers.search) => Problem::Closed,
                _ = async { denials.about(permission, &[&subject]).await } => Problem::Denied,
                never = self.check_link(connection) => match never {},
            };
            // Once stopped, only the fetch says when it ends: it hands back what was on its way.
            if self.stop.is_cancelled() { std::future::pending().await } else { problem }
        };
        let watching = async {
            tokio::select! {
                problem = watching => End::Problem(problem),
                other = self.other_connection(connection, &mut watchers.load) => End::Moves(other),
            }
        };
        tokio::select! {
            ended = &mut fetching => ended.err().map(End::Problem),
            end = watching => {
                // What has arrived already is handled: if it waited for `ack_wait` instead, that would be an attempt.
                // Without the durable nobody takes an acknowledgement.
                if !matches!(end, End::Problem(Problem::Gone)) {
                    stop.cancel();
                    let _ = fetching.await;
                }
                Some(end)
            }
        }
    }

    /// Returns the connection to go on with, when the consumption does not belong on this one any more.
    async fn other_connection(&self, connection: &Connection, load: &mut Load) -> Connection {
        let shared = &self.settler.shared;
        loop {
            sleep(LOAD_INTERVAL).await;
            let received = shared.counters.received.load(Relaxed);
            let generation = connection.link().borrow().generation;
            let state = load.look(tokio::time::Instant::now(), received, shared.places.held(), generation);
            if !connection.is_up() || self.stop.is_cancelled() {
                continue;
            }
            if shared.runs_short.load(Relaxed) {
                self.seat.stay_apart();
            }
            let is_unfit = state == State::Busy || self.seat.is_unfit();
            let opened = if is_unfit && self.seat.has_company() {
                self.seat.own().await
            } else if state == State::AtRest && self.seat.may_return() {
                self.seat.share().await
            } else {
                continue;
            };
            match opened {
                Ok(other) => return other,
                Err(error) => {
                    debug!(target: CONSUMER, consumer = self.options.name, "The connection stays as it is: {error}");
                    sleep(jittered(MOVE_RETRY_PAUSE)).await;
                }
            }
        }
    }

    /// Leaves the connection, over which nothing is fetched any more, for another one.
    async fn move_to(&self, left: &Connection, other: &Connection, durable: &Durable) {
        self.settler.shared.move_to(other.clone());
        // What was settled over the other one may still wait to be written.
        if left.is_up() {
            is_confirmed(left, &self.options.stream, &durable.name, LEAVE_TIMEOUT).await;
        }
        self.seat.leave(left, LEAVE_TIMEOUT).await;
    }

    /// Fetches, except while the consumption is suspended: then what no handler has started is handed back.
    async fn fetch_unless_suspended(
        &self,
        connection: &Connection,
        durable: &Durable,
        known: watch::Receiver<ConsumerInfo>,
        stop_all: &CancellationToken,
    ) -> Result<(), Problem> {
        let mut suspended = self.settler.shared.suspended.subscribe();
        loop {
            let resumed = suspended.wait_for(|is_suspended| !is_suspended);
            if stop_all.run_until_cancelled(resumed).await.is_none() {
                return Ok(());
            }
            self.suspects.reopen();
            let stop = stop_all.child_token();
            let fetching = fetch(Fetch {
                options: &self.options,
                connection,
                durable,
                settler: &self.settler,
                suspects: &self.suspects,
                known: known.clone(),
                stop: &stop,
            });
            let suspending = async {
                let _ = suspended.wait_for(|is_suspended| *is_suspended).await;
                stop.cancel();
                std::future::pending().await
            };
            tokio::select! {
                ended = fetching => ended?,
                never = suspending => match never {},
            }
            if stop_all.is_cancelled() {
                return Ok(());
            }
            // Not earlier: while the fetch still asks, a message would come straight back.
            self.suspects.hand_back(self.suspects.recall()).await;
        }
    }

    /// Looks, after each reconnect, for a message that may have caused it; returns when the connection is
    /// closed for good.
    async fn follow_link(&self, connection: &Connection, durable: &Durable, search: &mut Search) {
        let mut link = connection.link();
        let mut generation = link.borrow_and_update().generation;
        while link.changed().await.is_ok() {
            let now = link.borrow_and_update().generation;
            if now != generation {
                generation = now;
                self.settler.shared.note_repairs(Repair::Reconnecting, 1);
                self.sweep(connection, durable, search).await;
            }
        }
    }

    /// Asks now and then whether the link still carries anything.
    async fn check_link(&self, connection: &Connection) -> Infallible {
        loop {
            sleep(jittered(LINK_CHECK_INTERVAL)).await;
            self.renew_if_silent(connection).await;
        }
    }

    async fn renew_if_silent(&self, connection: &Connection) {
        if connection.is_up() && connection.renew_if_silent(LINK_CHECK_INTERVAL).await {
            self.settler.shared.note_repairs(Repair::Silent, 1);
        }
    }

    async fn sweep(&self, connection: &Connection, durable: &Durable, search: &mut Search) {
        if let Err(error) = sweep(connection, &self.options, &durable.name, &self.settler, search).await {
            debug!(
                target: CONSUMER,
                consumer = self.options.name,
                "The stream could not be searched for unreadable messages: {error}"
            );
        }
        if search.takes_suspicion() {
            self.seat.suspect();
        }
    }

    /// Tries again with growing pauses until the durable is bound; `None` when stopped meanwhile.
    async fn repair(
        &self,
        mut connection: Connection,
        watchers: &mut Watchers,
        pause: &mut Duration,
    ) -> Option<(Connection, Durable)> {
        loop {
            let trying = async {
                sleep(jittered(*pause)).await;
                self.renew_if_silent(&connection).await;
                self.bind(&mut connection, watchers).await
            };
            let tried = self.stop.run_until_cancelled(trying).await?;
            *pause = (*pause * 2).min(LONGEST_REPAIR_PAUSE);
            match tried {
                Ok(durable) => return Some((connection, durable)),
                Err(error) => {
                    self.settler.shared.monitor.note(|machine| machine.meets(trouble_of(&error)));
                    error!(target: CONSUMER, consumer = self.options.name, "{error} Trying again within {:?}.", *pause);
                }
            }
        }
    }

    async fn bind(&self, connection: &mut Connection, watchers: &mut Watchers) -> Result<Durable> {
        if connection.is_closed() {
            *connection = self.seat.take_again().await?;
            self.settler.shared.move_to(connection.clone());
            watchers.search.note_close();
        }
        let position = watchers.inspector.position();
        let resume = position.resume(connection, &self.options.stream).await?;
        let durable = bind(connection, &self.options, &resume).await?;
        self.warn_of_repeats(connection, &durable, position, resume.at).await;
        self.sweep(connection, &durable, &mut watchers.search).await;
        Ok(durable)
    }

    /// The server forgets with a durable what was settled above its ack floor.
    async fn warn_of_repeats(
        &self,
        connection: &Connection,
        durable: &Durable,
        position: &Position,
        resume_at: Option<u64>,
    ) {
        let Some(repeats) = resume_at.map(|at| position.repeats(at)).filter(|repeats| *repeats > 0) else {
            return;
        };
        let Ok(info) = consumer_info(connection, &self.options.stream, &durable.name).await else { return };
        if info.created.as_deref() == position.created() {
            return;
        }
        warn!(
            target: CONSUMER,
            consumer = self.options.name,
            "The durable was deleted and has been recreated after its ack floor. Up to {repeats} messages are delivered \
             a second time."
        );
    }

    fn describe(&self, problem: &Problem, full_queue: Option<i64>) -> String {
        let stream = &self.options.stream;
        match problem {
            Problem::Gone => format!("The durable or its stream `{stream}` is gone from the server"),
            Problem::Silent => full_queue.map_or_else(
                || format!("The stream `{stream}` is silent although heartbeats are due"),
                |most| {
                    format!(
                        "No messages: other workers hold all {most} pull requests that the durable allows (max_waiting). \
                         Run fewer workers, or create it again with a larger max_waiting"
                    )
                },
            ),
            Problem::Closed => String::from("The connection to NATS was closed"),
            Problem::Denied => String::from("A permission is missing"),
            Problem::Refused(why) => format!("The server refused a pull request ({why})"),
        }
    }
}

/// The permission without which nothing is delivered.
fn needed(connection: &Connection, options: &ConsumerOptions, durable: &Durable) -> (Permission, String) {
    match durable.deliver_subject() {
        Some(subject) => (Permission::Subscribe, subject.to_owned()),
        None => (Permission::Publish, next_subject(connection, &options.stream, &durable.name)),
    }
}
