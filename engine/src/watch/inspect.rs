//! Looks at the durable now and then: logs what keeps messages away, and notices a subscription that the server lost.
//!
//! Each look is a type with the memory it needs, so that a state is logged when it begins and not at every look.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::bind::declared::has_nothing_for;
use crate::bind::drift::Drift;
use crate::bind::durable::{Durable, how_to_resume, upsert};
use crate::bind::position::Position;
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::fetch::demand::Problem;
use crate::jetstream::info::{ConsumerInfo, pause, stream_info};
use crate::observe::target::CONSUMER;
use crate::settle::Settler;
use crate::watch::lag::{Lag, now_of};

/// Shortest pause between two looks.
const INSPECT_INTERVAL: Duration = Duration::from_secs(2);

/// Shortest pause between two looks at the stream, whose subjects seldom change. While the durable rests, there is one for
/// each state that the server is asked for.
const STREAM_LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// A pause that runs out soon. The request for it must arrive before.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

/// Inspects one durable. It outlives repairs, so that a new binding does not log again what is known.
pub(crate) struct Inspector {
    options: Arc<ConsumerOptions>,
    settler: Arc<Settler>,
    position: Position,
    blockage: Blockage,
    /// Whether the stream has no subject that the filter matches.
    has_nothing: Switch,
    last_stream_look: Option<Instant>,
    is_paused: Switch,
    /// Deliveries that the durable had made at the last look, and when it was asked for the rest of a pause.
    delivered: Option<u64>,
    asked_at: Option<u64>,
    drift: Drift,
    full_queue: Option<i64>,
    lag: Lag,
}

impl Inspector {
    pub(crate) fn new(options: Arc<ConsumerOptions>, settler: Arc<Settler>) -> Self {
        Self {
            lag: Lag::new(options.clone(), settler.clone()),
            options,
            settler,
            position: Position::default(),
            blockage: Blockage::default(),
            has_nothing: Switch::default(),
            last_stream_look: None,
            is_paused: Switch::default(),
            delivered: None,
            asked_at: None,
            drift: Drift::default(),
            full_queue: None,
        }
    }

    /// The position of the durable at the last look.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// `max_waiting` of the durable, if other workers held all of its pull requests at the last look.
    pub(crate) fn full_queue(&self) -> Option<i64> {
        self.full_queue
    }

    /// Looks whenever the state in `known` has changed; returns when the durable needs repair.
    pub(crate) async fn run(
        &mut self,
        connection: &Connection,
        durable: &Durable,
        mut known: watch::Receiver<ConsumerInfo>,
    ) -> Problem {
        let mut arrivals = Arrivals::default();
        if let Ok(info) = stream_info(connection, &self.options.stream).await {
            self.position.note_stream(&info);
        }
        // The first look is at once: a durable that is deleted early must not be replayed either.
        while known.changed().await.is_ok() {
            let info = known.borrow_and_update().clone();
            self.look_at_durable(durable, &info);
            self.settler.shared.backlog.store(info.num_pending, Relaxed);
            self.lift_limits(connection, durable, &info).await;
            self.end_pause(connection, durable, &info).await;
            arrivals.look(self.settler.shared.counters.snapshot().received);
            if arrivals.may_have_stopped() {
                self.look_at_stream(connection).await;
            }
            let is_listening = !*self.settler.shared.suspended.borrow();
            if is_listening && arrivals.have_stopped() && is_unsubscribed(durable, &info) {
                return Problem::Silent;
            }
            self.lag.ask(connection, &info).await;
            sleep(INSPECT_INTERVAL).await;
        }
        Problem::Closed
    }

    fn look_at_durable(&mut self, durable: &Durable, info: &ConsumerInfo) {
        self.position.note(info);
        self.full_queue = full_queue(info);
        self.look_at_places(info);
        self.look_at_drift(durable, info);
        self.look_at_pause(durable, info);
        self.lag.note(info);
    }

    /// Delayed retries count too: when all places at the server are taken, nobody gets anything new.
    fn look_at_places(&mut self, info: &ConsumerInfo) {
        let limit = info.max_ack_pending();
        let here = &self.settler.shared.places;
        // If all of them run, it is as it should be.
        let is_idle = here.held() < self.options.at_once();
        // Where one at a time is declared, the others wait for it as they should.
        let is_full = limit > 1 && info.num_ack_pending >= limit && is_idle;
        let begins = self.blockage.look(is_full, here.settled());
        let is_stuck = self.blockage.persists();
        self.settler.shared.monitor.note(|machine| machine.fills(is_stuck));
        if begins {
            warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "All {limit} deliveries that max_ack_pending allows are running or wait for a retry: nothing new arrives \
                 until some are settled. Raise max_ack_pending, or fix the handlers that fail."
            );
        }
    }

    /// Follows a changed `ack_wait`, and warns of what else was changed.
    fn look_at_drift(&mut self, durable: &Durable, info: &ConsumerInfo) {
        let drift = Drift::of(&info.config, &durable.config, &self.options);
        self.settler.follow(drift.ack_wait);
        if self.drift != drift {
            drift.warn(&self.options);
            self.drift = drift;
        }
    }

    /// A pause looks like silence.
    fn look_at_pause(&mut self, durable: &Durable, info: &ConsumerInfo) {
        let until = info.config.get("pause_until").and_then(Value::as_str).unwrap_or("it is resumed");
        let pause = info.paused.then(|| until.to_owned());
        self.settler.shared.monitor.note(|machine| machine.pauses(pause));
        match self.is_paused.look(info.paused) {
            Some(true) => warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "The durable is paused: no message arrives until {until}. {}",
                how_to_resume(&self.options.stream, &durable.name)
            ),
            Some(false) => {
                info!(target: CONSUMER, consumer = self.options.name, "The durable is no longer paused.");
            }
            None => {}
        }
    }

    /// A server that ends a pause at once, as `nats consumer resume` asks, sends a push consumer nothing until the next
    /// message is stored (seen on nats-server 2.15.1). It does when a pause runs out.
    async fn end_pause(&mut self, connection: &Connection, durable: &Durable, info: &ConsumerInfo) {
        let delivered = Some(info.delivered.consumer_seq);
        let stands_still = std::mem::replace(&mut self.delivered, delivered) == delivered;
        // The pause itself may have been too short to be seen.
        if !stands_still || !is_held_back(durable, info) || self.asked_at == delivered {
            return;
        }
        self.asked_at = delivered;
        let until = humantime::format_rfc3339_millis(now_of(info) + SHORT_PAUSE).to_string();
        if let Err(error) = pause(connection, &self.options.stream, &durable.name, &until).await {
            warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "The pause is over, but the server could not be asked to continue: {error} Messages arrive when the next \
                 one is stored."
            );
        }
    }

    /// Takes limits away that no version declares. Nothing else is touched: another version of the consumer may have
    /// changed it.
    async fn lift_limits(&self, connection: &Connection, durable: &Durable, info: &ConsumerInfo) {
        let mut lifted = info.config.clone();
        self.drift.lift_limits(&mut lifted);
        if lifted == info.config || !self.options.manages_durable {
            return;
        }
        // An error is not final: the next look tries again.
        if let Err(error) = upsert(connection, &self.options.stream, &durable.name, &lifted).await {
            warn!(target: CONSUMER, consumer = self.options.name, "{error}");
        }
    }

    /// Somebody changed the subjects of the stream, or the filter is wrong: that looks like silence.
    async fn look_at_stream(&mut self, connection: &Connection) {
        let is_due = self.last_stream_look.is_none_or(|last| last.elapsed() >= STREAM_LOOK_INTERVAL);
        if self.options.filter_subjects.is_empty() || !is_due {
            return;
        }
        self.last_stream_look = Some(Instant::now());
        let Ok(info) = stream_info(connection, &self.options.stream).await else { return };
        if self.has_nothing.look(has_nothing_for(&self.options, &info.config)) == Some(true) {
            warn!(
                target: CONSUMER,
                consumer = self.options.name,
                "Nothing new can arrive: no subject of the stream `{}` ({}) matches the filter ({}). Change one of them.",
                self.options.stream,
                info.config.get("subjects").map(ToString::to_string).unwrap_or_default(),
                self.options.filter_subjects.join(", ")
            );
        }
    }
}

/// A condition that is reported when it begins and when it ends.
#[derive(Debug, Default)]
pub(crate) struct Switch(bool);

impl Switch {
    /// The new value, if it is another one than at the last look.
    pub(crate) fn look(&mut self, now: bool) -> Option<bool> {
        (std::mem::replace(&mut self.0, now) != now).then_some(now)
    }

    fn is_on(&self) -> bool {
        self.0
    }
}

/// Whether `max_ack_pending` keeps new messages away.
#[derive(Debug, Default)]
struct Blockage {
    /// The number of settled deliveries when all places were found taken.
    settled_when_full: Option<usize>,
    is_stuck: Switch,
}

impl Blockage {
    /// Whether they begin to be stuck: all are taken, and nothing was settled since the last look. A backlog fills the
    /// places of a push consumer for a moment.
    fn look(&mut self, is_full: bool, settled: usize) -> bool {
        let is_stuck = is_full && self.settled_when_full == Some(settled);
        self.settled_when_full = is_full.then_some(settled);
        self.is_stuck.look(is_stuck) == Some(true)
    }

    fn persists(&self) -> bool {
        self.is_stuck.is_on()
    }
}

/// Whether messages arrive.
#[derive(Debug, Default)]
struct Arrivals {
    received: Option<u64>,
    /// `None` at the first look.
    are_new: Option<bool>,
}

impl Arrivals {
    fn look(&mut self, received: u64) {
        self.are_new = self.received.map(|before| before != received);
        self.received = Some(received);
    }

    /// Whether nothing arrived since the last look, or this is the first one.
    fn may_have_stopped(&self) -> bool {
        self.are_new != Some(true)
    }

    /// Whether nothing arrived since the last look.
    fn have_stopped(&self) -> bool {
        self.are_new == Some(false)
    }
}

/// The `max_waiting` of a durable whose pull requests are all taken: the server drops others without an answer (seen on
/// nats-server 2.15.1).
fn full_queue(info: &ConsumerInfo) -> Option<i64> {
    let most = info.config.get("max_waiting")?.as_i64().filter(|most| *most > 0)?;
    (info.num_waiting >= most).then_some(most)
}

/// Whether a push durable delivers nothing although it could.
fn is_held_back(durable: &Durable, info: &ConsumerInfo) -> bool {
    let has_only_waiting = info.num_pending > 0 && info.num_ack_pending == 0;
    durable.deliver_subject().is_some() && has_only_waiting && info.push_bound && !info.paused
}

/// Whether the server sees nobody listen to a push consumer that has messages, although this worker listens.
fn is_unsubscribed(durable: &Durable, info: &ConsumerInfo) -> bool {
    durable.deliver_subject().is_some() && info.num_pending > 0 && !info.push_bound
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_is_reported_when_it_begins_and_when_it_ends() {
        let mut paused = Switch::default();
        let seen = [false, true, true, false, false].map(|now| paused.look(now));
        assert_eq!(seen, [None, Some(true), None, Some(false), None]);
    }

    #[test]
    fn places_persists_only_when_nothing_was_settled_between_two_looks() {
        let mut places = Blockage::default();
        let looks = [(true, 1), (true, 2), (true, 2), (true, 2), (false, 2), (true, 2), (true, 2)];
        let stuck = looks.map(|(is_full, settled)| places.look(is_full, settled));
        assert_eq!(stuck, [false, false, true, false, false, false, true]);
    }

    #[test]
    fn arrivals_have_stopped_when_two_looks_find_the_same_count() {
        let mut arrivals = Arrivals::default();
        let stopped = [0, 0, 3, 3].map(|received| {
            arrivals.look(received);
            (arrivals.may_have_stopped(), arrivals.have_stopped())
        });
        assert_eq!(stopped, [(true, false), (true, true), (false, false), (true, true)]);
    }

    #[test]
    fn the_queue_of_pull_requests_is_full_at_max_waiting() {
        let of = |max: i64, waiting: i64| {
            let info = json!({ "config": { "max_waiting": max }, "num_waiting": waiting });
            full_queue(&serde_json::from_value(info).unwrap())
        };
        assert_eq!([of(2, 1), of(2, 2), of(0, 2), of(-1, 2)], [None, Some(2), None, None]);
        assert_eq!(full_queue(&ConsumerInfo::default()), None);
    }
}
