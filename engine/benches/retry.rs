//! Cost of deciding what follows a failed attempt.

#![allow(missing_docs)] // criterion_group! makes a public function

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nats_consumer::{RetryPolicy, Schedule};

fn retry(criterion: &mut Criterion) {
    let computed = RetryPolicy::default();
    let delays = (1..=8).map(Duration::from_secs).collect();
    let listed = RetryPolicy::new(9, Schedule::Delays(delays)).expect("a policy");
    for (name, policy) in [("computed", computed), ("listed", listed)] {
        criterion.bench_function(&format!("retry/{name} delay"), |bencher| {
            bencher.iter(|| policy.next(black_box(3)));
        });
    }
}

criterion_group!(benches, retry);
criterion_main!(benches);
