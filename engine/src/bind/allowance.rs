//! How many deliveries of a durable may be unsettled at once, as the server counts them (`max_ack_pending`).

use crate::config::{ConsumerOptions, Kind, MAX_PREFETCH_BYTES};
use crate::jetstream::info::StreamInfo;

/// A pull consumer is bounded by what it asks for. The places that retries wait in are counted here too, so it
/// is generous.
const PULL: i64 = 20_000;

/// The most that a push consumer is sent: beyond this, depth gains no speed.
const PUSH: i64 = 2_000;

/// How large messages are taken to be while none is known: as large as servers take by default.
pub(crate) const UNKNOWN_SIZE: u64 = 1024 * 1024;

/// The allowance while nothing is known of the handlers. A push consumer begins with as many as it can
/// run, and is allowed more as it keeps up (`fetch::pace`).
pub(crate) fn allowance(options: &ConsumerOptions, stream: Option<&StreamInfo>) -> i64 {
    match (options.max_ack_pending, options.kind) {
        (Some(most), _) => most,
        (None, Kind::Pull) => PULL.max(twice_the_handlers(options)),
        (None, Kind::Push) => {
            let size = stream.and_then(StreamInfo::typical_size).unwrap_or(UNKNOWN_SIZE);
            count(options.places()).min(fitting(size))
        }
    }
}

/// The most that a push consumer is allowed that declares no `max_ack_pending`.
pub(crate) fn most_for_push(options: &ConsumerOptions) -> i64 {
    PUSH.max(twice_the_handlers(options))
}

/// How many messages of a size may be on their way together: a server closes the connection of a client for
/// which 64 MiB wait.
fn fitting(size: u64) -> i64 {
    fitting_into(MAX_PREFETCH_BYTES, size)
}

/// How many messages of a size fit into a number of bytes; at least one.
pub(crate) fn fitting_into(bytes: usize, size: u64) -> i64 {
    i64::try_from(bytes as u64 / size.max(1)).unwrap_or(i64::MAX).max(1)
}

fn twice_the_handlers(options: &ConsumerOptions) -> i64 {
    count(options.places().saturating_mul(2))
}

fn count(deliveries: usize) -> i64 {
    i64::try_from(deliveries).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::jetstream::info::StreamState;

    use super::*;

    #[test]
    fn large_messages_are_allowed_by_their_bytes() {
        assert_eq!(fitting(100 * 1024), 327);
        assert_eq!((fitting(0), fitting(u64::MAX)), (MAX_PREFETCH_BYTES as i64, 1));
    }

    #[test]
    fn as_many_are_allowed_as_run_and_wait_to_run() {
        let options = ConsumerOptions { concurrency: 15_000, ..ConsumerOptions::pull("orders", "billing") };
        assert_eq!(allowance(&options, None), 30_000);
    }

    #[test]
    fn a_push_consumer_begins_with_what_it_runs_and_as_if_messages_were_large() {
        let options = ConsumerOptions { concurrency: 100, ..ConsumerOptions::push("orders", "billing") };
        assert_eq!(allowance(&options, None), 32);
        let state = StreamState { messages: 10, bytes: 1000, first_seq: 1, last_seq: 10 };
        assert_eq!(allowance(&options, Some(&StreamInfo { state, ..StreamInfo::default() })), 100);
    }
}
