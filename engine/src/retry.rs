//! Attempt -> delay: whether a failed message is tried again, and when.
//!
//! Attempts are counted from 1, as the server counts deliveries. Nothing waits here: the delay
//! travels with the NAK, and the server does the waiting.
//!
//! ```
//! use std::time::Duration;
//! use nats_consumer::retry::{Next, RetryPolicy};
//!
//! let policy = RetryPolicy::default(); // 4 attempts, 1 s, then twice as long, at most 60 s
//! assert_eq!(policy.next(1), Next::Retry(Duration::from_secs(1)));
//! assert_eq!(policy.next(3), Next::Retry(Duration::from_secs(4)));
//! assert_eq!(policy.next(4), Next::Exhausted);
//! ```

use std::fmt;
use std::time::Duration;

/// How long a message waits at least where nothing limits how often it comes again, so that no schedule makes a hot loop.
pub(crate) const SHORTEST_PATIENCE: Duration = Duration::from_millis(100);

/// How often a message is tried, and how long it waits in between.
///
/// ```
/// use nats_consumer::{ConsumerOptions, RetryPolicy, Schedule};
/// use std::time::Duration;
///
/// // Three attempts; the first retry waits 5 s, the second a minute.
/// let delays = Schedule::Delays(vec![Duration::from_secs(5), Duration::from_secs(60)]);
/// let options = ConsumerOptions::pull("orders", "billing").retry(RetryPolicy::new(3, delays)?);
/// # Ok::<(), nats_consumer::retry::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    max_attempts: u64,
    schedule: Schedule,
}

/// The delays between the attempts at one message.
///
/// ```
/// use nats_consumer::{RetryPolicy, Schedule};
/// use std::time::Duration;
///
/// let (initial, max) = (Duration::from_millis(200), Duration::from_secs(60));
/// let policy = RetryPolicy::new(10, Schedule::Exponential { initial, factor: 3.0, max })?;
/// assert_eq!(policy.delay(2), Duration::from_millis(600));
/// assert_eq!(policy.delay(9), Duration::from_secs(60));
/// # Ok::<(), nats_consumer::retry::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Schedule {
    /// The first retry waits `initial`, each later one `factor` times as long, none beyond `max`.
    Exponential {
        /// The delay after the first attempt.
        initial: Duration,
        /// Factor from one delay to the next; 1 keeps it constant.
        factor: f64,
        /// The longest delay.
        max: Duration,
    },
    /// Each delay by name: the first follows the first attempt, the last repeats.
    Delays(Vec<Duration>),
}

/// The step after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Another attempt after this delay.
    Retry(Duration),
    /// No other attempt: this was the last one.
    Exhausted,
    /// No other attempt, and this one was beyond the limit: an earlier worker was lost with the last attempt.
    Beyond,
}

impl RetryPolicy {
    /// A policy of `max_attempts` in total, the first included, with `schedule` between them.
    ///
    /// # Errors
    /// There has to be an attempt, a delay, and a finite factor that is not negative.
    pub fn new(max_attempts: u64, schedule: Schedule) -> Result<Self, PolicyError> {
        if max_attempts == 0 {
            return Err(PolicyError::NoAttempt);
        }
        match &schedule {
            Schedule::Exponential { factor, .. } if !factor.is_finite() || *factor < 0.0 => {
                Err(PolicyError::Factor(*factor))
            }
            Schedule::Delays(delays) if delays.is_empty() => Err(PolicyError::NoDelay),
            _ => Ok(Self { max_attempts, schedule }),
        }
    }

    /// How often a message is tried in total.
    pub fn max_attempts(&self) -> u64 {
        self.max_attempts
    }

    /// Returns what follows when attempt number `attempt` failed.
    pub fn next(&self, attempt: u64) -> Next {
        match attempt.cmp(&self.max_attempts) {
            std::cmp::Ordering::Less => Next::Retry(self.delay(attempt)),
            std::cmp::Ordering::Equal => Next::Exhausted,
            std::cmp::Ordering::Greater => Next::Beyond,
        }
    }

    /// How long a message waits after attempt number `attempt`, whether or not it was the last.
    pub fn delay(&self, attempt: u64) -> Duration {
        let earlier = attempt.saturating_sub(1);
        match &self.schedule {
            Schedule::Exponential { initial, factor, max } => {
                // Clamped, or nothing times infinity would be no number.
                let growth = factor.powf(earlier as f64).min(f64::MAX);
                let seconds = initial.as_secs_f64() * growth;
                Duration::try_from_secs_f64(seconds).map_or(*max, |delay| delay.min(*max))
            }
            Schedule::Delays(delays) => {
                let last = delays.len() - 1;
                delays[usize::try_from(earlier).map_or(last, |earlier| earlier.min(last))]
            }
        }
    }

    /// How long a message waits after a failure that says nothing about it. Nothing limits how often it fails like that.
    pub(crate) fn patient_delay(&self, attempt: u64) -> Duration {
        self.delay(attempt).max(SHORTEST_PATIENCE)
    }

    /// The longest delay of the schedule: how far a message is put off that nobody gives up.
    pub fn longest(&self) -> Duration {
        match &self.schedule {
            Schedule::Exponential { max, .. } => *max,
            Schedule::Delays(delays) => delays.iter().copied().max().unwrap_or_default(),
        }
    }
}

/// Four attempts: the retries wait 1, 2 and 4 seconds.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            schedule: Schedule::Exponential {
                initial: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_secs(60),
            },
        }
    }
}

/// A policy that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum PolicyError {
    /// No attempt at all.
    NoAttempt,
    /// A schedule of explicit delays without one.
    NoDelay,
    /// A factor that is negative, infinite or not a number.
    Factor(f64),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAttempt => f.write_str("a message needs at least one attempt; set 1 for no retry"),
            Self::NoDelay => f.write_str("the list of retry delays is empty; name at least one"),
            Self::Factor(factor) => {
                write!(f, "the backoff factor is {factor}; set a number from 0 up, 1 for a constant delay")
            }
        }
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn exponential(initial: Duration, factor: f64, max: Duration) -> Schedule {
        Schedule::Exponential { initial, factor, max }
    }

    fn policy(max_attempts: u64, schedule: Schedule) -> RetryPolicy {
        RetryPolicy::new(max_attempts, schedule).unwrap()
    }

    #[test]
    fn each_retry_waits_longer_up_to_the_longest() {
        let policy = policy(10, exponential(seconds(2), 3.0, seconds(50)));
        let delays: Vec<_> = (1..=5).map(|attempt| policy.delay(attempt).as_secs()).collect();
        assert_eq!(delays, [2, 6, 18, 50, 50]);
    }

    #[test]
    fn the_last_explicit_delay_repeats() {
        let policy = policy(10, Schedule::Delays(vec![seconds(5), seconds(1), seconds(3)]));
        let delays: Vec<_> = (1..=5).map(|attempt| policy.delay(attempt).as_secs()).collect();
        assert_eq!(delays, [5, 1, 3, 3, 3]);
        assert_eq!(policy.delay(u64::MAX), seconds(3));
        assert_eq!(policy.longest(), seconds(5));
    }

    #[test]
    fn the_default_tries_four_times() {
        let policy = RetryPolicy::default();
        let next: Vec<_> = (1..=5).map(|attempt| policy.next(attempt)).collect();
        let retry = |after| Next::Retry(seconds(after));
        assert_eq!(next, [retry(1), retry(2), retry(4), Next::Exhausted, Next::Beyond]);
        assert_eq!(policy.longest(), seconds(60));
    }

    #[test]
    fn one_attempt_means_no_retry() {
        assert_eq!(policy(1, Schedule::Delays(vec![seconds(1)])).next(1), Next::Exhausted);
    }

    #[test]
    fn no_initial_delay_stays_none_however_many_attempts() {
        let policy = policy(u64::MAX, exponential(Duration::ZERO, 1e300, seconds(60)));
        assert_eq!(policy.delay(u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_first_delay_is_bounded_too() {
        let policy = policy(4, exponential(Duration::MAX, 2.0, seconds(60)));
        assert_eq!(policy.delay(1), seconds(60));
    }

    #[test]
    fn an_impossible_policy_is_refused() {
        let refused = |attempts, schedule| RetryPolicy::new(attempts, schedule).unwrap_err();
        assert_eq!(refused(0, Schedule::Delays(vec![seconds(1)])), PolicyError::NoAttempt);
        assert_eq!(refused(4, Schedule::Delays(vec![])), PolicyError::NoDelay);
        for factor in [-1.0, f64::NAN, f64::INFINITY] {
            let error = refused(4, exponential(seconds(1), factor, seconds(60)));
            assert!(matches!(error, PolicyError::Factor(_)), "{factor}");
            assert!(error.to_string().contains(&factor.to_string()), "{error}");
        }
    }

    #[test]
    fn what_comes_again_without_limit_waits_although_the_schedule_has_no_delay() {
        let policy =
            RetryPolicy::new(3, Schedule::Delays(vec![Duration::ZERO, Duration::from_secs(2)])).unwrap();
        assert_eq!(policy.delay(1), Duration::ZERO);
        assert_eq!(
            [1, 2].map(|attempt| policy.patient_delay(attempt)),
            [SHORTEST_PATIENCE, Duration::from_secs(2)]
        );
    }
}
