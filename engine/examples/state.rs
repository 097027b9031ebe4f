//! A handler with state and a decoded payload: `cargo run --example state -- nats://127.0.0.1:4222`.
//!
//! The tests at the end need no server: `cargo test --example state`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, HandlerError, Json, State, StreamConfig, consume,
    ensure_stream, run_until, with_state,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u64,
}

/// The stock of each item. In a service, this is a pool of database connections.
#[derive(Default)]
struct Stock(Mutex<HashMap<String, u64>>);

/// A payload that cannot be read as an order becomes a dead letter, and this is not called.
async fn reserve(State(stock): State<Arc<Stock>>, Json(order): Json<Order>) -> Result<(), HandlerError> {
    let mut stock = stock.0.lock().expect("no handler panics with the lock");
    let left = stock.entry(order.item).or_insert(10);
    *left = left.checked_sub(order.count).ok_or("too few are left")?;
    println!("{left} left");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    let handler = with_state(Arc::new(Stock::default()), reserve);
    let consumption = consume(connect, ConsumerOptions::pull("orders", "state"), handler).await?;

    let stop = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
    run_until(&[consumption], stop, Duration::from_secs(25)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nats_consumer::{Handler, Message};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_order_is_taken_from_the_stock() {
        let stock = Arc::new(Stock::default());
        let handler = with_state(stock.clone(), reserve);
        let order = || Message::builder("orders.created").json(&json!({ "item": "pen", "count": 6 })).build();
        assert!(handler.handle(order()).await.is_ok());
        assert_eq!(stock.0.lock().unwrap()["pen"], 4);
        let error = handler.handle(order()).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.outcome()), ("too few are left", None));
    }
}
