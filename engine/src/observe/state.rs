//! The state of a consumption, as a state machine without I/O: facts come in, one state with its reason comes out.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// The state of a consumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It connects.
    Starting,
    /// The durable is looked for, created, or changed to fit.
    Binding,
    /// Messages that come are handled.
    Consuming,
    /// Somebody paused the durable: messages come when the pause is over.
    Paused,
    /// Nothing new is taken because of what is unsettled: handlers hold it up, or `max_ack_pending` is used up.
    Stuck,
    /// Consuming stopped for another reason, and is being repaired.
    Repairing,
    /// The server refuses the credentials or a permission.
    Denied,
    /// The server, or its JetStream, cannot be reached.
    Unreachable,
    /// The stream does not exist.
    NoStream,
    /// It takes nothing new and finishes what runs.
    Draining,
    /// It has not begun, or has ended.
    Stopped,
}

impl ConsumerState {
    /// Every state, in the order in which they are documented.
    pub const ALL: [Self; 11] = [
        Self::Starting,
        Self::Binding,
        Self::Consuming,
        Self::Paused,
        Self::Stuck,
        Self::Repairing,
        Self::Denied,
        Self::Unreachable,
        Self::NoStream,
        Self::Draining,
        Self::Stopped,
    ];

    /// The state in one word, for labels of metrics: `consuming` or `no_stream` for example.
    ///
    /// ```
    /// # use nats_consumer::observe::ConsumerState;
    /// assert_eq!(ConsumerState::NoStream.name(), "no_stream");
    /// assert_eq!(ConsumerState::NoStream.to_string(), "no stream");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Binding => "binding",
            Self::Consuming => "consuming",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
            Self::Repairing => "repairing",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::NoStream => "no_stream",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    /// Whether all is as it should be: messages that come are handled, or somebody wants them to wait.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Consuming | Self::Paused)
    }

    /// Whether it may pass by itself within moments, as a lost connection does.
    pub(crate) fn may_pass(self) -> bool {
        !matches!(self, Self::Denied | Self::NoStream) && !self.is_ending()
    }

    /// Whether it ends because somebody wants it to.
    pub(crate) fn is_ending(self) -> bool {
        matches!(self, Self::Draining | Self::Stopped)
    }
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().replace('_', " "))
    }
}

/// The state of a consumption, its reason, and its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The state.
    pub state: ConsumerState,
    /// Why, in a few words of the engine's own; empty where nothing is to be said. It never holds what strangers sent.
    pub reason: Cow<'static, str>,
    /// When the state began.
    pub since: Instant,
    /// When it was ready for the last time, if it was and is not.
    left: Option<Instant>,
}

impl fmt::Display for Status {
    /// The state with its reason and its age: `no stream: the stream does not exist (12 s)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&described(self.state, &self.reason, self.since.elapsed()))
    }
}

/// A state with its reason and its age.
pub(crate) fn described(state: ConsumerState, reason: &str, age: Duration) -> String {
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("{state}{colon}{reason} ({} s)", age.as_secs())
}

impl Status {
    /// Whether it is ready, or was so until less than `grace` ago: a reconnect is no reason to take a worker out of
    /// service. There is no grace for a missing stream, a missing permission, or the end.
    ///
    /// ```
    /// # use nats_consumer::observe::{ConsumerState, Status};
    /// # fn readiness(status: Status) {
    /// let is_ready = status.is_ready(std::time::Duration::from_secs(10));
    /// # }
    /// ```
    #[must_use]
    pub fn is_ready(&self, grace: Duration) -> bool {
        let was_lately = || self.left.is_some_and(|left| left.elapsed() < grace);
        self.state.is_ready() || (self.state.may_pass() && was_lately())
    }

    /// When it was ready for the last time, if it was and is not.
    pub(crate) fn left(&self) -> Option<Instant> {
        self.left
    }
}

/// Trouble that keeps messages away.
pub(crate) type Trouble = (ConsumerState, &'static str);

/// The trouble that an error of a start or of a repair means.
pub(crate) fn trouble_of(error: &Error) -> Trouble {
    match error.kind() {
        ErrorKind::Unreachable | ErrorKind::Disconnected => (ConsumerState::Unreachable, "no server answers"),
        ErrorKind::Closed => (ConsumerState::Unreachable, "the connection is closed"),
        ErrorKind::Timeout | ErrorKind::Api { code: 503, .. } => {
            (ConsumerState::Unreachable, "JetStream does not answer")
        }
        ErrorKind::Denied => (ConsumerState::Denied, "the server refuses the credentials or a permission"),
        ErrorKind::StreamNotFound => (ConsumerState::NoStream, "the stream does not exist"),
        ErrorKind::Gone => (ConsumerState::Repairing, "the durable does not exist"),
        ErrorKind::Config => (ConsumerState::Repairing, "an option cannot be used"),
        ErrorKind::Mismatch => (ConsumerState::Repairing, "the durable differs and cannot be changed"),
        ErrorKind::Overlap => {
            (ConsumerState::Repairing, "another durable of the work queue gets the messages")
        }
        _ => (ConsumerState::Repairing, "the server refuses the durable"),
    }
}

const REFUSED: (ConsumerState, Cow<'static, str>) =
    (ConsumerState::Denied, Cow::Borrowed("the server refuses the credentials"));

/// How far a consumption has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Binding,
    Fetching,
    /// It lasts until messages are fetched again, whatever is tried meanwhile.
    Trouble(Trouble),
    Draining,
    Stopped,
}

/// The facts, and the status that follows from them.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    is_linked: bool,
    /// Whether the server refused the credentials when the link was to be made again.
    is_refused: bool,
    /// Until when the durable is paused, in the server's words.
    pause: Option<String>,
    is_full: bool,
    is_suspended: bool,
    status: Status,
}

impl Machine {
    pub(crate) fn new(now: Instant) -> Self {
        let status = Status { state: ConsumerState::Stopped, reason: "".into(), since: now, left: None };
        Self {
            phase: Phase::Stopped,
            is_linked: true,
            is_refused: false,
            pause: None,
            is_full: false,
            is_suspended: false,
            status,
        }
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// A start begins. What was wrong at the last one is wrong until this one has succeeded.
    pub(crate) fn starts(&mut self) {
        if !matches!(self.phase, Phase::Trouble(_)) {
            self.phase = Phase::Starting;
        }
        self.is_refused = false;
        (self.is_linked, self.pause, self.is_full, self.is_suspended) = (true, None, false, false);
    }

    /// The server is reached, and the durable is looked for.
    pub(crate) fn binds(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Binding;
        }
    }

    /// The start failed before the engine tried it.
    pub(crate) fn fails(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Trouble((ConsumerState::Starting, "the last start failed, see the log"));
        }
    }

    /// Messages are fetched.
    pub(crate) fn fetches(&mut self) {
        if !self.ends_soon() {
            self.phase = Phase::Fetching;
        }
    }

    /// Something keeps messages away.
    pub(crate) fn meets(&mut self, trouble: Trouble) {
        if !self.ends_soon() {
            self.phase = Phase::Trouble(trouble);
        }
    }

    /// The link to the server is up, or is not, because the credentials are refused or for another reason.
    pub(crate) fn links(&mut self, is_up: bool, is_refused: bool) {
        self.is_linked = is_up;
        self.is_refused = is_refused;
    }

    /// The durable is paused until then, or is not.
    pub(crate) fn pauses(&mut self, until: Option<String>) {
        self.pause = until;
    }

    /// Unsettled deliveries use up `max_ack_pending` and nothing is settled, or that is over.
    pub(crate) fn fills(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Handlers hold it up, or do so no more.
    pub(crate) fn suspends(&mut self, is_suspended: bool) {
        self.is_suspended = is_suspended;
    }

    /// It takes nothing new.
    pub(crate) fn drains(&mut self) {
        if self.phase != Phase::Stopped {
            self.phase = Phase::Draining;
        }
    }

    /// It has ended.
    pub(crate) fn ends(&mut self) {
        self.phase = Phase::Stopped;
    }

    /// Draws the conclusion from the facts; whether it is another one than before.
    pub(crate) fn conclude(&mut self, now: Instant) -> bool {
        let (state, reason) = self.judge();
        let before = &self.status;
        if (before.state, &before.reason) == (state, &reason) {
            return false;
        }
        let left = match (before.state.is_ready(), state.is_ready()) {
            (_, true) => None,
            (true, false) => Some(now),
            (false, false) => before.left,
        };
        let since = if before.state == state { before.since } else { now };
        self.status = Status { state, reason, since, left };
        true
    }

    fn ends_soon(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Stopped)
    }

    fn judge(&self) -> (ConsumerState, Cow<'static, str>) {
        match self.phase {
            Phase::Starting => (ConsumerState::Starting, "".into()),
            Phase::Binding => (ConsumerState::Binding, "".into()),
            Phase::Trouble((ConsumerState::Unreachable, _)) if self.is_refused => REFUSED,
            Phase::Fetching if !self.is_linked && self.is_refused => REFUSED,
            Phase::Trouble((state, reason)) => (state, reason.into()),
            Phase::Draining => (ConsumerState::Draining, "".into()),
            Phase::Stopped => (ConsumerState::Stopped, "".into()),
            Phase::Fetching if !self.is_linked => {
                (ConsumerState::Unreachable, "the connection is lost, reconnecting".into())
            }
            Phase::Fetching if self.is_suspended => (ConsumerState::Stuck, "its handlers hold it up".into()),
            Phase::Fetching => match &self.pause {
                Some(until) => (ConsumerState::Paused, format!("until {until}").into()),
                None if self.is_full => {
                    (ConsumerState::Stuck, "max_ack_pending is used up and nothing is settled".into())
                }
                None => (ConsumerState::Consuming, "".into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ConsumerState::*;
    use super::*;

    /// Something that happened.
    type Fact = fn(&mut Machine);

    /// The states that a consumption goes through, one after each fact.
    fn states(facts: &[Fact]) -> Vec<ConsumerState> {
        let mut machine = Machine::new(Instant::now());
        let after = |fact: &Fact| {
            fact(&mut machine);
            machine.conclude(Instant::now());
            machine.status().state
        };
        facts.iter().map(after).collect()
    }

    #[test]
    fn a_consumption_starts_binds_consumes_drains_and_stops() {
        let life: [Fact; 5] =
            [Machine::starts, Machine::binds, Machine::fetches, Machine::drains, Machine::ends];
        assert_eq!(states(&life), [Starting, Binding, Consuming, Draining, Stopped]);
    }

    #[test]
    fn trouble_lasts_until_messages_are_fetched_again() {
        let life: [Fact; 6] = [
            Machine::starts,
            |it| it.meets((NoStream, "the stream does not exist")),
            Machine::starts,
            Machine::binds,
            |it| it.meets((Unreachable, "no server answers")),
            Machine::fetches,
        ];
        assert_eq!(states(&life), [Starting, NoStream, NoStream, NoStream, Unreachable, Consuming]);
    }

    #[test]
    fn a_start_that_failed_elsewhere_is_told_unless_the_engine_knows_better() {
        let mut machine = Machine::new(Instant::now());
        machine.starts();
        machine.fails();
        machine.conclude(Instant::now());
        assert_eq!(&*machine.status().reason, "the last start failed, see the log");
        machine.meets((NoStream, "the stream does not exist"));
        machine.fails();
        machine.conclude(Instant::now());
        assert_eq!(machine.status().state, NoStream);
    }

    #[test]
    fn a_lost_link_comes_before_a_pause_and_a_pause_before_used_up_places() {
        let life: [Fact; 7] = [
            Machine::fetches,
            Machine::starts,
            Machine::fetches,
            |it| it.fills(true),
            |it| it.pauses(Some("tomorrow".into())),
            |it| it.links(false, false),
            |it| it.links(true, false),
        ];
        assert_eq!(states(&life), [Stopped, Starting, Consuming, Stuck, Paused, Unreachable, Paused]);
    }

    #[test]
    fn refused_credentials_are_told_from_a_server_that_is_away() {
        let life: [Fact; 6] = [
            Machine::starts,
            Machine::fetches,
            |it| it.links(false, false),
            |it| it.links(false, true),
            |it| it.meets((Unreachable, "no server answers")),
            |it| it.links(true, false),
        ];
        assert_eq!(states(&life), [Starting, Consuming, Unreachable, Denied, Denied, Unreachable]);
    }

    #[test]
    fn handlers_that_hold_it_up_make_it_stuck_until_they_go_on() {
        let life: [Fact; 4] =
            [Machine::starts, Machine::fetches, |it| it.suspends(true), |it| it.suspends(false)];
        assert_eq!(states(&life), [Starting, Consuming, Stuck, Consuming]);
    }

    #[test]
    fn nothing_that_happens_during_a_drain_ends_it() {
        let life: [Fact; 6] = [
            Machine::starts,
            Machine::fetches,
            Machine::drains,
            |it| it.links(false, false),
            |it| it.meets((Repairing, "silent")),
            Machine::fetches,
        ];
        assert_eq!(states(&life)[2..], [Draining; 4]);
    }

    #[test]
    fn a_new_start_forgets_what_was_true_of_the_one_before() {
        let life: [Fact; 6] = [
            Machine::starts,
            Machine::fetches,
            |it| it.pauses(Some("tomorrow".into())),
            Machine::ends,
            Machine::starts,
            Machine::fetches,
        ];
        assert_eq!(states(&life), [Starting, Consuming, Paused, Stopped, Starting, Consuming]);
    }

    #[test]
    fn it_is_ready_for_a_grace_after_it_was_ready_and_not_before_it_was() {
        let now = Instant::now();
        let mut machine = Machine::new(now);
        let grace = Duration::from_secs(3600);
        machine.starts();
        machine.conclude(now);
        assert!(!machine.status().is_ready(grace), "never ready yet");
        machine.fetches();
        machine.conclude(now);
        machine.links(false, false);
        machine.conclude(now);
        let lost = machine.status().clone();
        assert_eq!((lost.is_ready(grace), lost.is_ready(Duration::ZERO)), (true, false));
        machine.meets((Repairing, "the server is silent"));
        machine.conclude(now + grace);
        assert_eq!(machine.status().left, Some(now), "the grace does not begin again");
        machine.meets((NoStream, "the stream does not exist"));
        machine.conclude(now);
        assert!(!machine.status().is_ready(grace), "a missing stream has none");
        machine.drains();
        machine.conclude(now);
        assert!(!machine.status().is_ready(grace), "a drain has none");
    }

    #[test]
    fn a_state_keeps_its_beginning_while_only_its_reason_changes() {
        let now = Instant::now();
        let mut machine = Machine::new(now);
        machine.starts();
        machine.meets((Repairing, "silent"));
        assert!(machine.conclude(now));
        machine.meets((Repairing, "the durable does not exist"));
        assert!(machine.conclude(now + Duration::from_secs(5)));
        assert_eq!((machine.status().since, &*machine.status().reason), (now, "the durable does not exist"));
        assert!(!machine.conclude(now + Duration::from_secs(6)), "nothing new");
    }

    #[test]
    fn each_error_of_a_start_names_what_is_wrong() {
        let state = |kind| trouble_of(&Error::new(kind, "secret")).0;
        assert_eq!(state(ErrorKind::StreamNotFound), NoStream);
        assert_eq!(state(ErrorKind::Denied), Denied);
        assert_eq!(state(ErrorKind::Disconnected), Unreachable);
        assert_eq!(state(ErrorKind::Api { code: 503, err_code: 0 }), Unreachable);
        assert_eq!(state(ErrorKind::Api { code: 400, err_code: 10025 }), Repairing);
    }

    #[test]
    fn names_of_states_differ() {
        let names: std::collections::HashSet<_> =
            ConsumerState::ALL.iter().map(|state| state.name()).collect();
        assert_eq!(names.len(), ConsumerState::ALL.len());
    }
}
