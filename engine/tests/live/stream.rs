//! Streams are created once, and one that is otherwise is not taken for what was asked for.

use std::time::Duration;

use nats_consumer::{Connection, ErrorKind, StreamConfig, ensure_stream};
use serde_json::Value;

use crate::stage::Stage;

fn sales() -> StreamConfig {
    StreamConfig::new("sales")
        .subject("sales.{region}.>")
        .subject("refunds.*")
        .max_age(Duration::from_secs(3600))
        .max_bytes(1 << 20)
        .max_messages(1000)
        .duplicate_window(Duration::from_secs(60))
        .replicas(1)
        .option("retention", "interest")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_created_once_with_the_options_that_were_asked_for() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    let config = sales();
    let both = tokio::join!(ensure_stream(&connection, &config), ensure_stream(&connection, &config));
    assert!(both.0.unwrap() || both.1.unwrap());
    assert!(!ensure_stream(&connection, &config).await.unwrap());
    let info = stage.ask("STREAM.INFO.sales", &Value::Null).await;
    assert_eq!(info["config"]["subjects"][0], "sales.*.>");
    assert_eq!(info["config"]["max_age"], 3_600_000_000_000_u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_exists_with_other_options_is_not_passed_over_in_silence() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    assert!(ensure_stream(&connection, &sales()).await.unwrap());
    let other = sales().max_bytes(7).option("discard", "new");
    let error = ensure_stream(&connection, &other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    for part in ["`max_bytes` is 1048576 and should be 7", "`discard` is \"old\" and should be \"new\""] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("max_age"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_stream_can_have_reaches_no_server() {
    let stage = Stage::set().await;
    let connection = Connection::open(&stage.address()).await.unwrap();
    for name in ["", "my orders", "a\r\nPUB b 0\r\n\r\n", "orders.eu"] {
        let error = ensure_stream(&connection, &StreamConfig::new(name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name:?}");
    }
}
