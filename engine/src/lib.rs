//! Consume from NATS JetStream: the engine of django-nats-consumer, usable from Rust alone.
//!
//! ```no_run
//! use nats_consumer::{
//!     ConnectOptions, Connection, ConsumerOptions, Exhausted, HandlerError, Json, Router, State, StreamConfig, consume,
//!     ensure_stream, with_state,
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
//! let connect = ConnectOptions::to(["nats://127.0.0.1:4222"]);
//! ensure_stream(&Connection::open(&connect).await?, &StreamConfig::new("orders").subject("orders.>")).await?;
//!
//! let router = Router::new().route("orders.{id}.created", with_state(Arc::new(Shop {}), bill))?;
//! let options = ConsumerOptions::pull("orders", "billing").concurrency(20).exhausted(Exhausted::DeadLetter);
//! let consumption = consume(connect, options, router).await?;
//! tokio::signal::ctrl_c().await?;
//! consumption.drain(Duration::from_secs(25)).await;
//! # Ok(()) }
//! ```
//!
//! | to read | item |
//! |---|---|
//! | handlers, state, decoded payloads, middleware | [`Handler`], [`with_state`], [`Router`] |
//! | several messages in one call | [`consume_batches`], [`BatchHandler`], [`Batching`] |
//! | decisions about a message | [`Outcome`], [`HandlerError`], [`RetryPolicy`], [`Exhausted`] |
//! | options and their defaults | [`ConsumerOptions`], [`ConnectOptions`] |
//! | tests without a server | [`Message::builder`] |
//! | logs and metrics | [`observe::target`], [`Handler::on_outcome`], [`Consumption::status`], [`observe::Metrics`], [`Consumption::counters`] |
//! | how to stop | [`run_until`], [`Consumption::drain`], [`Context::shutting_down`] |
//! | publishing | [`Publisher`], [`Outgoing`] |
//! | subjects with names in them, as `orders.{id}.paid` | [`Template`] |
//! | dead letters | [`DeadLetters`], [`replay()`] |
//! | streams | [`StreamConfig`], [`ensure_stream`] |
//! | what a start would change, before it | [`durables::plan`], [`durables::apply`] |
//!
//! Delivery is at least once: a handler may see a message again, so make it idempotent. Everything runs on the current
//! tokio runtime, of either flavor. Outside of one it panics.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `ring` (default) | the cryptography of TLS |
//! | `nkeys` (default) | signing in with `credentials` or `nkey_seed` |
//! | `aws-lc-rs` | other cryptography of TLS, instead of `ring` |
//! | `fips` | `aws-lc-rs` in its FIPS 140-3 variant; building it needs CMake and Go |
//! | `http` | `observe::Probes`: `/livez`, `/readyz` and `/metrics` |
//! | `websockets` | servers at `ws://` and `wss://` |
//! | `testing` | `testing::NatsServer`, a real nats-server for your tests |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod batch;
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
pub use bind::plan as durables;
/// Payloads, in the version that this crate's types are of.
pub use bytes;
#[doc(hidden)]
pub use client::{pull, settle as acknowledge, subscribe};
pub use dead_letter::identity::identity;
pub use dead_letter::read as dead_letters;
#[doc(hidden)]
pub use dead_letter::replay;
pub use dead_letter::replay::replay;
#[doc(hidden)]
pub use dead_letter::store::copies;
#[doc(hidden)]
pub use handle::{delivery, extract, router};
#[doc(hidden)]
pub use jetstream::api;
pub use jetstream::stream;
#[doc(hidden)]
pub use publish::publisher;

#[doc(hidden)]
pub use batch::gather::Gatherer;
#[doc(hidden)]
pub use batch::halves::{Blame, Halves};
pub use batch::{BatchHandler, IntoOutcomes, Outcomes};
pub use config::{
    Batching, ConnectOptions, ConsumerOptions, Exhausted, Kind, Secret, Start, TokenError, TokenSource,
};
pub use connect::{Connection, ConnectionEvent, Link};
pub use consumption::{
    Consumption, consume, consume_batches, consume_batches_observed, consume_observed, run_until,
};
#[doc(hidden)]
pub use consumption::{consume_into, consume_monitored};
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
pub use stream::{StreamConfig, ensure_stream};

/// Runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
