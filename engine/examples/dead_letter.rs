//! Orders that nobody can read become dead letters: `cargo run --example dead_letter -- nats://127.0.0.1:4222`.

use std::time::Duration;

use futures_util::StreamExt;
use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, Exhausted, HandlerError, Message, StreamConfig, consume,
    ensure_stream,
};
use serde_json::Value;

async fn ship(message: Message) -> Result<(), HandlerError> {
    // No retry mends a payload that is not JSON: a dead letter at once. Other errors become one after the last attempt.
    let order: Value = message.json()?;
    let address = order["address"].as_str().ok_or("an order without an address")?;
    println!("shipped to {address}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    // The stream `orders-dlq` is made when it is needed; its headers say why: Dlq-Reason, Dlq-Error and more.
    let letters = connection.client().subscribe("dlq.orders.>").await?;
    tokio::spawn(letters.for_each(async |letter| {
        println!("dead letter: {:?} {:?}", letter.payload, letter.headers);
    }));
    let options = ConsumerOptions::pull("orders", "dead_letter").exhausted(Exhausted::DeadLetter);
    let consumption = consume(connect, options, ship).await?;

    tokio::signal::ctrl_c().await?;
    consumption.drain(Duration::from_secs(25)).await;
    Ok(())
}
