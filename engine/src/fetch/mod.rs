//! Messages come in: by pull, asked for as there are places, or by push, at the handlers' speed.

mod budget;
pub(crate) mod demand;
mod pace;
mod pull;
mod push;
pub(crate) mod window;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Raw, Subscriber};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bind::durable::Durable;
use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::fetch::demand::Problem;
use crate::handle::delivery::{Delivery, admit};
use crate::jetstream::info::{ConsumerInfo, consumer_info};
use crate::jetstream::status::is_status;
use crate::settle::Settler;
use crate::suspect::Suspects;

/// Messages taken from the subscription at once, so that neighbours on the runtime get their turn.
const BURST: usize = 512;

/// How long messages that are on their way at a drain may take to arrive.
const LAST_ARRIVALS: Duration = Duration::from_secs(1);

/// How long a fetch may take to end after it was stopped.
pub(crate) const LONGEST_END: Duration = Duration::from_millis(1500);

/// Nothing is on its way any more when nothing arrived for this long.
const QUIET: Duration = Duration::from_millis(50);

/// Everything a fetch loop works with.
pub(crate) struct Fetch<'a> {
    pub(crate) options: &'a ConsumerOptions,
    pub(crate) connection: &'a Connection,
    pub(crate) durable: &'a Durable,
    pub(crate) settler: &'a Arc<Settler>,
    pub(crate) suspects: &'a Arc<Suspects>,
    /// The state of the durable, whenever the server has told it.
    pub(crate) known: watch::Receiver<ConsumerInfo>,
    pub(crate) stop: &'a CancellationToken,
}

/// Fetches until `stop`, or until asking again cannot help. After a stop, what was on its way still arrives.
pub(crate) async fn fetch(fetch: Fetch<'_>) -> Result<(), Problem> {
    match fetch.durable.deliver_subject() {
        Some(subject) => fetch.push(subject).await,
        None => fetch.pull(&fetch.connection.client().new_inbox()).await,
    }
}

impl Fetch<'_> {
    fn admit(&self, arrived: &mut Vec<Raw>, deliveries: &mut Vec<Delivery>, note: impl FnOnce(&Delivery)) {
        if arrived.is_empty() {
            return;
        }
        admit(self.settler, arrived, deliveries);
        if let Some(last) = deliveries.last() {
            note(last);
            self.suspects.put(deliveries);
        }
    }

    /// Unsubscribes, and takes what was on its way. It is little, and runs if a handler is free for it: what is
    /// handed back instead would count as an attempt.
    ///
    /// async-nats forgets a subscription before the server does, and what is on its way then would have
    /// to wait for `ack_wait`. So it unsubscribes only when all is quiet. Until then nothing is handled: the server would
    /// send more.
    async fn take_last_arrivals(&self, mut subscriber: Subscriber) {
        let (stream, durable) = (&self.options.stream, &self.durable.name);
        let mut arrived = Vec::new();
        let deadline = Instant::now() + LAST_ARRIVALS;
        let mut is_quiet = !self.connection.is_up();
        while !is_quiet && Instant::now() < deadline {
            let before = arrived.len();
            // A busy server answers behind what it has sent.
            let _ = timeout_at(deadline, consumer_info(self.connection, stream, durable)).await;
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
            let _ = timeout_at(deadline.max(Instant::now() + QUIET), rest).await;
        }
        arrived.retain(|message| !is_status(message));
        self.admit(&mut arrived, &mut Vec::new(), |_| {});
    }
}
