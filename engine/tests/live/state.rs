//! The state that a consumption reports, in each kind of trouble.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nats_consumer::observe::{ConsumerState, Monitor};
use nats_consumer::testing::NatsServer;
use nats_consumer::{
    ConnectOptions, ConsumerOptions, Consumption, Exhausted, Handler, HandlerError, Message, consume,
    consume_monitored,
};
use serde_json::{Value, json};

use crate::stage::{Basket, Seen, Stage, delays, eventually, pull, push, within};

/// The longest that a worker with default settings may take to say what is wrong.
const TOLD: Duration = Duration::from_secs(12);

async fn becomes(consumption: &Consumption, state: ConsumerState) {
    within(TOLD, &format!("{state}"), async || consumption.status().state == state).await;
}

async fn consumes(stage: &Stage, options: ConsumerOptions, handler: impl Handler) -> Consumption {
    let consumption = consume(stage.address(), options, handler).await.unwrap();
    becomes(&consumption, ConsumerState::Consuming).await;
    consumption
}

async fn misses_its_stream(options: ConsumerOptions) {
    let stage = Stage::set().await;
    let consumption = consumes(&stage, options, async |_: Message| ()).await;
    stage.api("STREAM.DELETE.orders", &Value::Null).await;
    becomes(&consumption, ConsumerState::NoStream).await;
    assert!(!consumption.status().is_ready(Duration::from_secs(3600)), "it does not pass by itself");
    assert!(consumption.is_running() && consumption.is_connected(), "it waits for the stream");
    stage.create_stream("orders", &["orders.>"]).await;
    becomes(&consumption, ConsumerState::Consuming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_whose_stream_is_deleted_says_so_until_it_is_made_again() {
    misses_its_stream(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_stream_is_deleted_says_so_until_it_is_made_again() {
    misses_its_stream(push()).await;
}

async fn says_that_the_server_is_frozen(options: ConsumerOptions) {
    let stage = Stage::set().await;
    let consumption = consumes(&stage, options, async |_: Message| ()).await;
    stage.server.pause().unwrap();
    becomes(&consumption, ConsumerState::Unreachable).await;
    let grace = Duration::from_secs(3600);
    assert!(consumption.status().is_ready(grace), "it was ready a moment ago");
    stage.server.resume().unwrap();
    becomes(&consumption, ConsumerState::Consuming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_whose_server_is_frozen_is_unreachable_until_it_goes_on() {
    says_that_the_server_is_frozen(pull()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_server_is_frozen_is_unreachable_until_it_goes_on() {
    says_that_the_server_is_frozen(push()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_durable_is_a_state_of_its_own_and_ready() {
    let stage = Stage::set().await;
    let consumption = consumes(&stage, pull(), async |_: Message| ()).await;
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    let until = humantime(tomorrow);
    stage.api("CONSUMER.PAUSE.orders.billing", &json!({ "pause_until": until })).await;
    becomes(&consumption, ConsumerState::Paused).await;
    let status = consumption.status();
    assert!(status.is_ready(Duration::ZERO), "{status:?}");
    assert!(status.reason.starts_with("until 20"), "{status:?}");
    stage.api("CONSUMER.PAUSE.orders.billing", &json!({})).await;
    becomes(&consumption, ConsumerState::Consuming).await;
}

/// As RFC 3339, to the second.
fn humantime(time: SystemTime) -> String {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"])
        .arg(format!("@{}", time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn users(denied: &str) -> String {
    format!(
        r#"no_auth_user: witness
        accounts {{ SHOP {{ jetstream: enabled, users: [
            {{ user: witness, password: w }},
            {{ user: shop, password: s, permissions: {{
                publish: {{ deny: [{denied}] }}, subscribe: {{ deny: [{denied}] }} }} }} ] }} }}"#
    )
}

/// A server whose configuration of users can be changed while it runs.
struct Guarded {
    stage: Stage,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Guarded {
    async fn set(users: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.conf");
        fs::write(&file, users).unwrap();
        let include = format!("include \"{}\"", relative(&file));
        let stage = Stage::set_on(NatsServer::builder().config(include)).await;
        Self { stage, file, _folder: folder }
    }

    async fn consumes(&self, options: ConsumerOptions) -> Consumption {
        let (user, password) = (Some("shop".into()), Some("s".into()));
        let address = ConnectOptions { user, password, ..self.stage.address() };
        let consumption = consume(address, options, async |_: Message| ()).await.unwrap();
        becomes(&consumption, ConsumerState::Consuming).await;
        consumption
    }

    fn reload(&self, users: String) {
        fs::write(&self.file, users).unwrap();
        let pid = self.stage.server.pid().unwrap().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }
}

async fn loses_a_permission(options: ConsumerOptions, permission: &str) {
    let server = Guarded::set(users("\"unused\"")).await;
    let consumption = server.consumes(options).await;
    server.reload(users(permission));
    becomes(&consumption, ConsumerState::Denied).await;
    assert!(!consumption.status().is_ready(Duration::from_secs(3600)));
    server.reload(users("\"unused\""));
    becomes(&consumption, ConsumerState::Consuming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumption_whose_password_was_changed_is_denied_until_it_is_changed_back() {
    let right = users("\"unused\"");
    let server = Guarded::set(right.clone()).await;
    let consumption = server.consumes(pull()).await;
    server.reload(right.replace("password: s", "password: other"));
    becomes(&consumption, ConsumerState::Denied).await;
    assert!(!consumption.status().is_ready(Duration::from_secs(3600)));
    server.reload(right);
    becomes(&consumption, ConsumerState::Consuming).await;
}

/// The server takes included files relative to its own configuration only.
fn relative(file: &Path) -> String {
    let name = file.strip_prefix(std::env::temp_dir()).unwrap();
    format!("../{}", name.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_whose_permission_is_revoked_is_denied_until_it_has_it_again() {
    let options = ConsumerOptions { fetch_timeout: Duration::from_secs(3), ..pull() };
    loses_a_permission(options, "\"$JS.API.CONSUMER.MSG.NEXT.>\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_permission_is_revoked_is_denied_until_it_has_it_again() {
    loses_a_permission(push(), "\"_deliver.>\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumption_is_stuck_while_retries_use_up_max_ack_pending() {
    let stage = Stage::set().await;
    stage.publish(0..2).await;
    // The server is asked for the state each sixth of `ack_wait`.
    let ack_wait = Duration::from_secs(6);
    let options = ConsumerOptions { retry: delays(3, &[8000]), ack_wait, ..pull() };
    let options = options.max_ack_pending(2).exhausted(Exhausted::Ack);
    let fails = async |_: Message| Err::<(), HandlerError>("busy".into());
    let consumption = consume(stage.address(), options, fails).await.unwrap();
    becomes(&consumption, ConsumerState::Stuck).await;
    within(Duration::from_secs(30), "the retries", async || {
        consumption.status().state == ConsumerState::Consuming
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_hold_it_up_make_a_consumption_stuck_until_they_go_on() {
    let stage = Stage::set().await;
    let consumption = consumes(&stage, pull(), async |_: Message| ()).await;
    consumption.suspend();
    assert_eq!(consumption.status().state, ConsumerState::Stuck);
    consumption.resume();
    assert_eq!(consumption.status().state, ConsumerState::Consuming);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_state_is_told_from_the_first_start_to_the_end() {
    let stage = Stage::set().await;
    let monitor = Monitor::alone(&pull());
    let mut changes = monitor.changes();
    let telling = tokio::spawn(async move {
        let mut told = vec![changes.borrow_and_update().state];
        while told.last() != Some(&ConsumerState::Stopped) || told.len() == 1 {
            changes.changed().await.unwrap();
            told.push(changes.borrow_and_update().state);
        }
        told
    });
    let basket = std::sync::Arc::new(Basket::default());
    let consumption = consume_monitored(stage.address(), pull(), basket, monitor).await.unwrap();
    becomes(&consumption, ConsumerState::Consuming).await;
    consumption.drain(Duration::from_secs(1)).await;
    let told = telling.await.unwrap();
    // A receiver that is slow sees the last of several changes.
    let all = [
        ConsumerState::Stopped,
        ConsumerState::Starting,
        ConsumerState::Binding,
        ConsumerState::Consuming,
        ConsumerState::Draining,
        ConsumerState::Stopped,
    ];
    assert_eq!(told.last(), Some(&ConsumerState::Stopped));
    let mut order = all.iter();
    assert!(told.iter().all(|state| order.any(|each| each == state)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_what_is_wrong_and_keeps_saying_it() {
    let mut stage = Stage::set().await;
    let basket = || std::sync::Arc::new(Basket::default());
    let elsewhere = ConsumerOptions::pull("letters", "billing");
    let monitor = Monitor::alone(&elsewhere);
    let started = consume_monitored(stage.address(), elsewhere.clone(), basket(), monitor.clone()).await;
    assert!(started.is_err());
    assert_eq!(monitor.status().state, ConsumerState::NoStream);
    let address = stage.address();
    stage.server.kill().await.unwrap();
    let started = consume_monitored(address, elsewhere, basket(), monitor.clone()).await;
    assert!(started.is_err());
    assert_eq!(monitor.status().state, ConsumerState::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumption_that_is_dropped_has_stopped() {
    let stage = Stage::set().await;
    let seen = Seen::default();
    let consumption = consumes(&stage, pull(), seen.and_ack()).await;
    let changes = consumption.watch_status();
    drop(consumption);
    eventually("it has stopped", async || changes.borrow().state == ConsumerState::Stopped).await;
}
