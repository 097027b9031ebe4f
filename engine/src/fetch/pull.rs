//! Pull: as many messages are asked for as there are places.
//!
//! The loop is ours and not `consumer.messages()` of async-nats, which cannot stop asking and still
//! drain, drops what overflows its channel, and takes half a minute to notice a new leader.

use std::time::Duration;

use async_nats::{Message as Raw, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::bind::durable::next_subject;
use crate::connect::{Link, SEND_TIMEOUT};
use crate::fetch::budget::{Budget, SMALLEST};
use crate::fetch::demand::{Ask, Demand, Problem};
use crate::fetch::window::{LARGEST_ANSWER, Window, largest_answer};
use crate::fetch::{BURST, Fetch};
use crate::handle::delivery::Delivery;
use crate::jetstream::api::nanoseconds;
use crate::jetstream::status::Status;
use crate::observe::meter::Repair;

/// Bytes that subject and headers may add to a payload.
const OVERHEAD: usize = 64 * 1024;

/// The parts that a connection is divided in; seldom do more of those who share it have a backlog.
const MOST_PARTS: usize = 8;

impl Fetch<'_> {
    pub(super) async fn pull(&self, inbox: &str) -> Result<(), Problem> {
        let client = self.connection.client();
        let mut subscriber = client.subscribe(format!("{inbox}.*")).await.map_err(|_| Problem::Closed)?;
        let mut link = self.connection.link();
        let generation = link.borrow_and_update().generation;
        let mut pull = Pull {
            demand: Demand::new(
                Instant::now(),
                self.expires(),
                self.durable.max_batch().unwrap_or(usize::MAX),
            ),
            window: Window::new(Instant::now(), self.options.places(), self.settler.shared.places.settled()),
            inbox,
            next: next_subject(self.connection, &self.options.stream, &self.durable.name).into(),
            generation,
            budget: Budget::new(LARGEST_ANSWER, Instant::now()),
            arrived: Vec::with_capacity(BURST),
            deliveries: Vec::with_capacity(BURST),
        };
        loop {
            let now = Instant::now();
            let mark = pull.ask(self, now).await;
            let places = &self.settler.shared.places;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.take_last_arrivals(subscriber).await;
                    return Ok(());
                }
                message = subscriber.next() => {
                    let first = message.ok_or(Problem::Closed)?;
                    pull.take(self, first, &mut subscriber)?;
                }
                () = places.fallen_to(mark.unwrap_or_default()), if mark.is_some() => {}
                changed = link.changed() => {
                    changed.map_err(|_| Problem::Closed)?;
                    pull.note(&link);
                }
                () = sleep_until(pull.demand.wake_at(now)) => {
                    pull.demand.tick(Instant::now())?;
                    pull.count_repairs(self);
                }
            }
        }
    }
}

impl Fetch<'_> {
    /// How long a request may wait.
    fn expires(&self) -> Duration {
        let declared = self.options.fetch_timeout;
        self.durable.max_expires().map_or(declared, |most| most.min(declared))
    }

    /// The size of the largest message that the server takes, with subject and headers.
    fn largest(&self) -> usize {
        self.connection.max_payload() + OVERHEAD
    }
}

struct Pull<'a> {
    demand: Demand,
    window: Window,
    inbox: &'a str,
    next: Subject,
    generation: u64,
    /// The most bytes that all requests together may bring.
    budget: Budget,
    arrived: Vec<Raw>,
    deliveries: Vec<Delivery>,
}

impl Pull<'_> {
    /// Asks for as many as there are places. Where too few are free, returns how many may be held when it
    /// is worth asking again.
    async fn ask(&mut self, fetch: &Fetch<'_>, now: Instant) -> Option<usize> {
        let places = &fetch.settler.shared.places;
        let held = places.held();
        self.window.observe(now, places.settled(), held, places.held_bytes());
        let size = self.window.size();
        let least = self.window.least(fetch.options.batch_size);
        if !fetch.connection.is_up() || self.demand.is_paused(now) {
            return None;
        }
        self.budget.trust_again(now);
        self.demand.limit(self.answer(fetch) / fetch.largest());
        while let Some(ask) = self.demand.ask(now, size.saturating_sub(held), least) {
            self.send(fetch, ask, size).await;
        }
        let outstanding = self.demand.outstanding();
        let least = if outstanding == 0 { 1 } else { least };
        // Where the outstanding alone fills the window, its arrival is what to wait for.
        let mark = size.checked_sub(outstanding + least)?;
        (held > mark).then_some(mark)
    }

    /// The bytes that all requests together may bring. The server closes the connection of who lags too far behind, so
    /// those who share it ask for less.
    fn answer(&self, fetch: &Fetch<'_>) -> usize {
        let part = self.budget.bytes() / fetch.connection.company().clamp(1, MOST_PARTS);
        part.max(SMALLEST)
    }

    async fn send(&self, fetch: &Fetch<'_>, Ask { id, batch }: Ask, window: usize) {
        // The largest message must fit, or it would be asked for again and again and never come.
        let bytes = largest_answer(self.answer(fetch), window, batch).max(fetch.largest());
        let mut request = json!({
            "batch": batch,
            "max_bytes": bytes.min(fetch.durable.max_bytes().unwrap_or(usize::MAX)),
            "expires": nanoseconds(self.demand.expires()),
            "idle_heartbeat": nanoseconds(self.demand.heartbeat()),
        });
        if let Some(group) = fetch.durable.group() {
            request["group"] = group.into();
        }
        let reply = format!("{}.{id}", self.inbox);
        let client = fetch.connection.client();
        let sending = client.publish_with_reply(self.next.clone(), reply, request.to_string().into());
        // A request that cannot be sent is missed like one that is lost: by its heartbeat.
        let _ = timeout(SEND_TIMEOUT, sending).await;
    }

    fn take(&mut self, fetch: &Fetch<'_>, first: Raw, subscriber: &mut Subscriber) -> Result<(), Problem> {
        let now = Instant::now();
        let mut next = Some(first);
        let mut problem = Ok(());
        while let Some(message) = next {
            match Status::read(self.inbox, &message) {
                None => self.arrived.push(message),
                Some(status) => problem = self.demand.status(now, status),
            }
            let goes_on = problem.is_ok() && self.arrived.len() < BURST;
            next = if goes_on { subscriber.next().now_or_never().flatten() } else { None };
        }
        if !self.arrived.is_empty() {
            self.demand.delivered(now, self.arrived.len());
        }
        fetch.admit(&mut self.arrived, &mut self.deliveries, |_| {});
        self.count_repairs(fetch);
        problem
    }

    fn count_repairs(&mut self, fetch: &Fetch<'_>) {
        let repairs = self.demand.take_repairs();
        if repairs > 0 {
            fetch.settler.shared.note_repairs(Repair::Request, repairs);
        }
    }

    fn note(&mut self, link: &watch::Receiver<Link>) {
        let generation = link.borrow().generation;
        if generation != self.generation {
            self.generation = generation;
            self.budget.lose(Instant::now());
            self.demand.reconnected(Instant::now());
        }
    }
}
