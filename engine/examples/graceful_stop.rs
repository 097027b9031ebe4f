//! Handlers take a second; Ctrl-C loses none of it: `cargo run --example graceful_stop -- nats://127.0.0.1:4222`.

use std::time::Duration;

use nats_consumer::stream::create_stream;
use nats_consumer::{ConnectOptions, Connection, ConsumerOptions, Message, consume};
use serde_json::json;

async fn slowly(message: Message) {
    let order = String::from_utf8_lossy(message.payload());
    println!("{order}: begun");
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{order}: done");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    create_stream(&connection, &json!({ "name": "orders", "subjects": ["orders.>"] })).await?;

    // One at a time. The server holds the rest.
    let consumption = consume(connect, ConsumerOptions::push("orders", "graceful_stop"), slowly).await?;
    tokio::signal::ctrl_c().await?;

    // Nothing new is taken; the running handler has five seconds.
    let cancelled = consumption.drain(Duration::from_secs(5)).await;
    let counters = consumption.counters();
    println!("{} done, {} handed back, {cancelled} cancelled", counters.succeeded, counters.handed_back);
    Ok(())
}
