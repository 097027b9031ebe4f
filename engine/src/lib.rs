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
//! The folders are the steps of this journey, in its order; each one's own page says more.
//!
//! | step | what happens |
//! |---|---|
//! | `connect` | options become a client that reconnects; its state can be watched |
//! | `jetstream` | requests to the API, typed answers, statuses of pull requests |
//! | `bind` | the durable is found, created, or changed to fit its declaration |
//! | `fetch` | pull: requests go out, never for more than there are free places; push: what the server sends |
//! | `watch` | what stopped consuming is noticed and repaired; unreadable messages are found and put away |
//! | `suspect` | a message that may have ended its worker runs alone, and other workers can see it |
//! | [`route`] | the subject finds its handler: exact beats `*` beats `>` |
//! | `handle` | the user's code runs on a delivery, one attempt at one message |
//! | [`outcome`], [`retry`] | what becomes of the message, as a value; and after how long it comes again |
//! | `settle` | the outcome is written to the server, in batches; until then the delivery is kept alive |
//! | `dead_letter`, [`publish`] | what no attempt could handle is stored, and only then ended |
//! | `client` | beside it: messages for a program that takes and settles them itself |
//! | [`observe`] | counters |

#![forbid(unsafe_code)]

mod bind;
mod client;
pub mod config;
pub mod connect;
pub mod consumption;
mod dead_letter;
mod defect;
pub mod error;
mod fail_point;
mod fetch;
pub mod handle;
mod jetstream;
mod jitter;
mod lock;
pub mod message;
pub mod observe;
pub mod outcome;
pub mod publish;
pub mod retry;
pub mod route;
mod settle;
mod shared;
mod suspect;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;

pub use self::consumption as worker;
pub use client::{pull, settle as acknowledge, subscribe};
pub use dead_letter::{read as dead_letters, replay};
pub use handle::{delivery, router};
pub use jetstream::{api, stream};
pub use publish::publisher;

pub use config::{ConnectOptions, ConsumerOptions, Exhausted, Kind, Start};
pub use connect::{Connection, Happening};
pub use consumption::{Consumption, consume, consume_into};
pub use dead_letters::{DeadLetters, Selection, StoredLetter};
pub use delivery::{AlreadySettled, Delivery, Follows, Place};
pub use error::{Error, ErrorKind};
pub use handle::{Handler, Inbox};
pub use message::{Message, Metadata};
pub use outcome::{HandlerError, IntoOutcome, Outcome};
pub use publish::{Outgoing, PublishAck};
pub use publisher::Publisher;
pub use retry::{RetryPolicy, Schedule};
pub use route::Pattern;
pub use router::Router;
