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

/// Hands each message to the handler whose pattern fits its subject best: exact before `*` before `>`. A message that
/// no pattern fits goes to the [`fallback`](Self::fallback); without one it becomes a dead letter.
///
/// ```
/// use nats_consumer::{Handler, Message, Outcome, Router};
///
/// async fn created(message: Message) {}
/// async fn other(message: Message) -> Outcome {
///     Outcome::Drop { reason: "nobody needs it".into() }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let router = Router::new().route("orders.*.created", created)?.route("orders.>", other)?;
///
/// let message = Message::builder("orders.7.created").build();
/// assert_eq!(router.handle(message).await.unwrap(), Outcome::Ack);
///
/// let message = Message::builder("orders.7.paid").build();
/// assert_eq!(router.handle(message).await.unwrap().name(), "drop");
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Router {
    handlers: Vec<(Pattern, Box<dyn BoxedHandler>)>,
    routes: OnceLock<Routes<usize>>,
    fallback: Option<Box<dyn BoxedHandler>>,
}

impl Router {
    /// A router without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for the subjects that fit `pattern`: a text, a [`Pattern`], or a
    /// [`Template`](crate::route::Template). In a text, `{name}` stands for `*`.
    ///
    /// ```
    /// # use nats_consumer::{Handler, Message, Router};
    /// # async fn paid(_: Message) {}
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let router = Router::new().route("orders.{id}.paid", paid)?;
    /// assert!(router.handle(Message::builder("orders.7.paid").build()).await.is_ok());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the pattern is malformed, or has a handler already; the error names it and the rule.
    pub fn route(
        mut self,
        pattern: impl TryInto<Pattern, Error: Into<PatternError>>,
        handler: impl Handler,
    ) -> Result<Self, PatternError> {
        let pattern = pattern.try_into().map_err(Into::into)?;
        if self.handlers.iter().any(|(other, _)| *other == pattern) {
            return Err(pattern.is_twice());
        }
        self.handlers.push((pattern, Box::new(handler)));
        Ok(self)
    }

    /// Sets the handler for the subjects that fit no pattern.
    ///
    /// ```
    /// # use nats_consumer::{Message, Router};
    /// let router = Router::new().fallback(async |message: Message| println!("ignored: {}", message.subject()));
    /// ```
    #[must_use]
    pub fn fallback(mut self, handler: impl Handler) -> Self {
        self.fallback = Some(Box::new(handler));
        self
    }

    fn find(&self, subject: &str) -> Option<&dyn BoxedHandler> {
        let patterns =
            || self.handlers.iter().enumerate().map(|(index, (pattern, _))| (pattern.clone(), index));
        let routes = self.routes.get_or_init(|| patterns().collect());
        routes.find(subject).map(|index| &*self.handlers[*index].1).or(self.fallback.as_deref())
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn handler_of(router: &Router, subject: &str) -> String {
        match router.handle(Message::builder(subject).build()).await.unwrap() {
            Outcome::Drop { reason } => reason,
            outcome => format!("{outcome:?}"),
        }
    }

    fn named(name: &'static str) -> impl Handler {
        move |_: Message| async move { Outcome::Drop { reason: name.into() } }
    }

    #[tokio::test]
    async fn a_message_that_no_pattern_fits_goes_to_the_fallback_or_becomes_a_dead_letter() {
        let router = Router::new().route("orders.*", named("orders")).unwrap();
        let error = router.handle(Message::builder("users.7").build()).await.unwrap_err();
        assert!(matches!(error.outcome(), Some(Outcome::DeadLetter { .. })));
        let router = router.fallback(named("fallback"));
        assert_eq!(handler_of(&router, "orders.7").await, "orders");
        assert_eq!(handler_of(&router, "users.7").await, "fallback");
    }

    #[tokio::test]
    async fn a_route_with_names_in_braces_gets_the_messages_that_it_was_written_for() {
        let router = Router::new().route("orders.{id}.paid", named("paid")).unwrap();
        assert_eq!(handler_of(&router, "orders.7.paid").await, "paid");
        let error = router.route("orders.{order-id}.paid", named("twice")).unwrap_err();
        assert!(error.to_string().contains("write `{name}`"), "{error}");
    }

    #[test]
    fn two_handlers_for_one_pattern_are_refused() {
        for text in ["orders.*", "orders.{id}"] {
            let router = Router::new().route("orders.*", named("one")).unwrap();
            let error = router.route(text, named("two")).unwrap_err();
            assert!(error.to_string().contains("\"orders.*\""), "{error}");
        }
    }
}
