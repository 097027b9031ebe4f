//! Delays grow and stay within their bounds, whatever the policy and the attempt.

use std::time::Duration;

use nats_consumer::retry::{Next, RetryPolicy, Schedule};
use proptest::prelude::*;

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![(0..10_000_u64).prop_map(Duration::from_millis), any::<Duration>(),]
}

/// Small numbers, where delays still differ, and all others.
fn attempts() -> impl Strategy<Value = u64> {
    prop_oneof![1..20_u64, any::<u64>()]
}

fn factors() -> impl Strategy<Value = f64> {
    prop_oneof![1.0..4.0_f64, 0.0..=f64::MAX]
}

fn schedules() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        (durations(), factors(), durations())
            .prop_map(|(initial, factor, max)| { Schedule::Exponential { initial, factor, max } }),
        prop::collection::vec(durations(), 1..8).prop_map(Schedule::Delays),
    ]
}

proptest! {
    #[test]
    fn no_delay_is_longer_than_the_longest(
        schedule in schedules(),
        max_attempts in 1..=u64::MAX,
        attempt in any::<u64>(),
    ) {
        let policy = RetryPolicy::new(max_attempts, schedule).unwrap();
        prop_assert!(policy.delay(attempt) <= policy.longest());
    }

    #[test]
    fn a_factor_of_one_or_more_never_shortens_the_delay(
        initial in durations(),
        factor in 1.0..=f64::MAX,
        max in durations(),
        attempt in attempts(),
        later in attempts(),
    ) {
        let schedule = Schedule::Exponential { initial, factor, max };
        let policy = RetryPolicy::new(u64::MAX, schedule).unwrap();
        let (attempt, later) = (attempt.min(later), attempt.max(later));
        prop_assert!(policy.delay(attempt) <= policy.delay(later));
    }

    #[test]
    fn a_message_is_tried_as_often_as_allowed(
        schedule in schedules(),
        max_attempts in attempts(),
        attempt in attempts(),
    ) {
        let max_attempts = max_attempts.max(1);
        let policy = RetryPolicy::new(max_attempts, schedule).unwrap();
        let expected = match attempt {
            _ if attempt < max_attempts => Next::Retry(policy.delay(attempt)),
            _ if attempt == max_attempts => Next::Exhausted,
            _ => Next::Beyond,
        };
        prop_assert_eq!(policy.next(attempt), expected);
    }
}
