//! Answers to the NATS service protocol: which consumptions run, in which state, and how much they have done. Commands
//! such as `nats micro ls` ask. An answer has names and numbers, never a payload or a credential.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;
use std::{env, fs, process};

use async_nats::Subject;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tracing::info;

use crate::config::Kind;
use crate::connect::denial::Permission;
use crate::connect::{Connection, SERVICES};
use crate::observe::target::CONSUMER;
use crate::shared::Shared;

/// Answers whose denial is still waited for.
const MOST_ANSWERS: usize = 16;

/// The kind of endpoint that a consumption is.
const ENDPOINT: &str = "consume";

/// Tells those who ask about one consumption.
pub(crate) struct Announcer {
    shared: Arc<Shared>,
    id: String,
    host: String,
    started: SystemTime,
}

/// Why no more questions come over a connection.
enum End {
    Closed,
    Denied,
}

impl Announcer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let inbox = shared.connection().client().new_inbox();
        let id = inbox.rsplit('.').next().unwrap_or_default().to_owned();
        Self { shared, id, host: host(), started: SystemTime::now() }
    }

    /// Answers over each connection that the consumption opens, until this user may not hear questions. Never returns
    /// before.
    pub(crate) async fn run(self) {
        let mut connections = self.shared.connections();
        let mut is_told = false;
        loop {
            let connection = connections.borrow_and_update().clone();
            let end = tokio::select! {
                end = self.answer_over(&connection, &mut is_told) => end,
                Ok(()) = connections.changed() => continue,
            };
            if let End::Denied = end {
                info!(
                    target: CONSUMER,
                    consumer = self.shared.options.name,
                    "This user may not subscribe to {SERVICES}, so nats_status and `nats micro` do not list this consumer's workers. \
                     Consuming is not affected."
                );
                return;
            }
            if connections.changed().await.is_err() {
                return;
            }
        }
    }

    async fn answer_over(&self, connection: &Connection, is_told: &mut bool) -> End {
        let mut denials = connection.denials();
        connection.expect_denial(Permission::Subscribe, SERVICES);
        let Ok(mut questions) = connection.client().subscribe(SERVICES).await else { return End::Closed };
        let mut answers = VecDeque::new();
        loop {
            tokio::select! {
                question = questions.next() => match question {
                    Some(question) => self.answer(connection, &question, &mut answers).await,
                    None => return End::Closed,
                },
                denial = denials.any() => match denial.permission {
                    Permission::Subscribe if denial.subject == SERVICES => return End::Denied,
                    Permission::Publish if answers.iter().any(|answer| **answer == *denial.subject) => {
                        self.tell_lost(&denial.subject, is_told);
                    }
                    _ => {}
                },
            }
        }
    }

    async fn answer(
        &self,
        connection: &Connection,
        question: &async_nats::Message,
        answers: &mut VecDeque<Subject>,
    ) {
        let Some(reply) = &question.reply else { return };
        let Some(answer) = self.answer_to(&question.subject) else { return };
        connection.expect_denial(Permission::Publish, reply);
        answers.truncate(MOST_ANSWERS - 1);
        answers.push_front(reply.clone());
        // One that is lost is asked for again.
        let _ = connection.client().publish(reply.clone(), answer.to_string().into()).await;
    }

    /// Says for the first answer that was not permitted that it is lost. The next question may come from elsewhere.
    fn tell_lost(&self, reply: &str, is_told: &mut bool) {
        if !std::mem::replace(is_told, true) {
            info!(
                target: CONSUMER,
                consumer = self.shared.options.name,
                "This user may not publish to {reply}, so a question on {SERVICES} got no answer there. nats_status and \
                 `nats micro` do not list this consumer's workers where that is their reply subject. Consuming is not \
                 affected."
            );
        }
    }

    /// The answer to a question about all services, those of this name, or this one.
    fn answer_to(&self, subject: &str) -> Option<Value> {
        let mut tokens = subject.split('.').skip(1);
        let verb = tokens.next()?;
        let is_meant = tokens.next().is_none_or(|name| name == self.name())
            && tokens.next().is_none_or(|id| id == self.id)
            && tokens.next().is_none();
        let fields = match verb {
            "PING" => json!({ "type": "io.nats.micro.v1.ping_response" }),
            "INFO" => self.info(),
            "STATS" => self.stats(),
            _ => return None,
        };
        is_meant.then(|| self.identified(fields))
    }

    /// A service's name has no other characters.
    fn name(&self) -> String {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        self.shared.options.name.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect()
    }

    fn identified(&self, mut fields: Value) -> Value {
        let options = &self.shared.options;
        fields["name"] = self.name().into();
        fields["id"] = self.id.clone().into();
        fields["version"] = env!("CARGO_PKG_VERSION").into();
        fields["metadata"] = json!({
            "stream": options.stream,
            "durable": options.durable,
            "kind": if options.kind == Kind::Pull { "pull" } else { "push" },
            "host": self.host,
            "pid": process::id().to_string(),
        });
        fields
    }

    fn info(&self) -> Value {
        json!({
            "type": "io.nats.micro.v1.info_response",
            "description": format!("Consumes the stream {}.", self.shared.options.stream),
            "endpoints": [self.endpoint()],
        })
    }

    fn endpoint(&self) -> Value {
        let options = &self.shared.options;
        json!({
            "name": ENDPOINT,
            "subject": options.filter_subjects.first().map_or(">", String::as_str),
            "queue_group": options.durable,
        })
    }

    fn stats(&self) -> Value {
        let counters = self.shared.counters.snapshot();
        let (attempts, nanoseconds) = self.shared.meter().ran_so_far();
        let mut endpoint = self.endpoint();
        endpoint["num_requests"] = counters.received.into();
        endpoint["num_errors"] = counters.failed.into();
        endpoint["last_error"] = "".into();
        endpoint["processing_time"] = nanoseconds.into();
        endpoint["average_processing_time"] = nanoseconds.checked_div(attempts).unwrap_or_default().into();
        endpoint["data"] = self.data();
        json!({
            "type": "io.nats.micro.v1.stats_response",
            "started": humantime::format_rfc3339_millis(self.started).to_string(),
            "endpoints": [endpoint],
        })
    }

    fn data(&self) -> Value {
        let shared = &self.shared;
        let status = shared.monitor.status();
        let counters = shared.counters.snapshot();
        json!({
            "state": status.state.name(),
            "reason": status.reason,
            "state_seconds": status.since.elapsed().as_secs(),
            "in_flight": shared.places.held(),
            "late": shared.late.load(Relaxed),
            "concurrency": shared.options.concurrency,
            "received": counters.received,
            "succeeded": counters.succeeded,
            "failed": counters.failed,
            "dead_lettered": counters.dead_lettered,
            "repairs": counters.repairs,
        })
    }
}

/// The name of this machine, or of its container; empty if it is not known.
fn host() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    read.or_else(|| env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_owned()
}
