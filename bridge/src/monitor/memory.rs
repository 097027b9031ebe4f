//! Memory that a worker shares with its parent, which still reads it when the worker was killed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nats_consumer::observe::{self, Format, View, WorkerState};
use pyo3::prelude::*;

/// Only what is written to takes memory.
const BYTES: usize = 4 * 1024 * 1024;
const WORDS: usize = BYTES / size_of::<AtomicU64>();

/// Memory without a name. Its descriptor is what a worker inherits, and what tells it from any other.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct Page {
    fd: OwnedFd,
    pub(super) view: View,
}

#[pymethods]
impl Page {
    #[new]
    fn new() -> PyResult<Self> {
        let fd = nameless()?;
        let view = View::over(map(fd.as_raw_fd())?, clock);
        Ok(Self { fd, view })
    }

    /// The descriptor for a child process.
    #[getter]
    fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The metrics that a worker has written.
    fn text(&self) -> String {
        observe::text(&self.view, Format::Prometheus, Duration::ZERO)
    }

    /// Whether one consumer of the worker is ready, the names of those that are not, how many deliveries it has
    /// settled, and for how many seconds its runtime has said nothing; None before its first word.
    fn look(&self) -> (bool, Vec<String>, u64, Option<f64>) {
        let WorkerState { has_begun, unready, settled, silence } = WorkerState::of(&self.view);
        (has_begun, unready, settled, silence.map(|silence| silence.as_secs_f64()))
    }
}

/// The page of a worker that has inherited its memory.
pub(crate) fn inherited(fd: RawFd) -> io::Result<observe::Page> {
    Ok(observe::Page::over(map(fd)?, clock))
}

/// Memory that no path leads to, of the size of a page.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library makes no memory without a name")]
fn nameless() -> io::Result<OwnedFd> {
    // SAFETY: the name is a string with its end, and what is returned is checked.
    let fd = unsafe { libc::memfd_create(c"nats-consumer".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    std::fs::File::from(fd.try_clone()?).set_len(BYTES as u64)?;
    Ok(fd)
}

#[cfg(not(target_os = "linux"))]
fn nameless() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Maps the memory for as long as the process lives.
#[allow(unsafe_code, reason = "the standard library maps no memory")]
fn map(fd: RawFd) -> io::Result<&'static [AtomicU64]> {
    // SAFETY: a `stat` is plain numbers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is written to, whatever the descriptor is.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(stat.st_size).unwrap_or(0) < BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not that of a page"));
    }
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: the kernel chooses the place, and the file is as large as what is mapped.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, flags, fd, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is mapped until the process ends, begins at a page of the machine, and each word in it is atomic, here
    // and in the process that shares it.
    Ok(unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), WORDS) })
}

/// Nanoseconds on the clock that all processes of the machine share; never 0.
#[allow(unsafe_code, reason = "`Instant` does not tell its number")]
pub(super) fn clock() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written to, and this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(1).max(1)
}
