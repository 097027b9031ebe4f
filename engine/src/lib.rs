//! Consume from NATS JetStream: the engine of django-nats-consumer, usable from Rust alone.
//!
//! ```no_run
//! use nats_consumer::{
//!     ConnectOptions, ConsumerOptions, Exhausted, HandlerError, Json, Router, State, consume, with_state,
//! };
//! use std::{sync::Arc, time::Duration};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { id: u64 }
//! struct Shop { /* a pool of database connections */ }
//!
//! async fn bill(State(_shop): State<Arc<Shop>>, Json(order): Json<Order>) -> Result<(), HandlerError> {
//!     println!("order {}", order.id); // an error with `?` is retried after 1, 2 and 4 seconds
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let router = Router::new().route("orders.*.created", with_state(Arc::new(Shop {}), bill))?;
//! let options = ConsumerOptions::pull("orders", "billing").concurrency(20).exhausted(Exhausted::DeadLetter);
//! let consumption = consume(ConnectOptions::to(["nats://127.0.0.1:4222"]), options, router).await?;
//! tokio::signal::ctrl_c().await?;
//! consumption.drain(Duration::from_secs(25)).await;
//! # Ok(()) }
//! ```
//!
//! | to read | item |
//! |---|---|
//! | handlers, state, decoded payloads, middleware | [`Handler`], [`with_state`], [`Router`] |
//! | what becomes of a message | [`Outcome`], [`HandlerError`], [`RetryPolicy`], [`Exhausted`] |
//! | options and their defaults | [`ConsumerOptions`], [`ConnectOptions`] |
//! | tests without a server | [`Message::builder`] |
//! | logs and metrics | [`observe::target`], [`Handler::on_outcome`], [`Consumption::counters`] |
//! | how to stop | [`run_until`], [`Consumption::drain`], [`Context::shutting_down`] |
//! | publishing | [`Publisher`], [`Outgoing`] |
//! | subjects with names in them, as `orders.{id}.paid` | [`Template`] |
//! | dead letters | [`dead_letters`], [`replay`] |
//!
//! Delivery is at least once: a handler may see a message again, so make it idempotent. Everything runs on the current
//! tokio runtime, of either flavor, and panics outside of one.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `ring` (default) | the cryptography of TLS |
//! | `aws-lc-rs` | other cryptography of TLS, instead of `ring` |
//! | `fips` | `aws-lc-rs` in its FIPS 140-3 variant; building it needs CMake and Go |
//! | `websockets` | servers at `ws://` and `wss://` |
//! | `testing` | `testing::NatsServer`, a real nats-server for your tests |
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

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod bind;
mod client;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod connect;
#[doc(hidden)]
pub mod consumption;
mod dead_letter;
mod defect;
#[doc(hidden)]
pub mod error;
mod fail_point;
mod fetch;
#[doc(hidden)]
pub mod handle;
mod jetstream;
mod jitter;
mod lock;
#[doc(hidden)]
pub mod message;
pub mod observe;
#[doc(hidden)]
pub mod outcome;
pub mod publish;
pub mod retry;
pub mod route;
mod settle;
mod shared;
mod suspect;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod watch;

#[doc(hidden)]
pub use self::consumption as worker;
/// The client underneath, in the version that this crate's types are of.
pub use async_nats;
/// Payloads, in the version that this crate's types are of.
pub use bytes;
#[doc(hidden)]
pub use client::{pull, settle as acknowledge, subscribe};
pub use dead_letter::{read as dead_letters, replay};
#[doc(hidden)]
pub use handle::{delivery, extract, router};
#[doc(hidden)]
pub use jetstream::api;
pub use jetstream::stream;
#[doc(hidden)]
pub use publish::publisher;

pub use config::{ConnectOptions, ConsumerOptions, Exhausted, Kind, Secret, Start, TokenError, TokenSource};
pub use connect::{Connection, ConnectionEvent, Link};
#[doc(hidden)]
pub use consumption::consume_into;
pub use consumption::{Consumption, consume, run_until};
pub use dead_letters::{DeadLetters, Selection, StoredLetter};
#[doc(hidden)]
pub use delivery::{AlreadySettled, Delivery, Follows, Place};
pub use error::{Error, ErrorKind, Result};
pub use extract::{FromMessage, HandlerFn, Json, State, WithState, from_fn, with_state};
#[doc(hidden)]
pub use handle::Inbox;
pub use handle::{Attempt, Classified, Handler, Observed};
pub use message::{Context, Message, MessageBuilder, Metadata};
pub use outcome::{HandlerError, IntoOutcome, Outcome};
pub use publish::{Outgoing, PublishAck};
pub use publisher::Publisher;
pub use retry::{RetryPolicy, Schedule};
pub use route::{Pattern, Template};
pub use router::Router;

/// Runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
