//! Keeps one consumption consuming: notices when it does not, and repairs it.

pub(crate) mod quarantine;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::bind::declared::has_nothing_for;
use crate::bind::drift::Drift;
use crate::bind::durable::{Durable, bind, next_subject, upsert};
use crate::bind::position::Position;
use crate::config::{ConnectOptions, ConsumerOptions};
use crate::connect::Connection;
use crate::connect::denial::Act;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::demand::Problem;
use crate::fetch::{Fetch, fetch};
use crate::jetstream::info::{ConsumerInfo, consumer_info, stream_info};
use crate::jitter::jittered;
use crate::lock::lock;
use crate::observe::count;
use crate::observe::target::CONSUMER;
use crate::settle::Settler;
use crate::suspect::Suspects;
use crate::watch::quarantine::{Search, sweep};

/// The least between two looks at what is known of the durable, which is asked every five seconds or more often.
const LOOKS: Duration = Duration::from_secs(2);

/// How often it is asked whether the link still carries anything, and how long the answer may take.
const DOUBT: Duration = Duration::from_secs(4);

/// Pauses between repairs double between these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the supervisor knows of the server's side.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    position: Position,
    /// How many deliveries had been settled when all places at the server were found taken.
    full_at: Option<usize>,
    was_told: bool,
    /// As many requests as the durable takes, where that many wait.
    crowd: Option<i64>,
    /// The server refused the last look at the durable.
    is_refused: bool,
    /// The stream has no subject that the filter matches.
    has_nothing: bool,
    drift: Drift,
    /// Somebody paused the durable.
    is_paused: bool,
}

/// Keeps one consumption consuming.
pub(crate) struct Supervisor {
    pub(crate) connect: ConnectOptions,
    pub(crate) options: Arc<ConsumerOptions>,
    pub(crate) settler: Arc<Settler>,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) stop: CancellationToken,
    pub(crate) seen: Mutex<Seen>,
    pub(crate) search: tokio::sync::Mutex<Search>,
}

impl Supervisor {
    /// Fetches and repairs until stopped.
    pub(crate) async fn run(self, mut connection: Connection, mut durable: Durable) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let began = tokio::time::Instant::now();
            let Some(problem) = self.fetch(&connection, &durable).await else { return };
            count(&self.settler.shared.counters.repairs);
            let is_denied = problem == Problem::Denied;
            if !is_denied {
                warn!(target: CONSUMER, consumer = self.options.name, "{}; repairing.", self.describe(&problem));
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = SHORTEST_PAUSE;
            }
            let Some(repaired) = self.repair(connection, &mut pause).await else { return };
            (connection, durable) = repaired;
            // What was denied may be denied again.
            if !is_denied {
                info!(target: CONSUMER, consumer = self.options.name, "Consuming again.");
            }
        }
    }

    /// Fetches until stopped (`None`) or until there is something to repair.
    async fn fetch(&self, connection: &Connection, durable: &Durable) -> Option<Problem> {
        self.settler.link_begins();
        let fetching = fetch(Fetch {
            options: &self.options,
            connection,
            durable,
            settler: &self.settler,
            suspects: &self.suspects,
            stop: &self.stop,
        });
        let mut denials = connection.denials();
        let (act, subject) = needed(connection, &self.options, durable);
        // Once stopped, only the fetch has a word: it is handing back what was on its way.
        let (told, known) = watch::channel(ConsumerInfo::default());
        let watching = async {
            let problem = tokio::select! {
                problem = self.keep_asking(connection, durable, &told) => problem,
                problem = self.inspect(connection, durable, known) => problem,
                () = self.follow_link(connection, durable) => Problem::Closed,
                _ = async { denials.about(act, &[&subject]).await } => Problem::Denied,
                never = self.doubt_link(connection) => match never {},
            };
            if self.stop.is_cancelled() { std::future::pending().await } else { problem }
        };
        tokio::select! {
            ended = fetching => ended.err(),
            problem = watching => Some(problem),
        }
    }

    /// Looks, after each reconnect, for a message that may have caused it; returns when the connection is
    /// closed for good.
    async fn follow_link(&self, connection: &Connection, durable: &Durable) {
        let mut link = connection.link();
        let mut generation = link.borrow_and_update().generation;
        while link.changed().await.is_ok() {
            let now = link.borrow_and_update().generation;
            if now != generation {
                generation = now;
                count(&self.settler.shared.counters.repairs);
                self.sweep(connection, durable).await;
            }
        }
    }

    /// Asks now and then whether the link still carries anything.
    async fn doubt_link(&self, connection: &Connection) -> Infallible {
        loop {
            sleep(jittered(DOUBT)).await;
            self.renew_if_silent(connection).await;
        }
    }

    async fn renew_if_silent(&self, connection: &Connection) {
        if connection.is_up() && connection.renew_if_silent(DOUBT).await {
            count(&self.settler.shared.counters.repairs);
        }
    }

    async fn sweep(&self, connection: &Connection, durable: &Durable) {
        let mut search = self.search.lock().await;
        if let Err(error) = sweep(connection, &self.options, &durable.name, &self.settler, &mut search).await
        {
            debug!(
                target: CONSUMER,
                consumer = self.options.name,
                "The stream could not be searched for unreadable messages: {error}"
            );
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Tries again with growing pauses until the durable is bound; `None` when stopped meanwhile.
    async fn repair(
        &self,
        mut connection: Connection,
        pause: &mut Duration,
    ) -> Option<(Connection, Durable)> {
        loop {
            let trying = async {
                sleep(jittered(*pause)).await;
                self.renew_if_silent(&connection).await;
                self.bind(&mut connection).await
            };
            let tried = self.stop.run_until_cancelled(trying).await?;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            match tried {
                Ok(durable) => return Some((connection, durable)),
                Err(error) => {
                    error!(target: CONSUMER, consumer = self.options.name, "{error} Trying again within {:?}.", *pause);
                }
            }
        }
    }

    async fn bind(&self, connection: &mut Connection) -> Result<Durable> {
        if connection.is_closed() {
            *connection = Connection::open(&self.connect).await?;
            connection.name(&self.options.name);
            self.settler.shared.move_to(connection.clone());
        }
        let position = self.seen().position.clone();
        let resume = position.resume(connection, &self.options.stream).await?;
        let durable = bind(connection, &self.options, &resume).await?;
        self.tell_of_repeats(connection, &durable, &position, resume.at).await;
        self.sweep(connection, &durable).await;
        Ok(durable)
    }

    /// The server forgets with a durable what was settled above its ack floor.
    async fn tell_of_repeats(
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
            "The durable was deleted and created again. It begins behind its ack floor: up to {repeats} messages that \
             were delivered before come again."
        );
    }

    async fn remember_the_stream(&self, connection: &Connection) {
        if let Ok(info) = stream_info(connection, &self.options.stream).await {
            self.seen().position.note_stream(&info);
        }
    }

    /// Asks the server for what it knows of the durable, for as long as the durable is there. The answers also tell how
    /// old deliveries can be, and which signs of life have arrived.
    async fn keep_asking(
        &self,
        connection: &Connection,
        durable: &Durable,
        told: &watch::Sender<ConsumerInfo>,
    ) -> Problem {
        let mut link = connection.link();
        loop {
            let generation = link.borrow_and_update().generation;
            tokio::select! {
                biased;
                made_anew = link.wait_for(|link| link.generation != generation) => {
                    if made_anew.is_err() {
                        return Problem::Closed;
                    }
                    self.settler.link_begins();
                }
                problem = self.ask_over_one_link(connection, durable, generation, told) => return problem,
            }
        }
    }

    async fn ask_over_one_link(
        &self,
        connection: &Connection,
        durable: &Durable,
        generation: u64,
        told: &watch::Sender<ConsumerInfo>,
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
                    self.seen().is_refused = false;
                    told.send_replace(info);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::StreamNotFound) => {
                    return Problem::Gone;
                }
                Err(error) => self.warn_if_refused(&error),
            }
            sleep(jittered(self.settler.pause())).await;
        }
    }

    /// Looks at what is `known` of the durable now and then; returns when it needs repair.
    async fn inspect(
        &self,
        connection: &Connection,
        durable: &Durable,
        mut known: watch::Receiver<ConsumerInfo>,
    ) -> Problem {
        let mut before = None;
        self.remember_the_stream(connection).await;
        // The first look is at once: a durable that is deleted early must not be replayed either.
        while known.changed().await.is_ok() {
            let info = known.borrow_and_update().clone();
            self.seen().position.note(&info);
            self.warn_if_full(&info);
            self.seen().crowd = crowd(&info);
            self.follow(durable, &info);
            self.mend(connection, durable, &info).await;
            let received = Some(self.settler.shared.counters.snapshot().received);
            if before.is_none() || received == before {
                self.warn_if_nothing_can_come(connection).await;
            }
            if self.is_stalled(durable, &info) && received == before {
                return Problem::Silent;
            }
            before = received;
            sleep(LOOKS).await;
        }
        Problem::Closed
    }

    /// A pull is told itself; a push consumer whose account may not use JetStream any more is just silent.
    fn warn_if_refused(&self, error: &Error) {
        let is_refused = matches!(error.kind(), ErrorKind::Api { .. });
        if is_refused && !self.seen().is_refused {
            warn!(target: CONSUMER, consumer = self.options.name, "The durable cannot be inspected: {error}");
        }
        self.seen().is_refused = is_refused;
    }

    /// Somebody changed the subjects of the stream, or the filter is wrong: that looks like silence.
    async fn warn_if_nothing_can_come(&self, connection: &Connection) {
        if self.options.filter_subjects.is_empty() {
            return;
        }
        let stream = &self.options.stream;
        let Ok(info) = stream_info(connection, stream).await else { return };
        let has_nothing = has_nothing_for(&self.options, &info.config);
        let subjects = info.config.get("subjects").map(ToString::to_string).unwrap_or_default();
        if has_nothing && !self.seen().has_nothing {
            warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "Nothing new can arrive: no subject of the stream `{stream}` ({}) matches the filter ({}). Change one \
                 of them.",
                subjects,
                self.options.filter_subjects.join(", ")
            );
        }
        self.seen().has_nothing = has_nothing;
    }

    fn follow(&self, durable: &Durable, info: &ConsumerInfo) {
        let drift = Drift::of(&info.config, &durable.config, &self.options);
        self.settler.follow(drift.ack_wait);
        if self.seen().drift != drift {
            drift.tell(&self.options);
            self.seen().drift = drift;
        }
        self.follow_pause(info);
    }

    /// A pause looks like silence.
    fn follow_pause(&self, info: &ConsumerInfo) {
        let was_paused = std::mem::replace(&mut self.seen().is_paused, info.paused);
        let until = info.config.get("pause_until").and_then(Value::as_str).unwrap_or("it is resumed");
        match (was_paused, info.paused) {
            (false, true) => warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "The durable is paused: no message arrives until {until}. Resume it with `nats consumer resume`."
            ),
            (true, false) => {
                info!(target: CONSUMER, consumer = self.options.name, "The durable is not paused any more.");
            }
            _ => {}
        }
    }

    /// Takes limits away that no version declares. Nothing else is touched: another version of the consumer may have
    /// changed it.
    async fn mend(&self, connection: &Connection, durable: &Durable, info: &ConsumerInfo) {
        let mut mended = info.config.clone();
        self.seen().drift.lift_limits(&mut mended);
        if mended == info.config || !self.options.manages_durable {
            return;
        }
        // What goes wrong is tried again at the next look.
        if let Err(error) = upsert(connection, &self.options.stream, &durable.name, &mended).await {
            warn!(target: CONSUMER, consumer = self.options.name, "{error}");
        }
    }

    /// Delayed retries count too: when all places at the server are taken, nobody gets anything new.
    fn warn_if_full(&self, info: &ConsumerInfo) {
        let limit = info.max_ack_pending();
        let places = &self.settler.shared.places;
        let settled = places.settled();
        // If all of them run, it is as it should be.
        let is_idle = places.held() < self.options.concurrency;
        let is_full = limit > 0 && info.num_ack_pending >= limit && is_idle;
        // A backlog fills the places of a push consumer for a moment; what matters is that it stays so.
        let is_stuck = is_full && self.seen().full_at == Some(settled);
        if is_stuck && !self.seen().was_told {
            warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "All {limit} deliveries that max_ack_pending allows are running or wait for a retry: nothing new arrives \
                 until some are settled. Raise max_ack_pending, or fix the handlers that fail."
            );
        }
        let mut seen = self.seen();
        seen.full_at = is_full.then_some(settled);
        seen.was_told = is_stuck;
    }

    /// A push consumer that nobody listens to, as the server sees it, though we do.
    fn is_stalled(&self, durable: &Durable, info: &ConsumerInfo) -> bool {
        durable.deliver_subject().is_some() && info.num_pending > 0 && !info.push_bound
    }

    fn describe(&self, problem: &Problem) -> String {
        let stream = &self.options.stream;
        match problem {
            Problem::Gone => format!("The durable or its stream `{stream}` is gone from the server"),
            Problem::Silent => self.seen().crowd.map_or_else(
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

/// How many requests wait where the durable takes no more: the server drops others without a word (seen on
/// nats-server 2.15.1).
fn crowd(info: &ConsumerInfo) -> Option<i64> {
    let most = info.config.get("max_waiting")?.as_i64().filter(|most| *most > 0)?;
    (info.num_waiting >= most).then_some(most)
}

/// What has to be permitted, or nothing is delivered.
fn needed(connection: &Connection, options: &ConsumerOptions, durable: &Durable) -> (Act, String) {
    match durable.deliver_subject() {
        Some(subject) => (Act::Subscribe, subject.to_owned()),
        None => (Act::Publish, next_subject(connection, &options.stream, &durable.name)),
    }
}
