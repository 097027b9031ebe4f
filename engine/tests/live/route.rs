//! Our matching is the server's: for random patterns, what it finds and delivers of stored subjects is what we
//! match.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use nats_consumer::Pattern;
use nats_consumer::route::Routes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::stage::{PATIENCE, Stage, eventually};

const PATTERNS: usize = 2_000;
const SUBJECTS: usize = 300;
/// Each costs a consumer of the server's.
const FILTERS: usize = 2_000;

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

fn draw(runner: &mut TestRunner, strategy: &impl Strategy<Value = String>) -> String {
    format!("t.{}", strategy.new_tree(runner).unwrap().current())
}

/// Random subjects, each of them stored in a stream.
async fn stored_subjects(stage: &Stage, runner: &mut TestRunner) -> BTreeSet<String> {
    stage.create_stream("subjects", &["t.>"]).await;
    let subjects: BTreeSet<String> = (0..SUBJECTS).map(|_| draw(runner, &subject())).collect();
    for subject in &subjects {
        stage.client.publish(subject.clone(), "".into()).await.unwrap();
    }
    eventually("all are stored", async || stage.stored("subjects").await == subjects.len() as u64).await;
    subjects
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_finds_for_a_pattern_is_what_the_pattern_matches() {
    let stage = Stage::set().await;
    let mut runner = TestRunner::deterministic();
    let subjects = stored_subjects(&stage, &mut runner).await;
    let mut matched = 0;
    for _ in 0..PATTERNS {
        let text = draw(&mut runner, &pattern());
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

/// The subjects that the server delivers to a consumer with this filter.
async fn delivered(stage: &Stage, filter: &str) -> BTreeSet<String> {
    let config = json!({ "ack_policy": "none", "mem_storage": true, "filter_subject": filter });
    let request = json!({ "stream_name": "subjects", "config": config });
    let made = stage.api("CONSUMER.CREATE.subjects", &request).await;
    let name = made["name"].as_str().unwrap();
    let inbox = stage.client.new_inbox();
    let mut answers = stage.client.subscribe(inbox.clone()).await.unwrap();
    let ask = json!({ "batch": SUBJECTS, "no_wait": true }).to_string();
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.subjects.{name}");
    stage.client.publish_with_reply(next, inbox, ask.into()).await.unwrap();
    let mut subjects = BTreeSet::new();
    // A status, which has no payload of ours, ends the batch.
    while let Some(answer) = timeout(PATIENCE, answers.next()).await.unwrap() {
        if answer.status.is_some() {
            break;
        }
        subjects.insert(answer.subject.to_string());
    }
    stage.api(&format!("CONSUMER.DELETE.subjects.{name}"), &Value::Null).await;
    subjects
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_delivers_for_a_filter_is_what_the_trie_finds() {
    let stage = Stage::set().await;
    let mut runner = TestRunner::deterministic();
    let subjects = stored_subjects(&stage, &mut runner).await;
    let filters: BTreeSet<String> = (0..FILTERS).map(|_| draw(&mut runner, &pattern())).collect();
    let mut deliveries = BTreeMap::new();
    for filter in &filters {
        let trie: Routes<()> = [(Pattern::parse(filter).unwrap(), ())].into_iter().collect();
        let found: BTreeSet<String> =
            subjects.iter().filter(|subject| trie.find(subject).is_some()).cloned().collect();
        let server = delivered(&stage, filter).await;
        assert_eq!(server, found, "{filter}");
        deliveries.insert(filter.clone(), server);
    }
    let delivered: usize = deliveries.values().map(BTreeSet::len).sum();
    assert!(delivered > filters.len(), "most filters should let something through: {delivered}");
    // All in one trie: it finds one of those filters that the server has delivered the subject for.
    let trie: Routes<String> =
        filters.iter().map(|filter| (Pattern::parse(filter).unwrap(), filter.clone())).collect();
    for subject in &subjects {
        let is_delivered = deliveries.values().any(|each| each.contains(subject));
        let found = trie.find(subject);
        assert_eq!(found.is_some(), is_delivered, "{subject}");
        assert!(found.is_none_or(|filter| deliveries[filter].contains(subject)), "{subject}");
    }
}
