//! Consuming with the project's engine, without Python: what its own way costs.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{ConnectOptions, ConsumerOptions, HandlerError, Message, consume};

use crate::task::{self, BoxError, Task};
use crate::work::{Tally, Work};

pub(crate) async fn run(task: &Task) -> Result<(), BoxError> {
    let work = Work::named(&task.work)?;
    task::ready().await?;
    let options = match task.kind.as_str() {
        "push" => ConsumerOptions::push(&task.stream, &task.durable),
        _ => ConsumerOptions::pull(&task.stream, &task.durable),
    };
    let tally = Arc::new(Tally::default());
    let counting = tally.clone();
    let handler = move |message: Message| {
        let tally = counting.clone();
        async move {
            if let Some(pause) = work.pause() {
                tokio::time::sleep(pause).await;
            }
            work.on(message.payload(), &tally).map_err(HandlerError::from)
        }
    };
    let consumption = consume(ConnectOptions::to([task.url.as_str()]), options, handler).await?;
    task::over().await?;
    consumption.drain(Duration::from_secs(1)).await;
    task::report(&tally.report());
    Ok(())
}
