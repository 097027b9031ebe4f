//! CPU time and waits of a thread.

use std::ops::Sub;
use std::time::Duration;

/// Use of the machine by a thread, since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// CPU time.
    pub(crate) time: Duration,
    /// How often it waited for something, such as a lock or an answer.
    pub(crate) waits: u64,
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let time = self.time.saturating_sub(before.time);
        Self { time, waits: self.waits.saturating_sub(before.waits) }
    }
}

/// Returns how much the calling thread has used; `None` where the operating system does not tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code, reason = "the standard library does not tell it")]
pub(crate) fn used() -> Option<Used> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: it fills the struct that it is given, or says that it did not.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    let time = |it: libc::timeval| {
        Duration::from_secs(it.tv_sec.unsigned_abs()) + Duration::from_micros(it.tv_usec.unsigned_abs())
    };
    Some(Used { time: time(usage.ru_utime) + time(usage.ru_stime), waits: usage.ru_nvcsw.unsigned_abs() })
}

/// Returns how much the calling thread has used; `None` where the operating system does not tell.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn used() -> Option<Used> {
    None
}
