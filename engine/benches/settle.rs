//! Cost of a settlement before it is written: a state, a lease, a place, an entry in a queue.

#![allow(missing_docs)] // criterion_group! makes a public function

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nats_consumer::testing::Arrivals;
use nats_consumer::{Delivery, Outcome};

const MANY: usize = 100;

fn settle(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let arrivals = runtime.block_on(Arrivals::new()).expect("a client");
    let mut group = criterion.benchmark_group("settle");
    group.throughput(Throughput::Elements(MANY as u64));
    let mut measure = |name: &str, settle: fn(&Delivery)| {
        group.bench_function(format!("{MANY} {name}"), |bencher| {
            let settled = |deliveries: Vec<Delivery>| {
                deliveries.iter().for_each(settle);
                drop(deliveries);
                arrivals.gather()
            };
            bencher.iter_batched(|| arrivals.arrive(MANY), settled, BatchSize::PerIteration);
        });
    };
    measure("successes", Delivery::succeed);
    measure("retries", |delivery| {
        let _ = delivery.settle(Outcome::Retry { after: None });
    });
    group.bench_function(format!("{MANY} arrivals"), |bencher| {
        bencher.iter_batched(|| arrivals.gather(), |_| arrivals.arrive(MANY), BatchSize::PerIteration);
    });
}

criterion_group!(benches, settle);
criterion_main!(benches);
