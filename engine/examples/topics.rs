//! Subjects with names in them, and messages that are stored once:
//! `cargo run --example topics -- nats://127.0.0.1:4222`.

use std::sync::LazyLock;
use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, HandlerError, Message, Outgoing, Publisher, Router,
    StreamConfig, Template, consume, ensure_stream, run_until,
};

static PAID: LazyLock<Template> =
    LazyLock::new(|| Template::parse("orders.{id}.paid").expect("a valid template"));

async fn paid(message: Message) -> Result<(), HandlerError> {
    let tokens = PAID.extract(message.subject()).ok_or("no order that was paid")?;
    println!("order {} is paid", tokens.get("id").unwrap_or_default());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    // Within two minutes, the stream stores one message with this id, however often it is published.
    let publisher = Publisher::on(connection);
    for _ in 0..2 {
        let outgoing = Outgoing::to(&PAID.fill(&[("id", &7)])?, "")?.id("paid-7")?;
        let ack = publisher.publish(outgoing, Duration::from_secs(5)).await?;
        println!("duplicate: {}", ack.duplicate);
    }

    let options = ConsumerOptions::pull("orders", "topics").filter(PAID.pattern());
    let handler = Router::new().route(&*PAID, paid)?;
    let consumption = consume(connect, options, handler).await?;
    let stop = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
    run_until(&[consumption], stop, Duration::from_secs(25)).await;
    Ok(())
}
