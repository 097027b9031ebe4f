//! Handlers made of a handler: shared, classified, observed.

use std::fmt;
use std::sync::Arc;

use crate::handle::{Attempt, Handler};
use crate::message::Message;
use crate::outcome::{HandlerError, Outcome};

impl<H: Handler> Handler for Arc<H> {
    async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
        (**self).handle(message).await
    }

    fn attempted(&self, attempt: &Attempt<'_>) {
        (**self).attempted(attempt);
    }
}

/// A handler whose errors are [classified](Handler::classify).
pub struct Classified<H, F> {
    handler: H,
    classify: F,
}

impl<H, F> Classified<H, F> {
    pub(super) fn new(handler: H, classify: F) -> Self {
        Self { handler, classify }
    }
}

impl<H, F> Handler for Classified<H, F>
where
    H: Handler,
    F: Fn(&HandlerError) -> Option<Outcome> + Send + Sync + 'static,
{
    async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
        self.handler.handle(message).await.map_err(|error| {
            let is_open = error.outcome().is_none();
            match is_open.then(|| (self.classify)(&error)).flatten() {
                Some(outcome) => error.with_outcome(outcome),
                None => error,
            }
        })
    }

    fn attempted(&self, attempt: &Attempt<'_>) {
        self.handler.attempted(attempt);
    }
}

impl<H, F> fmt::Debug for Classified<H, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classified").finish_non_exhaustive()
    }
}

/// A handler whose attempts are [observed](Handler::on_outcome).
pub struct Observed<H, F> {
    handler: H,
    observe: F,
}

impl<H, F> Observed<H, F> {
    pub(super) fn new(handler: H, observe: F) -> Self {
        Self { handler, observe }
    }
}

impl<H, F> Handler for Observed<H, F>
where
    H: Handler,
    F: Fn(&Attempt<'_>) + Send + Sync + 'static,
{
    async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
        self.handler.handle(message).await
    }

    fn attempted(&self, attempt: &Attempt<'_>) {
        (self.observe)(attempt);
        self.handler.attempted(attempt);
    }
}

impl<H, F> fmt::Debug for Observed<H, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}
