//! A duty that a delivery may carry: it is done before its message may come again.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::message::Message;
use crate::settle::Settler;

/// Makes the duty of a delivery that is to come again beyond its last attempt, from its message and its attempt.
pub(crate) type ReturnDuty = fn(&Message, u64) -> Option<Arc<dyn Hook>>;

/// Runs once when a delivery ends: before a verdict after which the message may come again is written, and after one
/// that ends the message.
pub(crate) trait Hook: Debug + Send + Sync {
    /// The delivery ends, and its handler was never started.
    fn note_unrun(&self) {}

    /// Does the duty, and waits until it is done or the consumption is over.
    fn run<'a>(&'a self, settler: &'a Settler) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}
