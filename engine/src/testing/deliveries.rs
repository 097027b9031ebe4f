//! Deliveries that no server sent: for benchmarks of what happens to them on their way.

use std::fmt;
use std::sync::Arc;

use async_nats::Subject;

use crate::config::ConsumerOptions;
use crate::connect::Connection;
use crate::error::Result;
use crate::handle::delivery::{Delivery, admit};
use crate::observe::Monitor;
use crate::settle::Settler;
use crate::shared::Shared;

const PAYLOAD: &[u8] = &[b'x'; 128];

/// A consumption without a server: messages arrive when they are asked for, and settlements are gathered, but
/// written nowhere.
pub struct Arrivals(Arc<Settler>);

impl Arrivals {
    /// Arrivals on the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable), if the client does not wait for its server.
    pub async fn new() -> Result<Self> {
        let connection = Connection::to_nowhere().await?;
        let options = Arc::new(ConsumerOptions::pull("orders", "billing"));
        Ok(Self(Settler::new(Shared::new(options.clone(), connection, Monitor::alone(&options)))))
    }

    /// Makes deliveries of this number of messages of 128 bytes.
    #[must_use]
    pub fn arrive(&self, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(count);
        // No answer of a server tells how old they are.
        self.0.link_begins();
        admit(&self.0, &mut (0..count).map(|_| message()).collect(), &mut deliveries);
        deliveries
    }

    /// Ends the leases of what was settled, as a write does; returns how many would have been written.
    #[must_use]
    pub fn gather(&self) -> usize {
        self.0.take_settled().len()
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

fn message() -> async_nats::Message {
    let reply = "$JS.ACK.orders.billing.1.1234567.1234560.1764000000123456789.42";
    async_nats::Message {
        subject: Subject::from_static("orders.created"),
        reply: Some(Subject::from_static(reply)),
        payload: PAYLOAD.into(),
        headers: None,
        status: None,
        description: None,
        length: PAYLOAD.len(),
    }
}
