//! Consuming with async-nats alone.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{
    self, Message,
    consumer::{AckPolicy, pull, push},
    stream::Stream,
};
use futures_util::{Stream as Messages, TryStreamExt};

use crate::task::{self, BoxError, Task};
use crate::work::{PAUSE, Tally, Work};

/// As the engine's own durables have it.
const PULL_ACK_PENDING: i64 = 20_000;
const PUSH_ACK_PENDING: i64 = 2_000;
/// Tried from 100 to 10,000: more does not help.
const BATCH: usize = 2_000;
/// The server cuts off who has more than 64 MiB on its way to him.
const BYTES_ON_THE_WAY: usize = 32 * 1024 * 1024;
/// How many handlers wait at once.
const CONCURRENCY: usize = 100;

pub(crate) async fn run(task: &Task) -> Result<(), BoxError> {
    let work = Work::named(&task.work)?;
    task::ready().await?;
    let client = async_nats::connect(&task.url).await?;
    let stream = jetstream::new(client.clone()).get_stream(&task.stream).await?;
    let tally = Arc::new(Tally::default());
    let consuming = if task.kind == "push" {
        let messages = push_messages(&stream, task, client.new_inbox()).await?;
        tokio::spawn(handle_all(messages, work, tally.clone()))
    } else {
        let messages = pull_messages(&stream, task).await?;
        tokio::spawn(handle_all(messages, work, tally.clone()))
    };
    task::over().await?;
    consuming.abort();
    task::report(&tally.report());
    Ok(())
}

async fn pull_messages(stream: &Stream, task: &Task) -> Result<pull::Stream, BoxError> {
    let config = pull::Config {
        durable_name: Some(task.durable.clone()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: PULL_ACK_PENDING,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let messages =
        consumer.stream().max_messages_per_batch(BATCH.min(at_once(task))).expires(Duration::from_secs(30));
    Ok(messages.messages().await?)
}

async fn push_messages(stream: &Stream, task: &Task, inbox: String) -> Result<push::Messages, BoxError> {
    let config = push::Config {
        durable_name: Some(task.durable.clone()),
        deliver_subject: inbox,
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: PUSH_ACK_PENDING.min(i64::try_from(at_once(task))?),
        ..Default::default()
    };
    Ok(stream.create_consumer(config).await?.messages().await?)
}

/// How many messages fit into what may be on its way.
fn at_once(task: &Task) -> usize {
    BYTES_ON_THE_WAY / task.bytes.max(1)
}

async fn handle_all<M, E>(messages: M, work: Work, tally: Arc<Tally>) -> Result<(), BoxError>
where
    M: Messages<Item = Result<Message, E>> + Send,
    E: Into<BoxError>,
{
    let messages = messages.map_err(Into::into);
    if work == Work::Wait {
        return messages
            .try_for_each_concurrent(CONCURRENCY, async |message| {
                tokio::time::sleep(PAUSE).await;
                settle(&message, work, &tally).await
            })
            .await;
    }
    messages.try_for_each(async |message| settle(&message, work, &tally).await).await
}

async fn settle(message: &Message, work: Work, tally: &Tally) -> Result<(), BoxError> {
    work.on(&message.payload, tally)?;
    message.ack().await
}
