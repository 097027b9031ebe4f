//! A question to the leader of a durable. It does not use the JetStream API (docs/decisions/0039).

use std::time::Duration;

use async_nats::Request;
use bytes::Bytes;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::connect::denial::Permission;
use crate::jetstream::status::ACK_PREFIX;

/// The heartbeat of a handler that is still working.
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b"+WPI");

/// The sequence of no message: a stream that stores a million messages a second has it after 146,000 years.
const NO_MESSAGE: u64 = 1 << 62;

/// Whether the durable's leader confirms a heartbeat for a message that does not exist, within `limit`. It has read then
/// everything that was said over this connection before, and what it says afterwards is younger than the question.
pub(crate) async fn is_confirmed(
    connection: &Connection,
    stream: &str,
    durable: &str,
    limit: Duration,
) -> bool {
    let subject = format!("{ACK_PREFIX}{stream}.{durable}.1.{NO_MESSAGE}.{NO_MESSAGE}.0.0");
    connection.expect_denial(Permission::Publish, &subject);
    let request = Request::new().payload(HEARTBEAT).timeout(None);
    let sending = connection.client().send_request(subject.clone(), request);
    let asking = async { Ok(matches!(timeout(limit, sending).await, Ok(Ok(_)))) };
    connection.unless_denied(&[&subject], asking).await.unwrap_or(false)
}
