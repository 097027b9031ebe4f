//! Consuming with async-nats alone.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{
    self, Message,
    consumer::{AckPolicy, pull, push},
    stream::Stream,
};
use futures_util::{Stream as Messages, TryStreamExt};
use tokio::task::JoinHandle;

use crate::task::{self, BoxError, Task};
use crate::work::{SLOW_AT_ONCE, Tally, Work};

/// As the engine's own durables have it.
const PULL_ACK_PENDING: i64 = 20_000;
const PUSH_ACK_PENDING: i64 = 1_000;
/// Tried from 100 to 10,000: more does not help.
const BATCH: usize = 2_000;
/// The server cuts off who has more than 64 MiB on its way to him; a pull stream asks again when half is there.
const BYTES_ON_THE_WAY: usize = 16 * 1024 * 1024;
/// How many handlers wait at once.
const CONCURRENCY: usize = 100;

pub(crate) async fn run(task: &Task) -> Result<(), BoxError> {
    let work = Work::named(&task.work)?;
    task::ready().await?;
    let client = async_nats::connect(&task.url).await?;
    let tally = Arc::new(Tally::default());
    let at_once = if task.options.concurrency == 0 { CONCURRENCY } else { task.options.concurrency };
    let mut consuming =
        vec![consume(&client, task, (&task.stream, &task.durable), (work, at_once), &tally).await?];
    if !task.beside.is_empty() {
        let beside = (&task.beside, &format!("{}-slow", task.durable));
        consuming.push(consume(&client, task, beside, (Work::Slow, SLOW_AT_ONCE), &tally).await?);
    }
    task::over().await?;
    consuming.iter().for_each(JoinHandle::abort);
    task::report(&tally.report());
    Ok(())
}

/// Consumes `(stream, durable)` in a task of its own.
async fn consume(
    client: &Client,
    task: &Task,
    (stream, durable): (&String, &String),
    (work, at_once): (Work, usize),
    tally: &Arc<Tally>,
) -> Result<JoinHandle<Result<(), BoxError>>, BoxError> {
    let stream = jetstream::new(client.clone()).get_stream(stream).await?;
    let room = BYTES_ON_THE_WAY / task.bytes.max(1);
    Ok(if task.kind == "push" {
        let messages = push_messages(&stream, durable, client.new_inbox(), room).await?;
        tokio::spawn(handle_all(messages, work, at_once, tally.clone()))
    } else {
        let messages = pull_messages(&stream, durable, room).await?;
        tokio::spawn(handle_all(messages, work, at_once, tally.clone()))
    })
}

async fn pull_messages(stream: &Stream, durable: &str, room: usize) -> Result<pull::Stream, BoxError> {
    let config = pull::Config {
        durable_name: Some(durable.to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: PULL_ACK_PENDING,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let messages = consumer.stream().max_messages_per_batch(BATCH.min(room)).expires(Duration::from_secs(30));
    Ok(messages.messages().await?)
}

async fn push_messages(
    stream: &Stream,
    durable: &str,
    inbox: String,
    room: usize,
) -> Result<push::Messages, BoxError> {
    let config = push::Config {
        durable_name: Some(durable.to_owned()),
        deliver_subject: inbox,
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: PUSH_ACK_PENDING.min(i64::try_from(room)?),
        ..Default::default()
    };
    Ok(stream.create_consumer(config).await?.messages().await?)
}

async fn handle_all<M, E>(messages: M, work: Work, at_once: usize, tally: Arc<Tally>) -> Result<(), BoxError>
where
    M: Messages<Item = Result<Message, E>> + Send,
    E: Into<BoxError>,
{
    let messages = messages.map_err(Into::into);
    if let Some(pause) = work.pause() {
        return messages
            .try_for_each_concurrent(at_once, async |message| {
                tokio::time::sleep(pause).await;
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
