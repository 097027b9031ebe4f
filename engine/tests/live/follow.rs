//! A durable that is consumed is looked at now and then, and follows what is found.

use nats_consumer::consume;
use serde_json::{Value, json};

use crate::stage::{Seen, Stage, push};

/// Makes the mean message of `orders` so large that fewer than the usual 2,000 of them fit into 32 MiB.
async fn publish_large(stage: &Stage) {
    for _ in 0..4 {
        stage.client.request("orders.created", vec![b'x'; 200 * 1024].into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lifted_when_the_allowance_shrinks_stays_lifted() {
    let stage = Stage::set().await;
    publish_large(&stage).await;
    let _consumption = consume(stage.address(), push(), Seen::default().and_ack()).await.unwrap();
    let mut changed = stage.billing().await["config"].clone();
    let fitting = changed["max_ack_pending"].clone();
    let mut writes = stage.hear("$JS.API.CONSUMER.DURABLE.CREATE.orders.billing").await;
    changed["max_deliver"] = 5.into();
    changed["max_ack_pending"] = 2000.into();
    stage.create_durable("billing", changed).await;
    writes.next().await;
    let mended: Value = serde_json::from_slice(&writes.next().await.payload).unwrap();
    let mended = &mended["config"];
    assert_eq!((&mended["max_deliver"], &mended["max_ack_pending"]), (&json!(-1), &fitting));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_without_news_does_not_ask_how_large_the_messages_are() {
    let stage = Stage::set().await;
    publish_large(&stage).await;
    let _consumption = consume(stage.address(), push(), Seen::default().and_ack()).await.unwrap();
    stage.all_settled().await;
    let mut looks = stage.hear("$JS.API.CONSUMER.INFO.orders.billing").await;
    // One in which the flow is noted, and two later ones.
    looks.next().await;
    let mut questions = stage.hear("$JS.API.STREAM.INFO.orders").await;
    looks.next().await;
    looks.next().await;
    assert_eq!(questions.so_far(), Vec::<String>::new());
}
