//! Consumes a stream until Ctrl-C: `cargo run --example hello -- nats://127.0.0.1:4222`.

use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, HandlerError, Message, Router, StreamConfig, consume,
    ensure_stream,
};

async fn created(message: Message) -> Result<(), HandlerError> {
    let order: serde_json::Value = message.json()?; // a dead letter, if it is no JSON
    println!("created: {order}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);

    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    let router = Router::new()
        .route("orders.created", created)?
        .route("orders.>", async |message: Message| println!("something else: {}", message.subject()))?;
    let consumption = consume(connect, ConsumerOptions::pull("orders", "hello"), router).await?;

    tokio::signal::ctrl_c().await?;
    consumption.drain(Duration::from_secs(25)).await;
    println!("{:?}", consumption.counters());
    Ok(())
}
