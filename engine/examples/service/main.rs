//! Bills orders and publishes invoices: `cargo run --example service -- nats://127.0.0.1:4222`.
//!
//! Two consumers of one stream, until Ctrl-C or SIGTERM. The tests at the end need no server.

mod billing;

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, Exhausted, Handler, Message, Publisher, Router,
    StreamConfig, consume, ensure_stream, run_until, with_state,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::billing::{Shop, bill, classify};

fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("orders.*.created", with_state(shop, bill))
        .expect("a valid pattern")
        .fallback(async |message: Message| println!("not billed: {}", message.subject()))
}

async fn audit(message: Message) {
    println!("audit: {} of {} bytes", message.subject(), message.payload().len());
}

/// Waits for Ctrl-C, or for the SIGTERM with which containers and service managers stop a process.
async fn stop() {
    let mut terminated = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.expect("a handler of Ctrl-C"),
        _ = terminated.recv() => {}
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]).name("service");
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;
    ensure_stream(&connection, &StreamConfig::new("invoices").subject("invoices.>")).await?;

    let shop = Arc::new(Shop { publisher: Some(Publisher::new(connect.clone())) });
    let billing = router(shop).classify(classify).on_outcome(|attempt| {
        // This is where a histogram by outcome goes.
        println!("{} in {:?}", attempt.outcome.name(), attempt.elapsed);
    });
    let options = ConsumerOptions::pull("orders", "billing")
        .concurrency(20)
        .handler_timeout(Duration::from_secs(30))
        .exhausted(Exhausted::DeadLetter);
    let audits = ConsumerOptions::push("orders", "audit");
    let consumptions =
        [consume(connect.clone(), options, billing).await?, consume(connect, audits, audit).await?];

    let unfinished = run_until(&consumptions, stop(), Duration::from_secs(25)).await;
    println!("{unfinished} unfinished");
    Ok(())
}

#[cfg(test)]
mod tests {
    use nats_consumer::{HandlerError, Outcome};
    use serde_json::json;

    use super::*;

    async fn billed(message: Message) -> Result<Outcome, HandlerError> {
        router(Arc::new(Shop { publisher: None })).classify(classify).handle(message).await
    }

    fn order(amount: u64) -> Message {
        Message::builder("orders.7.created").json(&json!({ "id": 7, "amount": amount })).attempt(2).build()
    }

    #[tokio::test]
    async fn an_order_is_billed() {
        assert_eq!(billed(order(12)).await.unwrap(), Outcome::Ack);
    }

    #[tokio::test]
    async fn an_order_without_an_amount_becomes_a_dead_letter() {
        let error = billed(order(0)).await.unwrap_err();
        assert_eq!(error.outcome().unwrap().name(), "dead_letter");
        assert_eq!(error.to_string(), "order 7 has no amount");
    }

    #[tokio::test]
    async fn an_unreadable_order_becomes_a_dead_letter() {
        let error = billed(Message::builder("orders.7.created").payload("?").build()).await.unwrap_err();
        assert_eq!(error.outcome().unwrap().name(), "dead_letter");
    }

    #[tokio::test]
    async fn while_the_bank_is_busy_an_order_is_retried_after_a_minute() {
        let error = billed(order(1_000_000)).await.unwrap_err();
        assert_eq!(error.outcome(), Some(&Outcome::Retry { after: Some(Duration::from_secs(60)) }));
    }

    #[tokio::test]
    async fn what_is_no_new_order_is_acknowledged() {
        assert_eq!(billed(Message::builder("orders.7.paid").build()).await.unwrap(), Outcome::Ack);
    }
}
