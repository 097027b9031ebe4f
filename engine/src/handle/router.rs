//! Handlers by subject: a [`Router`] is a handler made of handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;

use crate::handle::Handler;
use crate::message::Message;
use crate::outcome::{HandlerError, Outcome};
use crate::route::{Pattern, PatternError, Routes};

type Handling<'a> = Pin<Box<dyn Future<Output = Result<Outcome, HandlerError>> + Send + 'a>>;

/// A handler whose future is boxed, so that handlers of different types fit into one router.
trait BoxedHandler: Send + Sync {
    fn handle_boxed(&self, message: Message) -> Handling<'_>;
}

impl<H: Handler> BoxedHandler for H {
    fn handle_boxed(&self, message: Message) -> Handling<'_> {
        Box::pin(self.handle(message))
    }
}

/// Hands each message to the handler whose pattern fits its subject best: exact before `*` before `>`.
/// A message that no pattern fits becomes a dead letter.
#[derive(Default)]
pub struct Router {
    handlers: Vec<(Pattern, Box<dyn BoxedHandler>)>,
    routes: OnceLock<Routes<usize>>,
}

impl Router {
    /// A router without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for the subjects that fit `pattern`; of two with the same pattern the last wins.
    ///
    /// # Errors
    /// When the pattern is malformed; the error names it and the rule.
    pub fn route(mut self, pattern: &str, handler: impl Handler) -> Result<Self, PatternError> {
        self.handlers.push((Pattern::parse(pattern)?, Box::new(handler)));
        Ok(self)
    }

    fn find(&self, subject: &str) -> Option<&dyn BoxedHandler> {
        let patterns =
            || self.handlers.iter().enumerate().map(|(index, (pattern, _))| (pattern.clone(), index));
        let routes = self.routes.get_or_init(|| patterns().collect());
        routes.find(subject).map(|index| &*self.handlers[*index].1)
    }
}

impl Handler for Router {
    async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
        match self.find(message.subject()) {
            Some(handler) => handler.handle_boxed(message).await,
            None => {
                Err(HandlerError::dead_letter(format!("no handler for the subject {}", message.subject())))
            }
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self.handlers.iter().map(|(pattern, _)| pattern.as_str());
        f.debug_list().entries(patterns).finish()
    }
}
