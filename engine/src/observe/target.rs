//! Targets of the engine's log events: names that stay when the code moves.
//!
//! In Python they are the names of the loggers, with dots for the colons.

/// Connecting, reconnecting, and permissions.
pub const CONNECTION: &str = "nats_consumer::connection";

/// Binding, consuming, repairs, and messages that may have ended their worker.
pub const CONSUMER: &str = "nats_consumer::consumer";

/// The process: probes and metrics over HTTP.
pub const WORKER: &str = "nats_consumer::worker";

/// Failed attempts and dropped messages.
pub const HANDLER: &str = "nats_consumer::handler";

/// Messages that become dead letters, and their streams.
pub const DEAD_LETTER: &str = "nats_consumer::dead_letter";
