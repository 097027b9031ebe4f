//! The end of the parent, noticed beside Python, which may be what stands still.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{FromRawFd, RawFd};

use pyo3::prelude::*;

use crate::host::signals;

/// Sends SIGTERM to this process when the other end of the pipe is closed, because the parent has ended, however it
/// did, unless a signal has stopped it already: a second one would end running handlers. Nothing is ever written to the
/// pipe. The descriptor belongs to the engine from now on.
#[pyfunction]
#[allow(unsafe_code, reason = "the standard library neither owns a number nor sends a signal")]
pub(crate) fn end_with_parent(fd: RawFd) -> PyResult<()> {
    // SAFETY: the descriptor was inherited for this alone, and nobody else closes it.
    let mut pipe = unsafe { File::from_raw_fd(fd) };
    let wait = move || {
        // A signal interrupts the read; the parent still runs.
        while pipe.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
        if !signals::is_stopped() {
            // SAFETY: no pointer is handed over, and a process may signal itself.
            unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
        }
    };
    std::thread::Builder::new().name("nats-consumer-parent".into()).spawn(wait)?;
    Ok(())
}
