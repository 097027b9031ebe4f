//! The engine against real servers. Each file is a verb; `stage` is what they stand on.

mod bind;
mod connect;
mod dead_letter;
mod drain;
mod examples;
mod exhaust;
mod fetch;
mod follow;
mod journey;
mod mark;
mod mortal;
mod ordered;
mod panic;
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
mod subscribe;
mod suspect;
