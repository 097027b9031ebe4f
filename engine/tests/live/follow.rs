//! A durable that is consumed is looked at now and then, and follows what is found.

use nats_consumer::consume;
use serde_json::Value;

use crate::stage::{Seen, Stage, push};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_somebody_sets_is_lifted_and_stays_lifted() {
    let stage = Stage::set().await;
    let _consumption = consume(stage.address(), push(), Seen::default().and_ack()).await.unwrap();
    let mut changed = stage.billing().await["config"].clone();
    let mut writes = stage.hear("$JS.API.CONSUMER.DURABLE.CREATE.orders.billing").await;
    changed["max_deliver"] = 5.into();
    stage.create_durable("billing", changed).await;
    writes.next().await;
    let mended: Value = serde_json::from_slice(&writes.next().await.payload).unwrap();
    assert_eq!(mended["config"]["max_deliver"], -1);
    assert_eq!(stage.billing().await["config"]["max_deliver"], -1);
}
