//! Signals as the kernel gives them to the process, whichever handlers Python sets for them.
//!
//! Not tokio's: it sets its handler of a signal once, and `signal.signal()` replaces that in a process which runs workers
//! twice; and a forked child reads from the same pipe as its parent.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

use libc::{SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_IGN, sigaction, siginfo_t};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::host::process::PerProcess;
use crate::host::runtime::runtime;

/// Numbers of signals are smaller.
const NUMBERS: usize = 65;

/// Signals kept for a listener. It needs the first and one more.
const KEPT: usize = 64;

static EAR: PerProcess<Ear> = PerProcess::new();

/// The handlers that were set before ours, by number.
static BEFORE: [Before; NUMBERS] = [const { Before::new() }; NUMBERS];

/// The way of this process from its signal handler to its listeners.
struct Ear {
    writer: UnixStream,
    numbers: broadcast::Sender<c_int>,
}

impl Ear {
    fn open() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let _context = runtime().enter();
        let reader = tokio::net::UnixStream::from_std(reader)?;
        let numbers = broadcast::Sender::new(KEPT);
        let heard = numbers.clone();
        runtime().spawn(async move {
            let mut bytes = [0; 16];
            while reader.readable().await.is_ok() {
                let count = reader.try_read(&mut bytes).unwrap_or_default();
                for number in &bytes[..count] {
                    // Nobody may listen any more.
                    let _ = heard.send(c_int::from(*number));
                }
            }
        });
        Ok(Self { writer, numbers })
    }
}

/// Hears some signals.
pub(crate) struct Listener {
    numbers: Vec<c_int>,
    heard: broadcast::Receiver<c_int>,
}

impl Listener {
    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> c_int {
        loop {
            match self.heard.recv().await {
                Ok(number) if self.numbers.contains(&number) => return number,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Hears these signals from now on, until another handler is set for them. The ones that are set now run, too.
pub(crate) fn hear(numbers: Vec<c_int>) -> io::Result<Listener> {
    let heard = EAR.get_or_try(Ear::open)?.numbers.subscribe();
    numbers.iter().try_for_each(|number| stand_before(*number))?;
    Ok(Listener { numbers, heard })
}

/// Sets our handler in front of the present one.
#[allow(unsafe_code, reason = "only the operating system sets a handler without replacing the one before it")]
pub(crate) fn stand_before(number: c_int) -> io::Result<()> {
    let Some(before) = usize::try_from(number).ok().and_then(|index| BEFORE.get(index)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: for this plain C struct, zeros are a value: the default action, without flags.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it only writes the present action into `action`.
    check(unsafe { sigaction(number, std::ptr::null(), &mut action) })?;
    let ours = note as *const () as usize;
    if action.sa_sigaction == ours {
        return Ok(());
    }
    before.keep(&action);
    if before.is_none() {
        action.sa_flags = SA_RESTART; // Without a handler, it interrupted nothing.
    }
    action.sa_sigaction = ours;
    action.sa_flags |= SA_SIGINFO;
    // SAFETY: `note` is safe to be called at any moment, and calls what was there before.
    check(unsafe { sigaction(number, &action, std::ptr::null_mut()) })
}

fn check(status: c_int) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Our handler. It runs between any two instructions, so it may neither lock nor allocate.
#[allow(unsafe_code, reason = "writing to a file is what a signal handler may do")]
extern "C" fn note(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: it is the place of this thread's errno.
    let errno = unsafe { &mut *errno() };
    let kept = *errno;
    if let (Some(ear), Ok(byte)) = (EAR.made(), u8::try_from(number)) {
        // SAFETY: the socket is open as long as the process lives. A full one is read anyway.
        unsafe { libc::write(ear.writer.as_raw_fd(), (&raw const byte).cast(), 1) };
    }
    *errno = kept;
    if let Some(before) = usize::try_from(number).ok().and_then(|index| BEFORE.get(index)) {
        before.call(number, info, context);
    }
}

#[cfg(target_os = "linux")]
use libc::__errno_location as errno;
#[cfg(not(target_os = "linux"))]
use libc::__error as errno;

/// A handler that was replaced by ours.
struct Before {
    handler: AtomicUsize,
    takes_info: AtomicBool,
}

impl Before {
    const fn new() -> Self {
        Self { handler: AtomicUsize::new(SIG_DFL), takes_info: AtomicBool::new(false) }
    }

    fn keep(&self, action: &sigaction) {
        self.takes_info.store(action.sa_flags & SA_SIGINFO != 0, Release);
        self.handler.store(action.sa_sigaction, Release);
    }

    fn is_none(&self) -> bool {
        matches!(self.handler.load(Acquire), SIG_DFL | SIG_IGN)
    }

    #[allow(
        unsafe_code,
        reason = "the address of a C function is a number in what the operating system tells"
    )]
    fn call(&self, number: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let handler = self.handler.load(Acquire);
        if self.is_none() {
            return;
        }
        if self.takes_info.load(Acquire) {
            // SAFETY: the operating system had this address as a handler with SA_SIGINFO.
            let call: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            call(number, info, context);
        } else {
            // SAFETY: the operating system had this address as a handler without SA_SIGINFO.
            let call: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            call(number);
        }
    }
}
