//! Counts what became of each attempt: `cargo run --example metrics -- nats://127.0.0.1:4222`.
//!
//! Ctrl-C prints the totals as Prometheus reads them. With a metrics library, `note` is where its counters and
//! histograms go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nats_consumer::{
    Attempt, ConnectOptions, Connection, ConsumerOptions, Handler, Json, StreamConfig, consume,
    ensure_stream, from_fn, run_until,
};

/// Attempts and seconds for each outcome.
#[derive(Default)]
struct Totals(Mutex<BTreeMap<&'static str, (u64, f64)>>);

impl Totals {
    fn note(&self, attempt: &Attempt<'_>) {
        let mut totals = self.0.lock().expect("nothing panics with the lock");
        let (attempts, seconds) = totals.entry(attempt.outcome.name()).or_default();
        *attempts += 1;
        *seconds += attempt.elapsed.as_secs_f64();
    }

    fn print(&self) {
        for (outcome, (attempts, seconds)) in &*self.0.lock().expect("nothing panics with the lock") {
            println!("attempts_total{{outcome=\"{outcome}\"}} {attempts}");
            println!("attempt_seconds_total{{outcome=\"{outcome}\"}} {seconds:.3}");
        }
    }
}

async fn bill(Json(amount): Json<u64>) {
    println!("billed {amount}");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let connect = ConnectOptions::to([server]);
    let connection = Connection::open(&connect).await?;
    ensure_stream(&connection, &StreamConfig::new("orders").subject("orders.>")).await?;

    let totals = Arc::new(Totals::default());
    let noted = totals.clone();
    let handler = from_fn(bill).on_outcome(move |attempt| noted.note(attempt));
    let consumptions = [consume(connect, ConsumerOptions::pull("orders", "metrics"), handler).await?];

    let stop = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
    run_until(&consumptions, stop, Duration::from_secs(25)).await;
    totals.print();
    // The engine counts by itself, too.
    for (name, count) in consumptions[0].counters().fields() {
        println!("consumer_{name} {count}");
    }
    Ok(())
}
