//! Consume from NATS JetStream: the engine of django-nats-consumer, usable from Rust alone.
//!
//! ```no_run
//! use nats_consumer::{ConnectOptions, ConsumerOptions, HandlerError, Message, consume};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let orders = ConsumerOptions::pull("orders", "billing").filter("orders.*");
//! let handler = async |message: Message| -> Result<(), HandlerError> {
//!     let order = std::str::from_utf8(message.payload())?; // an error is retried, then final
//!     println!("{}: {order}", message.subject());
//!     Ok(())
//! };
//! let consumption = consume(ConnectOptions::to(["nats://127.0.0.1:4222"]), orders, handler).await?;
//! tokio::signal::ctrl_c().await?;
//! consumption.drain(Duration::from_secs(25)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # The journey of a message
//!
//! The modules are the steps of this journey, in its order.
//!
//! | step | what happens |
//! |---|---|
//! | [`config`] | what the user asks for, as plain data |
//! | [`connect`], `dial`, `credentials`, `link` | options become a client that reconnects; its state can be watched |
//! | `denial`, `denials` | what the server does not permit is told to whoever asked for it |
//! | [`api`], `stored`, [`stream`] | streams and durables are compared with what is declared, then made to fit |
//! | `status`, `demand`, `window`, `places`, `allowance` | how much to ask for: never more than there are free places |
//! | `fetch` | pull requests go out, messages come in |
//! | [`message`], [`delivery`] | a delivery is one attempt at one message, and owns its place until it is settled |
//! | `gate`, `suspect`, `mark` | what came again after its last attempt runs alone, and others can see it |
//! | [`route`], [`router`] | the subject finds its handler: exact beats `*` beats `>` |
//! | [`handle`] | the user's code runs; the server is told meanwhile that the delivery is alive |
//! | [`outcome`], [`retry`] | what becomes of the message, as a value; and after how long it comes again |
//! | `settle`, `verdict`, `lease` | the outcome is written to the server, in batches; until then the delivery is kept alive |
//! | `dead_letter`, [`publish`], [`publisher`] | what no attempt could handle is stored, and only then ended |
//! | `quarantine` | a message whose headers break the connection is found and put away |
//! | [`dead_letters`], [`replay`] | later: what was stored is looked at, published again, or deleted |
//! | `drift`, `resume`, `supervise` | a durable that somebody changed is followed, one that was deleted begins where it stood; what stopped consuming is noticed and repaired |
//! | [`worker`] | wires all of it: [`consume`], then [`Consumption::drain`] |
//! | [`subscribe`], [`pull`], [`acknowledge`] | beside it: messages for a client that takes them itself |
//! | [`observe`], [`error`], `defect`, `fail_point` | the counters; what can go wrong; a panic of our own; where tests end the process |

pub mod config;
pub mod connect;
mod credentials;
mod denial;
mod denials;
mod dial;
mod link;

pub mod api;
mod stored;
pub mod stream;

mod allowance;
mod demand;
mod fetch;
mod places;
mod status;
mod window;

pub mod delivery;
pub mod message;

mod gate;
mod mark;
mod suspect;

pub mod route;
pub mod router;

pub mod handle;

pub mod outcome;
pub mod retry;

mod dead_letter;
pub mod dead_letters;
mod lease;
pub mod publish;
pub mod publisher;
mod quarantine;
pub mod replay;
mod settle;
mod verdict;

pub mod acknowledge;
pub mod pull;
pub mod subscribe;

mod drift;
mod resume;
mod supervise;
pub mod worker;

mod defect;
pub mod error;
mod fail_point;
pub mod observe;

#[cfg(feature = "testing")]
pub mod testing;

pub use config::{ConnectOptions, ConsumerOptions, Exhausted, Kind, Start};
pub use connect::{Connection, Happening};
pub use dead_letters::{DeadLetters, Selection, StoredLetter};
pub use delivery::{AlreadySettled, Delivery, Place};
pub use error::{Error, ErrorKind};
pub use handle::{Handler, Inbox};
pub use message::{Message, Metadata};
pub use outcome::{HandlerError, IntoOutcome, Outcome};
pub use publish::{Outgoing, PublishAck};
pub use publisher::Publisher;
pub use retry::{RetryPolicy, Schedule};
pub use route::Pattern;
pub use router::Router;
pub use worker::{Consumption, consume, consume_into};
