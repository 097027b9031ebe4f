//! Where tests end the process: only with the feature `fail-points`, which no wheel has.

/// Ends the process here, as abruptly as a SIGKILL, if it was started with `NATS_CONSUMER_DIES` set to `step`
/// and the number of times that the step is passed before, such as `returned:5`.
#[cfg(feature = "fail-points")]
pub(crate) fn pass(step: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    static WHERE: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let asked = std::env::var("NATS_CONSUMER_DIES").ok()?;
        let (step, times) = asked.split_once(':')?;
        Some((step.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });
    let Some((_, left)) = WHERE.as_ref().filter(|(asked, _)| asked == step) else { return };
    if left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() {
        std::process::abort();
    }
}

#[cfg(not(feature = "fail-points"))]
#[inline]
pub(crate) fn pass(_step: &str) {}
