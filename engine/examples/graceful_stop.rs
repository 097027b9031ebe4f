//! Two consumers whose handlers take a second; Ctrl-C or SIGTERM loses none of it:
//! `cargo run --example graceful_stop -- nats://127.0.0.1:4222`.

use std::time::Duration;

use nats_consumer::{
    ConnectOptions, Connection, ConsumerOptions, Context, Message, StreamConfig, consume, ensure_stream,
    from_fn, run_until,
};

async fn slowly(message: Message, context: Context) {
    let order = String::from_utf8_lossy(message.payload());
    println!("{}, {order}: begun", context.consumer());
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{}, {order}: done", context.consumer());
}

/// Waits for Ctrl-C, or for the SIGTERM with which containers and service managers stop a process.
async fn stop() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).expect("a handler of SIGTERM").recv().await;
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.expect("a handler of Ctrl-C"),
        () = terminated => {}
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    // One handles one message at a time, in their order; the other two at a time. The server holds the rest.
    let one = ConsumerOptions::push("orders", "one");
    let two = ConsumerOptions::pull("orders", "two").concurrency(2);
    let consumptions = [
        consume(connect.clone(), one, from_fn(slowly)).await?,
        consume(connect, two, from_fn(slowly)).await?,
    ];

    // Nothing new is taken; the running handlers have five seconds.
    let cancelled = run_until(&consumptions, stop(), Duration::from_secs(5)).await;
    for consumption in &consumptions {
        let counters = consumption.counters();
        let (done, handed_back) = (counters.succeeded, counters.handed_back);
        println!("{}: {done} done, {handed_back} handed back", consumption.durable());
    }
    println!("{cancelled} cancelled");
    Ok(())
}
