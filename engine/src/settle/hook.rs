//! A duty that a delivery may carry: it is done before its message may come again.

use std::fmt::Debug;
use std::pin::Pin;

use crate::settle::Settler;

/// Runs once when a delivery ends: before a verdict after which the message may come again is written, and after one
/// that ends the message.
pub(crate) trait Hook: Debug + Send + Sync {
    /// Does the duty, and waits until it is done or the consumption is over.
    fn run<'a>(&'a self, settler: &'a Settler) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}
