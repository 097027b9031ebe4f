//! Consumptions that have little to do share a connection. A busy one has a connection of its own, and so has one whose
//! messages may have broken the shared one (docs/decisions/0046).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, sleep, timeout};

use crate::config::ConnectOptions;
use crate::connect::{Connection, RECONNECT_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{lock, lock_of_process};

/// A durable that allows fewer unsettled deliveries does not share its connection.
pub(crate) const FEWEST_TO_SHARE: i64 = 100;

/// The shared connections of this process.
static COMMONS: Mutex<Vec<Weak<Common>>> = Mutex::new(Vec::new());

/// A connection for all who have the same options and the same runtime: its tasks end with the runtime.
#[derive(Debug)]
struct Common {
    options: ConnectOptions,
    runtime: Id,
    state: tokio::sync::Mutex<State>,
    /// Streams whose dead letters have their place, or somebody looks after it.
    prepared: Mutex<HashSet<String>>,
}

#[derive(Debug, Default)]
struct State {
    /// None while nobody uses it.
    connection: Option<Connection>,
    /// When and why it was last not opened.
    failure: Option<(Instant, Error)>,
}

/// The connections of one consumption: a place on the shared one, or one of its own. It has both while it moves.
#[derive(Debug)]
pub(crate) struct Seat {
    common: Arc<Common>,
    consumer: String,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    shared: Option<Connection>,
    own: Option<Connection>,
    /// Whether it never shares.
    is_apart: bool,
    /// Whether a message of this consumption may have broken the shared connection.
    is_suspect: bool,
}

impl Seat {
    /// A seat without a connection.
    pub(crate) fn of(options: &ConnectOptions, consumer: &str) -> Self {
        Self { common: Common::of(options), consumer: consumer.to_owned(), held: Mutex::default() }
    }

    /// A connection to begin with: the shared one, or one of its own while the shared one is lost.
    pub(crate) async fn take(&self) -> Result<Connection> {
        if self.held().is_apart {
            return self.own().await;
        }
        match self.share().await {
            Err(error) if error.kind() == ErrorKind::Disconnected => {
                // It is mostly back at once, and a server may not allow one for each.
                sleep(RECONNECT_TIMEOUT).await;
                match self.share().await {
                    Err(error) if error.kind() == ErrorKind::Disconnected => self.own().await,
                    taken => taken,
                }
            }
            taken => taken,
        }
    }

    /// A connection instead of one that is closed.
    pub(crate) async fn take_again(&self) -> Result<Connection> {
        if self.is_on_its_own() { self.own().await } else { self.take().await }
    }

    /// Takes a place on the shared connection. It is opened if it is not; many who want that wait for the first.
    ///
    /// # Errors
    /// Those of [`Connection::open`]; [`ErrorKind::Disconnected`] while the connection is lost.
    pub(crate) async fn share(&self) -> Result<Connection> {
        let asked = Instant::now();
        let mut state = self.common.state.lock().await;
        let connection = match state.connection.clone().filter(|connection| !connection.is_closed()) {
            Some(connection) if connection.is_up() => connection,
            Some(_) => {
                let text = "The shared connection is lost. Try again when it is back.";
                return Err(Error::new(ErrorKind::Disconnected, text));
            }
            None => self.common.open(&mut state, asked).await?,
        };
        connection.enter(&self.consumer);
        let mut held = self.held();
        held.shared = Some(connection.clone());
        held.is_suspect = false;
        Ok(connection)
    }

    /// Opens a connection of its own.
    ///
    /// # Errors
    /// Those of [`Connection::open`].
    pub(crate) async fn own(&self) -> Result<Connection> {
        let connection = Connection::open(&self.common.options).await?;
        connection.enter(&self.consumer);
        let mut held = self.held();
        held.own = Some(connection.clone());
        held.is_suspect = false;
        Ok(connection)
    }

    /// Whether it has a connection of its own.
    pub(crate) fn is_on_its_own(&self) -> bool {
        self.held().own.is_some()
    }

    /// Whether it has a connection of its own, and may share one.
    pub(crate) fn may_return(&self) -> bool {
        let held = self.held();
        !held.is_apart && held.own.is_some()
    }

    /// From now on, no connection is shared.
    pub(crate) fn stay_apart(&self) {
        self.held().is_apart = true;
    }

    /// Whether others use the connection, too.
    pub(crate) fn has_company(&self) -> bool {
        let held = self.held();
        held.own.is_none() && held.shared.as_ref().is_some_and(|shared| shared.company() > 1)
    }

    /// A message of this consumption may have broken the connection.
    pub(crate) fn suspect(&self) {
        self.held().is_suspect = true;
    }

    /// Whether it may harm those who share the connection, or they it.
    pub(crate) fn is_unfit(&self) -> bool {
        let held = self.held();
        held.is_apart || held.is_suspect
    }

    /// Gives up this connection. It ends with its last copy: others may use it, and a request over it may wait for its
    /// answer.
    pub(crate) async fn leave(&self, connection: &Connection, limit: Duration) {
        let is_own = self.held().own.take_if(|own| own.is(connection)).is_some();
        if !is_own {
            self.leave_shared(limit).await;
        }
    }

    /// Gives up all connections, and closes those that nobody else uses.
    pub(crate) async fn leave_all(&self, limit: Duration) {
        let own = self.held().own.clone();
        let close = async |connection: Option<Connection>| {
            if let Some(connection) = connection {
                connection.close(limit).await;
            }
        };
        tokio::join!(close(own), async { close(self.leave_shared(limit).await).await });
        self.held().own = None;
    }

    /// Gives up the place on the shared connection. Returns it to the last one to do so.
    async fn leave_shared(&self, limit: Duration) -> Option<Connection> {
        // Opening it may take longer. Then the place ends with the seat.
        let mut state = timeout(limit, self.common.state.lock()).await.ok()?;
        let shared = self.held().shared.take()?;
        let is_last = shared.leave(&self.consumer) == 0;
        if is_last {
            state.connection.take_if(|connection| connection.is(&shared));
        }
        is_last.then_some(shared)
    }

    /// Whether it is the first of those with the same options that asks for this stream: it prepares the place of dead
    /// letters for all of them.
    pub(crate) fn is_first_to_prepare(&self, stream: &str) -> bool {
        lock(&self.common.prepared).insert(stream.to_owned())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(shared) = self.held().shared.take() else { return };
        if shared.leave(&self.consumer) == 0
            && let Ok(mut state) = self.common.state.try_lock()
        {
            // It ends with its last copy.
            state.connection.take_if(|connection| connection.is(&shared));
        }
    }
}

impl Common {
    /// The one for these options on this runtime. In a forked child whose parent held the lock at the fork, each seat has
    /// its own.
    fn of(options: &ConnectOptions) -> Arc<Self> {
        let runtime = Handle::current().id();
        let make = || {
            let (state, prepared) = Default::default();
            Arc::new(Self { options: options.clone(), runtime, state, prepared })
        };
        let Some(mut commons) = lock_of_process(&COMMONS) else { return make() };
        commons.retain(|common| common.strong_count() > 0);
        let is_fit = |common: &Arc<Self>| common.runtime == runtime && common.options.are(options);
        commons.iter().filter_map(Weak::upgrade).find(is_fit).unwrap_or_else(|| {
            let common = make();
            commons.push(Arc::downgrade(&common));
            common
        })
    }

    /// Opens the connection, unless somebody has failed to since `asked`.
    async fn open(&self, state: &mut State, asked: Instant) -> Result<Connection> {
        if let Some((_, error)) = state.failure.as_ref().filter(|(when, _)| *when > asked) {
            return Err(Error::new(error.kind(), error.to_string()));
        }
        match Connection::open(&self.options).await {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                state.failure = Some((Instant::now(), Error::new(error.kind(), error.to_string())));
                Err(error)
            }
        }
    }
}
