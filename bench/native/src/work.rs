//! What the handlers do; the same as in Python (`bench/contestants/work.py`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::task::BoxError;

/// How long "wait" waits.
const PAUSE: Duration = Duration::from_millis(1);

/// How long the slow handlers beside a workload take, and how many of them run at once.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
pub(crate) const SLOW_AT_ONCE: usize = 100;

/// The digits of a time in nanoseconds at the beginning of a stamped payload.
pub(crate) const STAMP_DIGITS: usize = 19;

/// What the handlers have seen.
#[derive(Default)]
pub(crate) struct Tally {
    handled: AtomicU64,
    latencies: Mutex<Vec<u64>>,
}

/// What a handler does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Parse,
    Nothing,
    Read,
    Wait,
    Slow,
    Stamp,
}

impl Work {
    pub(crate) fn named(name: &str) -> Result<Self, BoxError> {
        match name {
            "parse" => Ok(Self::Parse),
            "nothing" => Ok(Self::Nothing),
            "read" => Ok(Self::Read),
            "wait" => Ok(Self::Wait),
            "slow" => Ok(Self::Slow),
            "stamp" => Ok(Self::Stamp),
            other => Err(format!("there is no work {other}").into()),
        }
    }

    /// How long it waits before anything else.
    pub(crate) fn pause(self) -> Option<Duration> {
        match self {
            Self::Wait => Some(PAUSE),
            Self::Slow => Some(SLOW_PAUSE),
            _ => None,
        }
    }

    /// Everything but waiting.
    pub(crate) fn on(self, payload: &[u8], tally: &Tally) -> Result<(), BoxError> {
        match self {
            Self::Parse => {
                serde_json::from_slice::<Value>(payload)?;
            }
            Self::Stamp => {
                let sent: u64 = std::str::from_utf8(&payload[..STAMP_DIGITS])?.parse()?;
                tally.latencies.lock().expect("no panic").push(now().saturating_sub(sent));
            }
            Self::Nothing | Self::Read | Self::Wait => {}
            Self::Slow => return Ok(()),
        }
        tally.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Tally {
    pub(crate) fn report(&self) -> Value {
        let latencies = self.latencies.lock().expect("no panic");
        json!({ "handled": self.handled.load(Ordering::Relaxed), "latencies_ns": *latencies })
    }
}

/// The time in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
