//! Publishing: backlogs, a steady pace, and the limit for publishers.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::task::{self, BoxError, Task};
use crate::work::{STAMP_DIGITS, now};

/// How many publishes wait for their confirmation at once.
const IN_FLIGHT: usize = 4_000;

/// Their sizes together: what is confirmed late need not be held.
const BYTES_ON_THE_WAY: usize = 32 * 1024 * 1024;

/// Stores `messages` messages as fast as it goes.
pub(crate) async fn fill(task: &Task) -> Result<(), BoxError> {
    store_all(task).await
}

/// Publishes at `rate` a second, each message stamped with the time it was due, so that a publisher
/// that is held up does not make the latency look better than it is.
pub(crate) async fn pace(task: &Task) -> Result<(), BoxError> {
    let client = async_nats::connect(&task.url).await?;
    let period = Duration::from_secs(1) / u32::try_from(task.rate)?;
    let (began, epoch) = (Instant::now(), now());
    for number in 0..task.messages {
        let due = period * u32::try_from(number)?;
        // A timer of tokio's would be up to a millisecond late, and that is what would be measured.
        tokio::task::block_in_place(|| std::thread::sleep(due.saturating_sub(began.elapsed())));
        let stamp = epoch + u64::try_from(due.as_nanos())?;
        let payload = format!("{stamp:0STAMP_DIGITS$} {}", task.payload);
        client.publish(subject(task, number), payload.into()).await?;
        client.flush().await?;
    }
    Ok(())
}

/// Publishes one message after the other, each confirmed before the next.
pub(crate) async fn sequential(task: &Task) -> Result<(), BoxError> {
    task::ready().await?;
    let context = jetstream::new(async_nats::connect(&task.url).await?);
    let payload = Bytes::from(task.payload.clone());
    let began = Instant::now();
    for number in 0..task.messages {
        context.publish(subject(task, number), payload.clone()).await?.await?;
    }
    task::report(&json!({ "seconds": began.elapsed().as_secs_f64() }));
    Ok(())
}

/// Publishes with many confirmations outstanding.
pub(crate) async fn pipelined(task: &Task) -> Result<(), BoxError> {
    task::ready().await?;
    let began = Instant::now();
    store_all(task).await?;
    task::report(&json!({ "seconds": began.elapsed().as_secs_f64() }));
    Ok(())
}

async fn store_all(task: &Task) -> Result<(), BoxError> {
    let client = async_nats::connect(&task.url).await?;
    let context = jetstream::ContextBuilder::new().max_ack_inflight(IN_FLIGHT).build(client);
    let payload = Bytes::from(task.payload.repeat(task.repeat.max(1)));
    let at_once = IN_FLIGHT.min(BYTES_ON_THE_WAY / payload.len().max(1)).max(1);
    stream::iter(0..task.messages)
        .map(Ok::<_, BoxError>)
        .try_for_each_concurrent(at_once, |number| {
            let (context, subject, payload) = (&context, subject(task, number), payload.clone());
            async move {
                context.publish(subject, payload).await?.await?;
                Ok(())
            }
        })
        .await
}

fn subject(task: &Task, number: u64) -> String {
    let subjects = u64::try_from(task.subjects.len()).unwrap_or(u64::MAX);
    task.subjects[usize::try_from(number % subjects).unwrap_or_default()].clone()
}
