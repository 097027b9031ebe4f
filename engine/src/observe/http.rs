//! `/livez`, `/readyz` and `/metrics` over HTTP, in a thread with a runtime of its own: it answers while handlers hold up
//! everything else. Nothing can be changed over it.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::http::response::Builder;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info};

use crate::observe::expose::Format;
use crate::observe::fleet::{Fleet, LONGEST_SILENCE, Readiness};
use crate::observe::monitor::Metrics;
use crate::observe::state::Status;
use crate::observe::target::WORKER;

/// How often a port that is taken is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// How often the runtime says that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Limits for clients.
const CONNECTIONS: usize = 32;
const HEADERS: usize = 8 * 1024;
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// A pause after an accept that failed: mostly there are no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Probes and metrics over HTTP, until it is dropped.
///
/// | | |
/// |---|---|
/// | `GET /livez` | 200 if the engine's runtime goes on; it asks neither NATS nor a handler |
/// | `GET /readyz` | 200 if every consumer [is ready](crate::observe::Status::is_ready), with a line for each; `?consumer=` asks for one |
/// | `GET /metrics` | the [metrics](Metrics), in the format that the client accepts |
///
/// ```no_run
/// # use nats_consumer::observe::{Metrics, Probes};
/// # use std::time::Duration;
/// # async fn example(metrics: Metrics) -> std::io::Result<()> {
/// let probes = Probes::start(metrics, "127.0.0.1:9464", Duration::from_secs(10))?;
/// # drop(probes);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Probes {
    address: watch::Receiver<Option<SocketAddr>>,
    thread: Option<JoinHandle<()>>,
    stop: Option<DropGuard>,
}

impl Probes {
    /// Answers at `address`, a host and a port such as `127.0.0.1:9464`; port 0 chooses one. The current tokio runtime is
    /// what `/livez` asks about. A port that is taken is logged, and tried again until it is free. Consumers that were
    /// ready until less than `grace` ago are ready.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(metrics: Metrics, address: impl Into<String>, grace: Duration) -> io::Result<Self> {
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(beat(metrics.clone())));
        Self::of(Box::new(metrics), address, grace, stop)
    }

    /// Answers for several processes, as [`start`](Self::start) does for one. `/livez` asks about the supervisor.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    #[doc(hidden)]
    pub fn of_fleet(fleet: Fleet, address: impl Into<String>, grace: Duration) -> io::Result<Self> {
        Self::of(Box::new(fleet), address, grace, CancellationToken::new())
    }

    fn of(
        source: Box<dyn Source>,
        address: impl Into<String>,
        grace: Duration,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let address = address.into();
        let (bound, is_bound) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let site = Arc::new(Site { source, grace });
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("nats-consumer-http".into()).spawn(move || {
            drop(runtime.block_on(stopped.run_until_cancelled(serve(address, bound, site))));
        })?;
        Ok(Self { address: is_bound, thread: Some(thread), stop: Some(stop.drop_guard()) })
    }

    /// The address that it answers at; `None` while the port is taken by somebody else.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.borrow()
    }

    /// Waits until it answers.
    pub async fn bound(&self) -> Option<SocketAddr> {
        let mut address = self.address.clone();
        *address.wait_for(Option::is_some).await.ok()?
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says each second that the runtime goes on.
#[doc(hidden)]
pub async fn beat(metrics: Metrics) -> Infallible {
    loop {
        metrics.beat();
        sleep(HEARTBEAT).await;
    }
}

/// Answers for one process or for several.
trait Source: Send + Sync {
    /// How long it has not gone on; `None` if it never did.
    fn silence(&self) -> Option<Duration>;

    fn readiness(&self, grace: Duration) -> Vec<Readiness>;

    fn text(&self, format: Format, grace: Duration) -> String;
}

impl Source for Metrics {
    fn silence(&self) -> Option<Duration> {
        self.page().silence()
    }

    fn readiness(&self, grace: Duration) -> Vec<Readiness> {
        let of = |(name, status): (String, Status)| {
            let text = format!("{name} {status}");
            Readiness { consumer: Some(name), is_ready: status.is_ready(grace), text }
        };
        self.statuses().into_iter().map(of).collect()
    }

    fn text(&self, format: Format, grace: Duration) -> String {
        self.text_with_grace(format, grace)
    }
}

impl Source for Fleet {
    fn silence(&self) -> Option<Duration> {
        self.silence()
    }

    fn readiness(&self, grace: Duration) -> Vec<Readiness> {
        self.readiness(grace)
    }

    fn text(&self, format: Format, grace: Duration) -> String {
        self.text(format, grace)
    }
}

async fn serve(
    address: String,
    bound: watch::Sender<Option<SocketAddr>>,
    site: Arc<Site>,
) -> io::Result<Infallible> {
    let mut is_told = false;
    let listener = loop {
        match TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(error) if !is_told => {
                is_told = true;
                error!(
                    target: WORKER,
                    "Probes and metrics cannot be served at {address}: {error}. Consumers still run. The address \
                     is tried again every {BIND_AGAIN:?}."
                );
            }
            Err(_) => {}
        }
        sleep(BIND_AGAIN).await;
    };
    let address = listener.local_addr()?;
    info!(target: WORKER, "Probes and metrics are served at http://{address}: /livez, /readyz, /metrics.");
    bound.send_replace(Some(address));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let answering = answer_on(socket, site.clone());
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIMEOUT, answering).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn answer_on(socket: TcpStream, site: Arc<Site>) {
    let service = service_fn(|request: Request<Incoming>| {
        ready(site.answer(request.method(), request.uri(), &accepted(&request)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS)
        .serve_connection(TokioIo::new(socket), service);
    // A client that breaks off has its reasons.
    let _ = connection.await;
}

fn accepted(request: &Request<Incoming>) -> String {
    let headers = request.headers().get_all(ACCEPT).iter();
    headers.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

/// The three pages.
struct Site {
    source: Box<dyn Source>,
    grace: Duration,
}

type Answer = hyper::http::Result<Response<String>>;

impl Site {
    fn answer(&self, method: &Method, uri: &hyper::Uri, accept: &str) -> Answer {
        let page: fn(&Self, &str, &str) -> Answer = match uri.path() {
            "/livez" => Self::livez,
            "/readyz" => Self::readyz,
            "/metrics" => Self::numbers,
            _ => return plain(StatusCode::NOT_FOUND).body("Ask for /livez, /readyz or /metrics.\n".into()),
        };
        if method != Method::GET && method != Method::HEAD {
            let refused = plain(StatusCode::METHOD_NOT_ALLOWED).header(ALLOW, "GET, HEAD");
            return refused.body("Only GET and HEAD are allowed.\n".into());
        }
        page(self, uri.query().unwrap_or_default(), accept)
    }

    fn livez(&self, _query: &str, _accept: &str) -> Answer {
        let silence = self.source.silence();
        match silence.filter(|silence| *silence < LONGEST_SILENCE) {
            Some(_) => plain(StatusCode::OK).body("live\n".into()),
            None => plain(StatusCode::SERVICE_UNAVAILABLE).body(format!(
                "The process has not moved for {} s.\n",
                silence.unwrap_or_default().as_secs()
            )),
        }
    }

    fn readyz(&self, query: &str, _accept: &str) -> Answer {
        let mut all = self.source.readiness(self.grace);
        if let Some(wanted) = query.split('&').find_map(|pair| pair.strip_prefix("consumer=")) {
            all.retain(|it| it.consumer.as_deref() == Some(wanted));
            if all.is_empty() {
                return plain(StatusCode::NOT_FOUND).body("This process has no such consumer.\n".into());
            }
        }
        let mut text = String::new();
        for Readiness { is_ready, text: line, .. } in &all {
            let _ = writeln!(text, "[{}] {line}", if *is_ready { '+' } else { '-' });
        }
        let has_consumer = all.iter().any(|it| it.consumer.is_some());
        if !has_consumer {
            text.push_str("No consumer is declared.\n");
        }
        let are_ready = has_consumer && all.iter().all(|it| it.is_ready);
        plain(if are_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }).body(text)
    }

    fn numbers(&self, _query: &str, accept: &str) -> Answer {
        let format = Format::accepted(accept);
        let text = self.source.text(format, self.grace);
        answer(StatusCode::OK, format.content_type()).body(text)
    }
}

fn plain(status: StatusCode) -> Builder {
    answer(status, "text/plain; charset=utf-8")
}

fn answer(status: StatusCode, content_type: &'static str) -> Builder {
    Response::builder().status(status).header(CONTENT_TYPE, content_type).header(CACHE_CONTROL, "no-store")
}
