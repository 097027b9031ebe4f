//! Observation of handlers: their span, the log lines about failures, the hook for metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use nats_consumer::{Consumption, Context, Exhausted, Handler, HandlerError, Message, consume, from_fn};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::stage::{Stage, delays, eventually, pull};

type Fields = BTreeMap<&'static str, String>;

/// Every event of a handler or of the program, with the fields of the spans around it.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<Fields>>>);

struct Reader<'a>(&'a mut Fields);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Reader(&mut fields));
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let mut fields = Fields::from([("target", event.metadata().target().to_owned())]);
        for span in context.event_scope(event).into_iter().flatten() {
            fields.extend(span.extensions().get::<Fields>().cloned().unwrap_or_default());
        }
        event.record(&mut Reader(&mut fields));
        self.0.lock().unwrap().push(fields);
    }
}

impl Lines {
    /// Hears what this thread logs, for as long as the guard lives.
    pub(crate) fn heard() -> (Self, DefaultGuard) {
        let lines = Self::default();
        let guard = set_default(tracing_subscriber::registry().with(lines.clone()));
        (lines, guard)
    }

    /// Waits for a line that has this text.
    pub(crate) async fn next_with(&self, text: &str) -> String {
        let found = || self.0.lock().unwrap().iter().find(|line| line["message"].contains(text)).cloned();
        eventually(&format!("the log says {text:?}"), async || found().is_some()).await;
        found().unwrap()["message"].clone()
    }

    /// The one line that has this text.
    #[track_caller]
    pub(crate) fn the_one_with(&self, text: &str) -> String {
        let lines = self.0.lock().unwrap();
        let with: Vec<_> = lines.iter().filter(|line| line["message"].contains(text)).collect();
        let [line] = with[..] else { panic!("{} lines with {text:?} in {lines:?}", with.len()) };
        line["message"].clone()
    }

    fn with(&self, message: &str) -> Vec<Fields> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line["message"] == message).cloned().collect()
    }
}

async fn consumes(stage: &Stage, handler: impl Handler) -> Consumption {
    let options = pull().exhausted(Exhausted::DeadLetter).retry(delays(2, &[10]));
    consume(stage.address(), options, handler).await.unwrap()
}

#[tokio::test]
async fn a_line_of_a_handler_says_which_attempt_at_which_message_it_is() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let (lines, _guard) = Lines::heard();
    let billing = async |_: Message| tracing::info!("billing");
    let _consumption = consumes(&stage, billing).await;
    stage.all_settled().await;
    let [line] = &lines.with("billing")[..] else { panic!("not one line") };
    let expected = [
        ("consumer", "billing"),
        ("stream", "orders"),
        ("subject", "orders.created"),
        ("sequence", "1"),
        ("attempt", "1"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{line:?}");
    }
}

#[tokio::test]
async fn a_failed_attempt_is_one_line_with_the_consumer_and_the_whole_error() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let (lines, _guard) = Lines::heard();
    let handler = async |message: Message| match message.attempt() {
        1 => Err(HandlerError::from(std::io::Error::other("the disk is full"))),
        _ => message.json::<String>().map(drop),
    };
    let _consumption = consumes(&stage, handler).await;
    stage.all_settled().await;
    let [retried, given_up] = &lines.with("The handler failed.")[..] else { panic!("not two lines") };
    assert_eq!((&*retried["outcome"], &*retried["attempt"]), ("retry", "1"));
    assert_eq!((&*retried["consumer"], &*retried["error"]), ("billing", "the disk is full"));
    assert_eq!((&*given_up["outcome"], &*given_up["sequence"]), ("dead_letter", "1"));
    assert!(given_up["error"].contains("the handler expects: invalid type: integer"), "{given_up:?}");
    let about =
        lines.0.lock().unwrap().iter().filter(|line| line["message"].contains("dead letter:")).count();
    assert_eq!(about, 0, "the dead letter has a second line");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_learns_what_became_of_each_attempt() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let handler =
        from_fn(async |context: Context| Err::<(), _>(if context.is_last() { "still" } else { "at first" }));
    let handler = handler.on_outcome(move |attempt| {
        let error = attempt.error.map(ToString::to_string).unwrap_or_default();
        noted.lock().unwrap().push((attempt.message.attempt(), attempt.outcome.name(), error));
    });
    let _consumption = consumes(&stage, handler).await;
    eventually("both attempts are seen", async || seen.lock().unwrap().len() == 2).await;
    let expected = [(1, "retry", "at first".to_owned()), (2, "dead_letter", "still".to_owned())];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_learns_that_it_should_end() {
    let stage = Stage::set().await;
    stage.publish(0..1).await;
    let runs = Arc::new(Notify::new());
    let started = runs.clone();
    let handler = from_fn(move |context: Context| {
        let started = started.clone();
        async move {
            assert!(!context.shutting_down());
            started.notify_one();
            context.shutdown().await;
        }
    });
    let consumption = consumes(&stage, handler).await;
    runs.notified().await;
    assert_eq!(consumption.drain(crate::stage::PATIENCE).await, 0);
    assert_eq!(consumption.counters().succeeded, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cause_of_an_error_is_kept_with_its_dead_letter() {
    let stage = Stage::set().await;
    let mut letters = stage.hear("dlq.orders.billing").await;
    stage.publish(0..1).await;
    let _consumption = consumes(&stage, async |message: Message| message.json::<String>().map(drop)).await;
    let headers = letters.next().await.headers.unwrap();
    assert_eq!(
        headers.get("Dlq-Reason").unwrap().as_str(),
        "the payload is not the JSON that the handler expects"
    );
    assert!(headers.get("Dlq-Error").unwrap().as_str().contains("invalid type: integer"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_an_error_asks_for_counts_as_an_attempt() {
    let stage = Stage::set().await;
    let mut settlements = stage.hear_settlements().await;
    stage.publish(0..1).await;
    let busy = async |_: Message| {
        Err::<(), _>(HandlerError::retry_after(std::time::Duration::from_millis(20), "busy"))
    };
    let consumption = consumes(&stage, busy).await;
    stage.all_settled().await;
    assert_eq!(consumption.counters().exhausted, 1);
    assert_eq!(settlements.so_far()[0], "-NAK {\"delay\":20000000}");
}
