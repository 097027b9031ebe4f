//! Waking an asyncio event loop from a tokio thread without attaching to Python.
//!
//! The loop watches one end of a socket pair (`add_reader`); one byte wakes it, however much has arrived
//! since it last looked.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Wake {
    reader: UnixStream,
    writer: UnixStream,
    is_signalled: AtomicBool,
    looks: AtomicU64,
    /// When the loop was woken that has not looked yet, in nanoseconds since `made`.
    woken: AtomicU64,
    made: Instant,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self {
            reader,
            writer,
            is_signalled: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            woken: AtomicU64::new(0),
            made: Instant::now(),
        })
    }

    /// The file descriptor that the event loop watches.
    pub(crate) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Wakes the loop, unless it was woken already and has not looked yet.
    pub(crate) fn signal(&self) {
        if !self.is_signalled.swap(true, AcqRel) {
            self.woken.store(self.clock(), Release);
            // A full pipe means that the loop is being woken anyway.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// The loop looks: what arrives from now on wakes it again. Returns how long it took.
    pub(crate) fn clear(&self) -> Option<Duration> {
        let delay = self.delay();
        let mut bytes = [0; 16];
        while matches!((&self.reader).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        self.is_signalled.store(false, Release);
        self.looks.fetch_add(1, Relaxed);
        delay
    }

    /// How long the loop has not looked at what woke it, if something did.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let woken = self.woken.load(Acquire);
        self.is_signalled.load(Acquire).then(|| Duration::from_nanos(self.clock().saturating_sub(woken)))
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How often the loop has looked.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Relaxed)
    }
}
