//! The crate's public paths: each is imported here as a program does it. A path that moves does not compile.

use std::collections::BTreeSet;

/// Decision 22 promises these.
#[expect(unused_imports, reason = "importing is the test")]
mod promised {
    use nats_consumer::dead_letters::{delete, get};
    use nats_consumer::durables::{Action, Change, Plan, apply, plan};
    use nats_consumer::observe::target::{CONNECTION, CONSUMER, DEAD_LETTER, HANDLER, WORKER};
    use nats_consumer::observe::{
        ConsumerState, Counters, FAMILIES, Family, Format, Kind as MetricKind, Metrics, Probes, Snapshot,
        Status,
    };
    use nats_consumer::publish::{publish, request, send};
    use nats_consumer::retry::{Next, PolicyError};
    use nats_consumer::route::{PatternError, Routes, Rule, TemplateError, Tokens, validate_publish_subject};
    use nats_consumer::stream::create_stream;
    use nats_consumer::testing::{NatsCluster, NatsServer};
    use nats_consumer::{
        Attempt, BatchHandler, Batching, Classified, ConnectOptions, Connection, ConnectionEvent,
        ConsumerOptions, Consumption, Context, DeadLetters, Error, ErrorKind, Exhausted, FromMessage,
        Handler, HandlerError, HandlerFn, IntoOutcome, IntoOutcomes, Json, Kind, Link, Message,
        MessageBuilder, Metadata, Observed, Outcome, Outcomes, Outgoing, Pattern, PublishAck, Publisher,
        Result, RetryPolicy, Router, Schedule, Secret, Selection, Start, State, StoredLetter, StreamConfig,
        Template, TokenError, TokenSource, WithState, async_nats, bytes, consume, consume_batches,
        consume_batches_observed, consume_observed, dead_letters, durables, ensure_stream, from_fn, identity,
        replay, run_until, stream, with_state,
    };
}

/// The bridge uses these. They are not promised, and still do not move by accident.
#[expect(unused_imports, reason = "importing is the test")]
mod hidden {
    use nats_consumer::acknowledge::{Verdict, ack_confirmed, settle};
    use nats_consumer::api::{API_TIMEOUT, PREFIX, request, request_behind};
    use nats_consumer::observe::{Clock, Durations, Host, Monitor, Name, Page, Versions, View, text};
    use nats_consumer::pull::{PullFrom, Puller};
    use nats_consumer::subscribe::{
        Interest, Ordered, Statuses, Subscription, subscribe, subscribe_in_order,
    };
    use nats_consumer::{
        AlreadySettled, Blame, Delivery, Follows, Gatherer, Halves, Inbox, Place, acknowledge, api, config,
        connect, consume_into, consume_monitored, consumption, copies, delivery, error, extract, handle,
        message, outcome, publisher, pull, router, worker,
    };
}

#[test]
fn every_item_at_the_root_of_the_crate_is_imported_as_a_program_imports_it() {
    let exports = include_str!("../../src/lib.rs").split("pub use ").skip(1);
    let exported: BTreeSet<&str> =
        exports.filter_map(|code| code.split(';').next()).flat_map(names).collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let imported: BTreeSet<&str> = include_str!("paths.rs").split(|c| !is_word(c)).collect();
    assert!(exported.len() > 50, "{exported:?}");
    assert_eq!(exported.difference(&imported).collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// The names in a `use` declaration, as a program sees them: the last word of each item.
fn names(code: &str) -> impl Iterator<Item = &str> {
    let items = code.split([',', '{', '}']).filter_map(|item| item.split_whitespace().last());
    items.filter_map(|item| item.rsplit("::").next()).filter(|name| !name.is_empty())
}
