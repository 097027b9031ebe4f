//! Our matching is the server's: for random patterns, what it finds among stored subjects is what we match.

use std::collections::BTreeSet;

use nats_consumer::Pattern;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::stage::{Stage, eventually};

const PATTERNS: usize = 2_000;
const SUBJECTS: usize = 300;

/// Few different tokens, so that much of it matches.
fn tokens(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(choices), 1..5).prop_map(|tokens| tokens.join("."))
}

fn subject() -> impl Strategy<Value = String> {
    tokens(&["a", "b", "c", "a-b", "A", "a*", ">x"])
}

/// Without tokens that only look like wildcards: the server's index of subjects takes `a*` for one, its
/// consumers do not.
fn pattern() -> impl Strategy<Value = String> {
    (tokens(&["a", "b", "c", "*", "a-b", "A"]), any::<bool>())
        .prop_map(|(tokens, rest)| if rest { format!("{tokens}.>") } else { tokens })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_finds_for_a_pattern_is_what_the_pattern_matches() {
    let stage = Stage::set().await;
    stage.create_stream("subjects", &["t.>"]).await;
    let mut runner = TestRunner::deterministic();
    let mut some =
        |strategy: BoxedStrategy<String>| format!("t.{}", strategy.new_tree(&mut runner).unwrap().current());
    let subjects: BTreeSet<String> = (0..SUBJECTS).map(|_| some(subject().boxed())).collect();
    for subject in &subjects {
        stage.client.publish(subject.clone(), "".into()).await.unwrap();
    }
    eventually("all are stored", async || stage.stored("subjects").await == subjects.len() as u64).await;
    let mut matched = 0;
    for _ in 0..PATTERNS {
        let text = some(pattern().boxed());
        let found = stage.api("STREAM.INFO.subjects", &json!({ "subjects_filter": text })).await;
        let found: BTreeSet<String> = found["state"]["subjects"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect();
        let pattern = Pattern::parse(&text).unwrap();
        let ours: BTreeSet<String> =
            subjects.iter().filter(|subject| pattern.matches(subject)).cloned().collect();
        assert_eq!(found, ours, "{text}");
        matched += ours.len();
    }
    assert!(matched > PATTERNS, "most patterns should match something: {matched}");
}
