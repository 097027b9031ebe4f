//! Orders become rows of an index, many with each call: `cargo run --example batch -- nats://127.0.0.1:4222`.

use std::time::Duration;

use nats_consumer::{
    Batching, ConnectOptions, Connection, ConsumerOptions, Exhausted, HandlerError, Message, StreamConfig,
    consume_batches, ensure_stream,
};

/// All or nothing, as an insert of many rows is.
async fn insert(messages: Vec<Message>) -> Result<(), HandlerError> {
    let rows: Vec<u64> = messages.iter().map(Message::json).collect::<Result<_, _>>()?;
    println!("inserted {} rows: {rows:?}", rows.len());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    // A batch has up to four orders that arrive within 200 ms of the first. An order that is not a number becomes a dead
    // letter: its batch is split until it stands alone.
    let batching = Batching { wait: Duration::from_millis(200), ..Batching::of(4) };
    let options = ConsumerOptions::pull("orders", "batch").batching(batching).concurrency(1);
    let options = options.exhausted(Exhausted::DeadLetter);
    let consumption = consume_batches(connect, options, insert).await?;

    tokio::signal::ctrl_c().await?;
    consumption.drain(Duration::from_secs(25)).await;
    Ok(())
}
