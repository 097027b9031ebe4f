//! How many deliveries of a durable may be unsettled at once, as the server counts them (`max_ack_pending`).

use serde_json::Value;

use crate::config::{ConsumerOptions, Kind, MAX_PREFETCH_BYTES};
use crate::connect::Connection;
use crate::jetstream::api::call;

/// A pull consumer is bounded by what it asks for. The places that retries wait in are counted here too, so it
/// is generous.
const PULL: i64 = 20_000;

/// A push consumer gets them all at once.
const PUSH: i64 = 2_000;

/// What the server is to allow.
pub(crate) async fn allowance(connection: &Connection, options: &ConsumerOptions) -> i64 {
    match (options.max_ack_pending, options.kind) {
        (Some(most), _) => most,
        (None, Kind::Pull) => PULL.max(twice_the_handlers(options)),
        (None, Kind::Push) => {
            let most = PUSH.max(twice_the_handlers(options));
            typical_size(connection, &options.stream).await.map_or(most, |size| most.min(fitting(size)))
        }
    }
}

/// What to allow instead, where messages have become so large that the server may close the connection of a push
/// consumer, which it does when 64 MiB wait for it. Factors below two are left alone, or replicas would never
/// agree; so is what somebody declared.
pub(crate) async fn smaller_allowance(
    connection: &Connection,
    options: &ConsumerOptions,
    granted: i64,
) -> Option<i64> {
    if options.kind != Kind::Push || options.max_ack_pending.is_some() {
        return None;
    }
    let fitting = fitting(typical_size(connection, &options.stream).await?);
    (granted / 2 >= fitting).then_some(fitting)
}

fn twice_the_handlers(options: &ConsumerOptions) -> i64 {
    i64::try_from(options.concurrency.saturating_mul(2)).unwrap_or(i64::MAX)
}

/// How many messages of a size may be on their way together.
fn fitting(size: u64) -> i64 {
    let count = MAX_PREFETCH_BYTES as u64 / size.max(1);
    i64::try_from(count).unwrap_or(i64::MAX).max(1)
}

/// How large the messages of a stream are, in bytes, on average; nothing is known of an empty stream.
async fn typical_size(connection: &Connection, stream: &str) -> Option<u64> {
    let info = call(connection, &format!("STREAM.INFO.{stream}"), &Value::Null).await.ok()?;
    info["state"]["bytes"].as_u64()?.checked_div(info["state"]["messages"].as_u64()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_are_allowed_by_their_bytes() {
        assert_eq!(fitting(100 * 1024), 327);
        assert_eq!((fitting(0), fitting(u64::MAX)), (MAX_PREFETCH_BYTES as i64, 1));
    }

    #[test]
    fn as_many_are_allowed_as_run_and_wait_to_run() {
        let options = ConsumerOptions { concurrency: 15_000, ..ConsumerOptions::pull("orders", "billing") };
        assert_eq!(twice_the_handlers(&options), 30_000);
    }
}
