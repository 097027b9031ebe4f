//! Messages come in: by pull, asked for as there are places, or by push, as the server sends them.
//!
//! The pull loop is ours and not `consumer.messages()` of async-nats, which cannot stop asking and still
//! drain, drops what overflows its channel, and takes half a minute to notice a new leader.

pub(crate) mod demand;
pub(crate) mod window;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::{Message as Raw, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bind::durable::{Durable, next_subject};
use crate::config::ConsumerOptions;
use crate::connect::{Connection, Link};
use crate::fetch::demand::{Ask, Demand, Problem};
use crate::fetch::window::{Window, largest_answer};
use crate::handle::delivery::{Delivery, admit};
use crate::jetstream::api::call;
use crate::jetstream::status::{Status, is_status};
use crate::settle::Settler;
use crate::suspect::Suspects;

/// Messages taken from the subscription at once, so that neighbours on the runtime get their turn.
const BURST: usize = 512;

/// What subject and headers may add to a payload.
const OVERHEAD: usize = 64 * 1024;

/// How long a request may take to be handed to the connection; a frozen server lets them pile up.
const SENDING: Duration = Duration::from_secs(1);

/// How long messages that are on their way at a drain may take to arrive.
const LAST_ARRIVALS: Duration = Duration::from_secs(1);

/// Nothing is on its way any more when nothing arrived for this long.
const QUIET: Duration = Duration::from_millis(50);

/// Everything a fetch loop works with.
pub(crate) struct Fetch<'a> {
    pub(crate) options: &'a ConsumerOptions,
    pub(crate) connection: &'a Connection,
    pub(crate) durable: &'a Durable,
    pub(crate) settler: &'a Arc<Settler>,
    pub(crate) suspects: &'a Suspects,
    pub(crate) stop: &'a CancellationToken,
}

/// Fetches until `stop`, or until asking again cannot help. After a stop, what was on its way is handed back.
pub(crate) async fn fetch(fetch: Fetch<'_>) -> Result<(), Problem> {
    let subscriber = match &fetch.durable.deliver_subject {
        Some(subject) => fetch.subscribe_to_push(subject).await,
        None => {
            let inbox = fetch.connection.client().new_inbox();
            return fetch.pull(&inbox).await;
        }
    };
    fetch.take_pushes(subscriber.ok_or(Problem::Closed)?).await
}

impl Fetch<'_> {
    async fn pull(&self, inbox: &str) -> Result<(), Problem> {
        let client = self.connection.client();
        let mut subscriber = client.subscribe(format!("{inbox}.*")).await.map_err(|_| Problem::Closed)?;
        let mut link = self.connection.link();
        let generation = link.borrow_and_update().generation;
        let mut pull = Pull {
            demand: Demand::new(Instant::now(), self.options.fetch_timeout),
            window: Window::new(
                Instant::now(),
                self.options.concurrency,
                self.settler.shared.places.settled(),
            ),
            inbox,
            next: next_subject(&self.options.stream, &self.durable.name).into(),
            generation,
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
                    self.hand_back_last_arrivals(subscriber).await;
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

    async fn subscribe_to_push(&self, subject: &str) -> Option<Subscriber> {
        let client = self.connection.client();
        let subject = subject.to_owned();
        match self.durable.deliver_group.clone() {
            Some(group) => client.queue_subscribe(subject, group).await.ok(),
            None => client.subscribe(subject).await.ok(),
        }
    }

    async fn take_pushes(&self, mut subscriber: Subscriber) -> Result<(), Problem> {
        let (mut arrived, mut deliveries) = (Vec::with_capacity(BURST), Vec::with_capacity(BURST));
        loop {
            let message = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.hand_back_last_arrivals(subscriber).await;
                    return Ok(());
                }
                message = subscriber.next() => message.ok_or(Problem::Closed)?,
            };
            let mut next = Some(message);
            while let Some(message) = next {
                if is_status(&message) {
                    self.answer_flow_control(message).await;
                } else {
                    arrived.push(message);
                }
                next = if arrived.len() < BURST { subscriber.next().now_or_never().flatten() } else { None };
            }
            self.admit(&mut arrived, &mut deliveries);
        }
    }

    /// Older durables may have flow control: without an answer the server stops sending.
    async fn answer_flow_control(&self, message: Raw) {
        if let Some(reply) = message.reply {
            let _ = timeout(SENDING, self.connection.client().publish(reply, Vec::new().into())).await;
        }
    }

    fn admit(&self, arrived: &mut Vec<Raw>, deliveries: &mut Vec<Delivery>) {
        if arrived.is_empty() {
            return;
        }
        admit(self.settler, arrived, deliveries);
        if !deliveries.is_empty() {
            self.suspects.put(deliveries);
        }
    }

    /// Takes what was asked for already, unsubscribes, and hands all of it back.
    ///
    /// async-nats forgets a subscription before the server does, and what is on its way then would have
    /// to wait for `ack_wait`. So it unsubscribes only when all is quiet.
    async fn hand_back_last_arrivals(&self, mut subscriber: Subscriber) {
        let question = format!("CONSUMER.INFO.{}.{}", self.options.stream, self.durable.name);
        let mut arrived = Vec::new();
        let deadline = Instant::now() + LAST_ARRIVALS;
        let mut is_quiet = !self.connection.is_up();
        while !is_quiet && Instant::now() < deadline {
            let before = arrived.len();
            // A busy server answers behind what it has sent.
            let _ = timeout(LAST_ARRIVALS, call(self.connection, &question, &Value::Null)).await;
            while let Ok(Some(message)) =
                timeout_at(deadline.min(Instant::now() + QUIET), subscriber.next()).await
            {
                arrived.push(message);
            }
            is_quiet = arrived.len() == before;
        }
        if self.connection.is_up() && subscriber.drain().await.is_ok() {
            let rest = async {
                while let Some(message) = subscriber.next().await {
                    arrived.push(message);
                }
            };
            let _ = timeout(LAST_ARRIVALS, rest).await;
        }
        arrived.retain(|message| !is_status(message));
        let mut deliveries = Vec::new();
        admit(self.settler, &mut arrived, &mut deliveries);
        deliveries.iter().for_each(Delivery::hand_back);
    }
}

struct Pull<'a> {
    demand: Demand,
    window: Window,
    inbox: &'a str,
    next: Subject,
    generation: u64,
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
        if let Some(ask) = self.demand.ask(now, size.saturating_sub(held), least) {
            self.send(fetch, ask, size).await;
        }
        let outstanding = self.demand.outstanding();
        let least = if outstanding == 0 { 1 } else { least };
        // Where the outstanding alone fills the window, its arrival is what to wait for.
        let mark = size.checked_sub(outstanding + least)?;
        (held > mark).then_some(mark)
    }

    async fn send(&self, fetch: &Fetch<'_>, Ask { id, batch }: Ask, window: usize) {
        // The largest message must fit, or it would be asked for in vain for ever.
        let largest = fetch.connection.client().max_payload() + OVERHEAD;
        let request = json!({
            "batch": batch,
            "max_bytes": largest_answer(window, batch).max(largest),
            "expires": nanoseconds(self.demand.expires()),
            "idle_heartbeat": nanoseconds(self.demand.heartbeat()),
        });
        let reply = format!("{}.{id}", self.inbox);
        let client = fetch.connection.client();
        let sending = client.publish_with_reply(self.next.clone(), reply, request.to_string().into());
        // A request that cannot be sent is missed like one that is lost: by its heartbeat.
        let _ = timeout(SENDING, sending).await;
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
        fetch.admit(&mut self.arrived, &mut self.deliveries);
        self.count_repairs(fetch);
        problem
    }

    fn count_repairs(&mut self, fetch: &Fetch<'_>) {
        let repairs = self.demand.take_repairs();
        if repairs > 0 {
            fetch.settler.shared.counters.repairs.fetch_add(repairs, Relaxed);
        }
    }

    fn note(&mut self, link: &watch::Receiver<Link>) {
        let generation = link.borrow().generation;
        if generation != self.generation {
            self.generation = generation;
            self.demand.reconnected(Instant::now());
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
