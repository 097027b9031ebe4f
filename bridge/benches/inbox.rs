//! Cost of handing deliveries from tokio to Python, without the Python part.

#![allow(missing_docs)] // criterion_group! makes a public function
#![allow(dead_code, reason = "files of the extension module, which does not link without an interpreter")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nats_consumer::testing::Arrivals;
use nats_consumer::{Delivery, Inbox};

use inbox::DeliveryQueue;

#[path = "../src/deliver/inbox.rs"]
mod inbox;
#[path = "."]
mod host {
    #[path = "../src/host/lock.rs"]
    pub(crate) mod lock;
    #[path = "../src/host/wake.rs"]
    pub(crate) mod wake;
}

const MANY: usize = 100;

fn inbox(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let arrivals = runtime.block_on(Arrivals::new()).expect("a client");
    let waiting = DeliveryQueue::new().expect("a socket pair");
    let arrive = || {
        // Those of the last time were handed back when they were dropped.
        black_box(arrivals.gather());
        arrivals.arrive(MANY)
    };
    let mut group = criterion.benchmark_group("inbox");
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function(format!("{MANY} to an event loop"), |bencher| {
        let through = |mut deliveries: Vec<Delivery>| {
            waiting.put(&mut deliveries);
            waiting.wake().clear();
            deliveries.extend(std::iter::from_fn(|| waiting.next()));
            deliveries
        };
        bencher.iter_batched(arrive, through, BatchSize::PerIteration);
    });
    let hand = waiting.new_hand();
    group.bench_function(format!("{MANY} to threads"), |bencher| {
        let through = |mut deliveries: Vec<Delivery>| {
            waiting.put(&mut deliveries);
            waiting.fill(&hand, MANY, None);
            deliveries.extend(std::iter::from_fn(|| waiting.next_of(&hand)));
            deliveries
        };
        bencher.iter_batched(arrive, through, BatchSize::PerIteration);
    });
}

criterion_group!(benches, inbox);
criterion_main!(benches);
