//! Settles messages that came by a subscription, without a consumption: each verdict is sent at once.

use std::time::Duration;

use async_nats::Request;
use tokio::time::timeout;

use crate::connect::{Connection, RECONNECT_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;

pub use crate::settle::verdict::Verdict;

/// Sends the verdict.
///
/// # Errors
/// [`ErrorKind::Config`] for a message of no stream, [`ErrorKind::Disconnected`], [`ErrorKind::Closed`].
pub async fn settle(connection: &Connection, message: &Message, verdict: Verdict) -> Result<()> {
    message.metadata()?;
    let Some(reply) = message.reply() else { return Ok(()) };
    connection.wait_until_up(RECONNECT_TIMEOUT, unsettled).await?;
    let wire = verdict.wire();
    connection.counted().sent(wire.len());
    let sent = connection.client().publish(reply.clone(), wire).await;
    sent.map_err(|error| Error::new(ErrorKind::Closed, "The connection is closed.").because(error))
}

/// Acknowledges and waits, at most `limit`, until the server has confirmed it; its answer.
///
/// # Errors
/// As [`settle`], and [`ErrorKind::Timeout`].
pub async fn ack_confirmed(connection: &Connection, message: &Message, limit: Duration) -> Result<Message> {
    message.metadata()?;
    let Some(reply) = message.reply() else { return Ok(message.clone()) };
    connection.wait_until_up(limit, unsettled).await?;
    let ack = Verdict::Ack.wire();
    connection.counted().sent(ack.len());
    let request = Request::new().payload(ack).timeout(Some(limit));
    match timeout(limit, connection.client().send_request(reply.clone(), request)).await {
        Ok(Ok(answer)) => {
            connection.counted().received(answer.payload.len());
            Ok(Message::new(answer))
        }
        _ => Err(Error::new(
            ErrorKind::Timeout,
            format!("The server did not confirm the acknowledgement within {limit:?}."),
        )),
    }
}

fn unsettled() -> String {
    "the message was not settled, and will be delivered again".into()
}
