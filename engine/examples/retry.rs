//! Every second order fails at first: `cargo run --example retry -- nats://127.0.0.1:4222`.

use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, HandlerError, Message, Outcome, RetryPolicy, Schedule,
    StreamConfig, consume, ensure_stream,
};

async fn bill(message: Message) -> Result<Outcome, HandlerError> {
    let (place, order) = (message.metadata()?, std::str::from_utf8(message.payload())?);
    println!("{order}: attempt {}", place.delivered);
    match (place.stream_sequence % 2, place.delivered) {
        (0, 1) => Err("the bank did not answer".into()), // again as the policy says
        (0, 2) => Ok(Outcome::Retry { after: Some(Duration::from_millis(50)) }), // again when the handler says
        _ => Ok(Outcome::Ack),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    // Five attempts at most; they wait 0.2, 0.4, 0.8 and 1.6 seconds, on the server and in nobody's way.
    let (initial, max) = (Duration::from_millis(200), Duration::from_secs(60));
    let retry = RetryPolicy::new(5, Schedule::Exponential { initial, factor: 2.0, max })?;
    let options = ConsumerOptions::pull("orders", "retry").retry(retry);
    let consumption = consume(connect, options, bill).await?;

    tokio::signal::ctrl_c().await?;
    consumption.drain(Duration::from_secs(25)).await;
    println!("{:?}", consumption.counters());
    Ok(())
}
