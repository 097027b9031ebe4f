//! A delivery on its way to a handler and back: it waits in the [`inbox`], a lane takes it and calls the
//! [`handler`] with a [`message`], and [`judge`] tells the engine how the attempt ended.

pub(crate) mod attempt;
pub(crate) mod awaitable;
pub(crate) mod batch;
pub(crate) mod handler;
pub(crate) mod inbox;
pub(crate) mod judge;
pub(crate) mod message;
pub(crate) mod outcome;
mod settled;
pub(crate) mod unfinished;
