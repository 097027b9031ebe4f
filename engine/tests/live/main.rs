//! The engine against real servers. Each file is a verb; `stage` is what they stand on.

mod batch;
mod bind;
mod company;
mod connect;
mod dead_letter;
mod drain;
mod ephemeral;
mod examples;
mod exhaust;
mod fetch;
mod follow;
mod handed_back;
mod idle;
mod in_order;
mod journey;
mod limits;
mod mark;
mod mortal;
mod observe;
mod ordered;
mod pace;
mod panic;
mod paths;
#[cfg(feature = "http")]
mod probes;
mod publish;
mod pull;
mod quarantine;
mod repair;
mod replay;
mod retry;
mod route;
mod settle;
mod share;
mod stage;
mod state;
mod stream;
mod subscribe;
mod suspect;
#[cfg(feature = "websockets")]
mod websocket;
