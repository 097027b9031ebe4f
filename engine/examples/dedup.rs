//! An order that is delivered twice leads to one invoice: `cargo run --example dedup -- nats://127.0.0.1:4222`.

use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, Context, HandlerError, Message, Outgoing, Publisher, State,
    StreamConfig, consume, ensure_stream, run_until, with_state,
};

async fn invoice(
    State(publisher): State<Publisher>,
    message: Message,
    context: Context,
) -> Result<(), HandlerError> {
    // The same at each attempt: the stream of invoices stores one message with this id, within two minutes.
    let id = format!("invoice-{}", message.metadata()?.stream_sequence);
    let outgoing = Outgoing::to("invoices.created", message.payload().clone())?.id(&id)?;
    let ack = publisher.publish(outgoing, Duration::from_secs(5)).await?;
    println!("{id}: attempt {}, a duplicate: {}", context.attempt(), ack.duplicate);
    match context.attempt() {
        1 => Err("the database is gone, but the invoice is published".into()),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;
    ensure_stream(&connection, &StreamConfig::new("invoices").subject("invoices.>")).await?;

    let handler = with_state(Publisher::on(connection), invoice);
    let consumption = consume(connect, ConsumerOptions::pull("orders", "dedup"), handler).await?;
    let stop = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
    run_until(&[consumption], stop, Duration::from_secs(25)).await;
    Ok(())
}
