//! Places where tests end the process or make a task panic. They need the feature `__fail-points`, which is not
//! public, and which no wheel has.

/// Ends the process here, as abruptly as a SIGKILL, if it was started with `NATS_CONSUMER_DIES` set to `step`
/// and the number of times that the step is passed before, such as `returned:5`; with `NATS_CONSUMER_PANICS`,
/// panics here, once.
#[cfg(feature = "__fail-points")]
pub(crate) fn pass(step: &str) {
    use std::sync::LazyLock;

    static DIES: LazyLock<Option<Point>> = LazyLock::new(|| Point::asked_for("NATS_CONSUMER_DIES"));
    static PANICS: LazyLock<Option<Point>> = LazyLock::new(|| Point::asked_for("NATS_CONSUMER_PANICS"));
    if DIES.as_ref().is_some_and(|point| point.is_here(step)) {
        std::process::abort();
    }
    if PANICS.as_ref().is_some_and(|point| point.is_here(step)) {
        panic!("the test asked for it at `{step}`");
    }
}

#[cfg(feature = "__fail-points")]
struct Point {
    step: String,
    passes: std::sync::atomic::AtomicI64,
}

#[cfg(feature = "__fail-points")]
impl Point {
    fn asked_for(variable: &str) -> Option<Self> {
        let asked = std::env::var(variable).ok()?;
        let (step, passes) = asked.split_once(':')?;
        Some(Self { step: step.to_owned(), passes: passes.parse::<i64>().ok()?.into() })
    }

    /// Whether this is the step, and it has been passed as often as asked.
    fn is_here(&self, step: &str) -> bool {
        self.step == step && self.passes.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 0
    }
}

#[cfg(not(feature = "__fail-points"))]
#[inline]
pub(crate) fn pass(_step: &str) {}
