//! Cost of each message before a handler sees it: its reply subject is read for the attempt.

#![allow(missing_docs)] // criterion_group! makes a public function

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nats_consumer::Metadata;

fn metadata(criterion: &mut Criterion) {
    let replies = [
        ("nine tokens", "$JS.ACK.orders.billing.1.1234567.1234560.1764000000123456789.42"),
        ("twelve tokens", "$JS.ACK.hub.ACCOUNT.orders.billing.1.1234567.1234560.1764000000123456789.42.x"),
    ];
    for (name, reply) in replies {
        criterion.bench_function(&format!("message/metadata of {name}"), |bencher| {
            bencher.iter(|| Metadata::parse(black_box(reply)).map(|metadata| metadata.delivered));
        });
    }
}

criterion_group!(benches, metadata);
criterion_main!(benches);
