//! Cost of handing deliveries from tokio to Python, without the Python part.

#![allow(missing_docs)] // criterion_group! makes a public function
#![allow(dead_code, reason = "files of the extension module, which does not link without an interpreter")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nats_consumer::testing::Arrivals;
use nats_consumer::{Delivery, Inbox};

use inbox::DeliveryQueue;
use threads::lane::Lane;
use threads::pool::Pool;

#[path = "../src/deliver/inbox.rs"]
mod inbox;
#[path = "../src/host"]
mod host {
    pub(crate) mod lock;
    pub(crate) mod used;
    pub(crate) mod wake;
}
#[path = "../src/threads"]
mod threads {
    pub(crate) mod lane;
    pub(crate) mod pool;
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
            let now = Instant::now();
            deliveries.extend(std::iter::from_fn(|| waiting.next(now)));
            deliveries
        };
        bencher.iter_batched(arrive, through, BatchSize::PerIteration);
    });
    let pool = Arc::new(Pool::new());
    let lane = Lane::new(pool.clone(), 1, ());
    pool.open(&lane);
    let seat = pool.new_seat().expect("a seat for the only thread");
    pool.came(&seat);
    group.bench_function(format!("{MANY} to threads"), |bencher| {
        let through = |mut deliveries: Vec<Delivery>| {
            lane.put(&mut deliveries);
            while pool.next(&seat).is_some() {
                deliveries.extend(std::iter::from_fn(|| pool.next_of(&seat)));
            }
            deliveries
        };
        bencher.iter_batched(arrive, through, BatchSize::PerIteration);
    });
}

criterion_group!(benches, inbox);
criterion_main!(benches);
