//! The process that hosts the engine: its runtime, its locks, and the ways between tokio's threads and Python's.

pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod forked;
pub(crate) mod future;
pub(crate) mod hear;
pub(crate) mod interpreter;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod panic;
pub(crate) mod parent;
pub(crate) mod process;
pub(crate) mod runtime;
pub(crate) mod seconds;
pub(crate) mod signals;
pub(crate) mod used;
pub(crate) mod wake;
pub(crate) mod watchdog;
