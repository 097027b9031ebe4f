//! Dead letters: messages that no attempt could handle, kept in a stream beside their own.
//!
//! [`store`] writes the copy before the original is ended; later [`read`] lists what is kept, and [`replay`] publishes
//! it again. [`format`](mod@format) is the shape they all share.

pub(crate) mod format;
pub(crate) mod identity;
pub mod read;
pub mod replay;
pub(crate) mod store;
