//! Arguments of a handler: state, the decoded payload, the circumstances.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::handle::Handler;
use crate::message::{Context, Message};
use crate::outcome::{HandlerError, IntoOutcome, Outcome};

/// An argument of a handler, taken from the message or from the handler's state `S`.
///
/// ```
/// use nats_consumer::{FromMessage, HandlerError, Message, from_fn};
///
/// struct Tenant(String);
///
/// impl<S> FromMessage<S> for Tenant {
///     fn from_message(message: &Message, _state: &S) -> Result<Self, HandlerError> {
///         let tenant = message.header("Tenant").ok_or("no tenant").map_err(HandlerError::dead_letter)?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
///
/// let handler = from_fn(async |Tenant(name): Tenant| println!("for {name}"));
/// # fn is_handler(_: impl nats_consumer::Handler) {}
/// # is_handler(handler);
/// ```
pub trait FromMessage<S = ()>: Sized {
    /// Takes the argument.
    ///
    /// # Errors
    /// Why the message has no such argument; the handler is not called then.
    fn from_message(message: &Message, state: &S) -> Result<Self, HandlerError>;
}

/// A clone of the handler's state. Put what is expensive to clone into an [`Arc`](std::sync::Arc).
///
/// ```
/// use nats_consumer::{State, with_state};
/// use std::sync::Arc;
///
/// async fn bill(State(currency): State<Arc<str>>) {
///     println!("in {currency}");
/// }
///
/// let handler = with_state(Arc::from("EUR"), bill);
/// # fn is_handler(_: impl nats_consumer::Handler) {}
/// # is_handler(handler);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State<S>(pub S);

/// The payload, decoded from JSON. One that cannot be decoded makes the message a dead letter at once.
///
/// ```
/// use nats_consumer::{Handler, Json, Message, from_fn};
///
/// #[derive(serde::Deserialize)]
/// struct Order { id: u64 }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let handler = from_fn(async |Json(order): Json<Order>| println!("order {}", order.id));
/// let error = handler.handle(Message::builder("orders.created").payload("{}").build()).await.unwrap_err();
/// assert_eq!(error.outcome().unwrap().name(), "dead_letter");
/// assert!(format!("{error:#}").contains("missing field `id`"));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<S: Clone> FromMessage<S> for State<S> {
    fn from_message(_message: &Message, state: &S) -> Result<Self, HandlerError> {
        Ok(Self(state.clone()))
    }
}

impl<S, T: DeserializeOwned> FromMessage<S> for Json<T> {
    fn from_message(message: &Message, _state: &S) -> Result<Self, HandlerError> {
        message.json().map(Self)
    }
}

impl<S> FromMessage<S> for Message {
    fn from_message(message: &Message, _state: &S) -> Result<Self, HandlerError> {
        Ok(message.clone())
    }
}

impl<S> FromMessage<S> for Context {
    fn from_message(message: &Message, _state: &S) -> Result<Self, HandlerError> {
        Ok(message.context())
    }
}

/// A function that [`with_state`] makes a handler of: up to six arguments that are [`FromMessage`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made a handler",
    note = "it needs up to six arguments of `State`, `Json`, `Context`, `Message` or another `FromMessage`, and a \
            result of `()`, an `Outcome`, or a `Result` of either"
)]
pub trait HandlerFn<S, Arguments>: Send + Sync + 'static {
    /// Takes the arguments and calls the function.
    fn call(
        &self,
        message: &Message,
        state: &S,
    ) -> impl Future<Output = Result<Outcome, HandlerError>> + Send;
}

macro_rules! handler_fn {
    ($($argument:ident $value:ident),+) => {
        impl<S, F, Fut, $($argument),+> HandlerFn<S, ($($argument,)+)> for F
        where
            F: Fn($($argument),+) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: IntoOutcome> + Send,
            $($argument: FromMessage<S>),+
        {
            fn call(
                &self,
                message: &Message,
                state: &S,
            ) -> impl Future<Output = Result<Outcome, HandlerError>> + Send {
                let arguments = || Ok::<_, HandlerError>(($($argument::from_message(message, state)?,)+));
                let called = arguments().map(|($($value,)+)| self($($value),+));
                async move { called?.await.into_outcome() }
            }
        }
    };
}

handler_fn!(A a);
handler_fn!(A a, B b);
handler_fn!(A a, B b, C c);
handler_fn!(A a, B b, C c, D d);
handler_fn!(A a, B b, C c, D d, E e);
handler_fn!(A a, B b, C c, D d, E e, G g);

/// A handler made of a function and its state; see [`with_state`].
pub struct WithState<S, F, Arguments> {
    state: S,
    function: F,
    arguments: PhantomData<fn(Arguments)>,
}

/// Makes a handler of a function that takes its state, the decoded payload and the like as arguments, in any order:
/// [`State`], [`Json`], [`Context`], [`Message`], or a [`FromMessage`] of your own.
///
/// ```
/// use nats_consumer::{Context, Handler, HandlerError, Json, Message, Outcome, State, with_state};
/// use std::sync::Arc;
///
/// struct Shop { currency: &'static str }
///
/// #[derive(serde::Deserialize)]
/// struct Order { id: u64, amount: u64 }
///
/// async fn bill(
///     State(shop): State<Arc<Shop>>,
///     Json(order): Json<Order>, // a dead letter if the payload is no `Order`
///     context: Context,
/// ) -> Result<(), HandlerError> {
///     println!("order {}: {} {} (attempt {})", order.id, order.amount, shop.currency, context.attempt());
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), HandlerError> {
/// let handler = with_state(Arc::new(Shop { currency: "EUR" }), bill);
///
/// let message = Message::builder("orders.created").payload(r#"{"id": 7, "amount": 12}"#).build();
/// assert_eq!(handler.handle(message).await?, Outcome::Ack);
/// # Ok(()) }
/// ```
pub fn with_state<S, F, Arguments>(state: S, function: F) -> WithState<S, F, Arguments>
where
    S: Send + Sync + 'static,
    F: HandlerFn<S, Arguments>,
{
    WithState { state, function, arguments: PhantomData }
}

/// Makes a handler of a function that takes the decoded payload and the like as arguments: [`with_state`] without
/// state.
///
/// ```
/// use nats_consumer::{Json, from_fn};
///
/// let handler = from_fn(async |Json(amount): Json<u64>| println!("{amount}"));
/// # fn is_handler(_: impl nats_consumer::Handler) {}
/// # is_handler(handler);
/// ```
pub fn from_fn<F, Arguments>(function: F) -> WithState<(), F, Arguments>
where
    F: HandlerFn<(), Arguments>,
{
    with_state((), function)
}

impl<S, F, Arguments> Handler for WithState<S, F, Arguments>
where
    S: Send + Sync + 'static,
    F: HandlerFn<S, Arguments>,
    Arguments: 'static,
{
    async fn handle(&self, message: Message) -> Result<Outcome, HandlerError> {
        self.function.call(&message, &self.state).await
    }
}

impl<S, F, Arguments> fmt::Debug for WithState<S, F, Arguments> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithState").finish_non_exhaustive()
    }
}
