//! Subject -> handler, with few patterns and with many: `cargo bench --package nats-consumer`.

#![allow(missing_docs)] // criterion_group! makes a public function

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nats_consumer::Pattern;
use nats_consumer::route::Routes;

fn routes(patterns: impl Iterator<Item = String>) -> Routes<usize> {
    patterns.enumerate().map(|(handler, text)| (Pattern::parse(&text).expect("a pattern"), handler)).collect()
}

fn literals(count: usize) -> Routes<usize> {
    routes((0..count).map(|number| format!("orders.region{number}.created")))
}

fn wildcards(count: usize) -> Routes<usize> {
    routes((0..count).map(|number| format!("orders.region{number}.*")))
}

fn route(criterion: &mut Criterion) {
    let subject = "orders.region3.created";
    for count in [4, 400] {
        let (literals, wildcards) = (literals(count), wildcards(count));
        criterion.bench_function(&format!("route/{count} literals"), |bencher| {
            bencher.iter(|| literals.find(black_box(subject)));
        });
        criterion.bench_function(&format!("route/{count} wildcards"), |bencher| {
            bencher.iter(|| wildcards.find(black_box(subject)));
        });
        criterion.bench_function(&format!("route/{count} wildcards, no match"), |bencher| {
            bencher.iter(|| wildcards.find(black_box("orders.nowhere.created.twice")));
        });
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
