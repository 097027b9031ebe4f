//! The servers of one connection: which one is next, how to sign in there, and whether only over TLS.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};

use async_nats::{Auth, AuthError, ServerAddr};
use percent_encoding::percent_decode_str;

use crate::config::{ConnectOptions, Secret, TokenError, TokenSource};
use crate::connect::failure::{Cause, Failure};
use crate::connect::proof::Proof;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::lock;

/// Address at which a connection that must not reconnect looks for a server: nobody can listen on this port. async-nats
/// cannot be told to end with a loss, and would send over another connection what it has still to send.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Credentials that are sent to a server, beside those that are signed.
#[derive(Clone, Debug, Default)]
struct SignIn {
    user: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
}

impl SignIn {
    /// The user and password of the options, or their token.
    fn of_options(options: &ConnectOptions) -> Result<Self> {
        if options.user.is_some() != options.password.is_some() {
            return Err(Error::new(ErrorKind::Config, "`user` and `password` go together: set both."));
        }
        Ok(Self {
            user: options.user.clone(),
            password: options.password.clone(),
            token: options.token.clone(),
        })
    }

    /// The credentials of a URL. A user without a password is a token, as for other clients.
    fn of_url(address: &ServerAddr) -> Result<Self> {
        let Some(user) = address.username() else { return Ok(Self::default()) };
        let user = decoded(user)?;
        Ok(match address.password() {
            Some(password) => {
                Self { user: Some(user), password: Some(decoded(password)?.into()), token: None }
            }
            None => Self { token: Some(user.into()), ..Self::default() },
        })
    }

    fn is_secret(&self) -> bool {
        self.password.is_some() || self.token.is_some()
    }
}

/// A server that can be connected to.
#[derive(Clone, Debug)]
struct Server {
    /// Address for async-nats: without credentials, and `tls://` if TLS is required.
    address: ServerAddr,
    /// Address for people: as it was given, without credentials.
    spelled: String,
    /// The password or token would cross a network in the clear, so that TLS is demanded.
    is_guarded: bool,
    /// The credentials in its URL.
    sign_in: SignIn,
}

/// The servers of one connection.
pub(crate) struct Servers {
    named: Vec<Server>,
    proof: Proof,
    /// The credentials in the options; they go to every server.
    sign_in: SignIn,
    token_source: Option<TokenSource>,
    tls_required: Option<bool>,
    nowhere: Option<ServerAddr>,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The servers that a server told of and the options do not name.
    learned: Vec<Server>,
    /// The one that is connected, or was tried last.
    current: Option<Server>,
    /// The one to be tried next, whatever became of it before.
    next: Option<ServerAddr>,
}

impl Servers {
    /// The servers that the options name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an address, a seed or a credentials file that cannot be used.
    pub(crate) fn new(options: &ConnectOptions) -> Result<Self> {
        let mut servers = Self {
            named: Vec::new(),
            proof: Proof::of(options)?,
            sign_in: SignIn::of_options(options)?,
            token_source: options.token_source.clone(),
            tls_required: options.tls_required,
            nowhere: (options.max_reconnects == Some(0)).then(|| NOWHERE.parse().expect("a URL")),
            pool: Mutex::default(),
        };
        for address in parse_servers(&options.servers)? {
            let sign_in = SignIn::of_url(&address)?;
            let named = servers.server(address, sign_in);
            servers.named.push(named);
        }
        Ok(servers)
    }

    fn server(&self, address: ServerAddr, sign_in: SignIn) -> Server {
        let spelled = display(&address);
        let has_secret = self.token_source.is_some() || self.sign_in_at(&sign_in).is_secret();
        // With a credentials file nothing secret is sent: the client signs what the server asks.
        let sends_a_secret = has_secret && !self.proof.is_all();
        let is_guarded = sends_a_secret && self.tls_required.is_none() && !is_loopback(&address);
        let is_guarded = is_guarded && !address.tls_required();
        Server { address: bare(address, is_guarded), spelled, is_guarded, sign_in }
    }

    /// Returns the credentials of the options, or those of the URL if the options have none.
    fn sign_in_at<'a>(&'a self, of_url: &'a SignIn) -> &'a SignIn {
        if self.sign_in.is_secret() || self.token_source.is_some() { &self.sign_in } else { of_url }
    }

    /// Their addresses, those that were named first.
    pub(crate) fn addresses(&self) -> Vec<ServerAddr> {
        let pool = self.pool();
        let servers = self.named.iter().chain(&pool.learned).map(|server| &server.address);
        servers.chain(&self.nowhere).cloned().collect()
    }

    /// The address at which a connection that was lost has to look for a server if it must not reconnect.
    pub(crate) fn nowhere(&self) -> Option<ServerAddr> {
        self.nowhere.clone()
    }

    /// The named ones, as they were given, without credentials.
    pub(crate) fn named(&self) -> Vec<String> {
        self.named.iter().map(|server| server.spelled.clone()).collect()
    }

    /// The servers that were learned from others, and that the options do not name.
    pub(crate) fn learned(&self) -> Vec<String> {
        self.pool().learned.iter().map(|server| server.spelled.clone()).collect()
    }

    /// The one that is connected, or was tried last.
    pub(crate) fn current(&self) -> Option<(String, ServerAddr)> {
        self.pool().current.as_ref().map(|server| (server.spelled.clone(), server.address.clone()))
    }

    /// The named ones, each once and in any order: a fleet does not gather at the first.
    pub(crate) fn in_any_order(&self) -> Vec<ServerAddr> {
        let mut left: Vec<_> = self.named.iter().map(|server| server.address.clone()).collect();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            order.push(left.swap_remove(random_below(left.len())));
        }
        order
    }

    /// This one is to be tried next.
    pub(crate) fn turn_to(&self, address: &ServerAddr) {
        self.pool().next = Some(address.clone());
    }

    /// The server to try now, of those that async-nats knows: one of those that failed least often in a row.
    pub(crate) fn choose(&self, known: &[async_nats::Server]) -> Option<ServerAddr> {
        let mut pool = self.pool();
        let next = pool.next.take();
        let ours: Vec<&Server> = self.named.iter().chain(&pool.learned).collect();
        let find = |address: &ServerAddr| ours.iter().find(|server| server.address == *address).copied();
        let chosen = next.as_ref().and_then(find).or_else(|| {
            let known: Vec<_> =
                known.iter().filter_map(|one| Some((one.failed_attempts, find(&one.addr)?))).collect();
            let least = known.iter().map(|(failed, _)| *failed).min()?;
            let best: Vec<_> = known.iter().filter(|(failed, _)| *failed == least).collect();
            best.get(random_below(best.len())).map(|(_, server)| *server)
        });
        let chosen = chosen.cloned();
        pool.current.clone_from(&chosen);
        chosen.map(|server| server.address)
    }

    /// The last try, if it failed.
    pub(crate) fn last_failure(&self, known: &[async_nats::Server]) -> Option<Failure> {
        let pool = self.pool();
        let current = pool.current.as_ref()?;
        let tried =
            known.iter().find(|server| server.addr == current.address && server.failed_attempts > 0)?;
        Some(current.failure(tried.last_error.clone()?, None))
    }

    /// A failure to connect to a named server.
    pub(crate) fn failure(&self, address: &ServerAddr, text: String, error: Option<Cause>) -> Failure {
        match self.named.iter().find(|server| server.address == *address) {
            Some(server) => server.failure(text, error),
            None => Failure { server: display(address), text, is_guarded: false, error },
        }
    }

    /// Takes note of the addresses that the connected server tells of. Whether they are others than before.
    ///
    /// They are of one cluster, with the same users: the server that told of them was trusted with the password
    /// that is used there.
    pub(crate) fn learn(&self, told: &[String]) -> bool {
        let mut pool = self.pool();
        let Some(teller) = pool.current.clone() else { return false };
        let mut learned: Vec<Server> = Vec::new();
        for address in told.iter().filter_map(|text| told_address(text, teller.address.scheme())) {
            let is_known = |other: &Server| is_same_place(&other.address, &address);
            if !self.named.iter().any(is_known) && !learned.iter().any(is_known) {
                learned.push(self.server(address, teller.sign_in.clone()));
            }
        }
        learned.sort_by(|one, other| one.spelled.cmp(&other.spelled));
        let is_news = !learned
            .iter()
            .map(|server| &server.address)
            .eq(pool.learned.iter().map(|server| &server.address));
        pool.learned = learned;
        is_news
    }

    /// The answer to the server that is being connected.
    pub(crate) async fn answer(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = self.proof.answer(nonce)?;
        if self.proof.is_all() {
            return Ok(auth);
        }
        let of_url = self.pool().current.as_ref().map(|server| server.sign_in.clone()).unwrap_or_default();
        let sign_in = self.sign_in_at(&of_url);
        auth.username.clone_from(&sign_in.user);
        auth.password = sign_in.password.as_ref().map(|secret| secret.reveal().to_owned());
        auth.token = sign_in.token.as_ref().map(|secret| secret.reveal().to_owned());
        if let Some(source) = &self.token_source {
            auth.token = Some(ask(source).await.map_err(AuthError::new)?);
        }
        Ok(auth)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("named", &self.named()).finish_non_exhaustive()
    }
}

impl Server {
    fn failure(&self, text: String, error: Option<Cause>) -> Failure {
        Failure { server: self.spelled.clone(), text, is_guarded: self.is_guarded, error }
    }
}

/// Asks in another thread, because the function may block.
async fn ask(source: &TokenSource) -> Result<String, TokenError> {
    let source = source.clone();
    tokio::task::spawn_blocking(move || source.ask()).await?
}

/// The servers that the options name.
fn parse_servers(servers: &[Secret]) -> Result<Vec<ServerAddr>> {
    if servers.is_empty() {
        return Err(Error::new(ErrorKind::Config, "`servers` is empty: name at least one NATS server."));
    }
    servers.iter().map(|server| parse_server(server, cfg!(feature = "websockets"))).collect()
}

fn parse_server(server: &Secret, with_websockets: bool) -> Result<ServerAddr> {
    let address = ServerAddr::from_str(server.reveal()).map_err(|error| {
        // The address itself may hold a password, so it is not repeated.
        Error::new(
            ErrorKind::Config,
            "An entry of `servers` is not a server address: write `nats://host:port` or `host:port`.",
        )
        .because(error)
    })?;
    // Without the feature, async-nats would speak plain NATS there, and send a password in the clear.
    if address.is_websocket() && !with_websockets {
        let text = "An entry of `servers` is the address of a WebSocket, which this build cannot use: write `nats://` or \
                    `tls://`, or build the crate with its feature `websockets`.";
        return Err(Error::new(ErrorKind::Config, text));
    }
    Ok(address)
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| {
        Error::new(
            ErrorKind::Config,
            "The user or password in an entry of `servers` is not UTF-8 once its %-escapes are decoded.",
        )
    })
}

/// An address that a server tells of, which is reached as the server itself.
fn told_address(text: &str, scheme: &str) -> Option<ServerAddr> {
    ServerAddr::from_str(&format!("{scheme}://{text}")).ok().filter(|address| !address.host().is_empty())
}

/// The address without credentials, for TLS alone if `over_tls`.
fn bare(address: ServerAddr, over_tls: bool) -> ServerAddr {
    let mut url = address.clone().into_inner();
    // These fail only for URLs without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if over_tls {
        let scheme = if address.is_websocket() { "wss" } else { "tls" };
        let _ = url.set_scheme(scheme);
    }
    ServerAddr::from_url(url).unwrap_or(address)
}

fn is_same_place(one: &ServerAddr, other: &ServerAddr) -> bool {
    (one.host(), one.port()) == (other.host(), other.port())
}

fn is_loopback(address: &ServerAddr) -> bool {
    let host = address.host();
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The address without the credentials that a URL may hold.
fn display(address: &ServerAddr) -> String {
    let host = address.host();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{}://{host}:{}", address.scheme(), address.port())
}

/// Zero, where the operating system gives no random numbers.
pub(crate) fn random_below(count: usize) -> usize {
    let random = getrandom::u64().unwrap_or_default();
    usize::try_from(random % count.max(1) as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_address_panics_and_no_error_or_spelling_shows_a_password(
            scheme in "(nats://|tls://|ws://|\\PC{0,3}://)?",
            user in "([a-z]{0,3}:)?",
            host in "[a-z0-9.\\[\\]:/@#?\\PC]{0,12}",
        ) {
            match servers(&[&format!("{scheme}{user}hunter2@{host}")]) {
                Ok(servers) => {
                    let shown = format!("{servers:?} {:?} {:?}", servers.named(), servers.addresses());
                    prop_assert!(!shown.contains("hunter2"), "{shown}");
                }
                Err(error) => prop_assert!(!error.to_string().contains("hunter2")),
            }
        }
    }

    fn options(urls: &[&str]) -> ConnectOptions {
        ConnectOptions::to(urls.iter().map(|url| (*url).to_owned()))
    }

    fn servers(urls: &[&str]) -> Result<Servers> {
        Servers::new(&options(urls))
    }

    /// User, password and token that the server at `index` is told.
    async fn told(servers: &Servers, index: usize) -> [Option<String>; 3] {
        servers.turn_to(&servers.addresses()[index]);
        servers.choose(&[]).unwrap();
        let auth = servers.answer(b"").await.unwrap();
        [auth.username, auth.password, auth.token]
    }

    fn some<const N: usize>(texts: [&str; N]) -> [Option<String>; N] {
        texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    #[test]
    fn a_password_for_a_websocket_crosses_a_network_over_tls_only() {
        let address = ServerAddr::from_str("ws://me:hunter2@one:8080").unwrap();
        assert_eq!(display(&bare(address, true)), "wss://one:8080");
    }

    #[test]
    fn a_websocket_is_refused_where_plain_nats_would_be_spoken_to_it() {
        for url in ["ws://me:hunter2@one:8080", "wss://one"] {
            assert!(parse_server(&url.into(), true).unwrap().is_websocket());
            let error = parse_server(&url.into(), false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("WebSocket"), "{error}");
        }
    }

    #[tokio::test]
    async fn each_server_is_told_the_credentials_of_its_own_url_alone() {
        let servers =
            servers(&["nats://a:first@one", "nats://b:second@two", "nats://t0ken@three", "four"]).unwrap();
        assert_eq!(told(&servers, 0).await, some(["a", "first", ""]));
        assert_eq!(told(&servers, 1).await, some(["b", "second", ""]));
        assert_eq!(told(&servers, 2).await, some(["", "", "t0ken"]));
        assert_eq!(told(&servers, 3).await, some(["", "", ""]));
    }

    #[tokio::test]
    async fn credentials_in_a_url_are_decoded_whether_or_not_they_were_escaped() {
        for (url, password) in [
            ("nats://me:p%40ss%3Aw%2Frd%231%3F@one", "p@ss:w/rd#1?"),
            ("nats://me:p@ss:w@one", "p@ss:w"),
            ("nats://me:50%off@one", "50%off"),
            ("nats://me:gr%C3%B6%C3%9Fe@one", "gr\u{f6}\u{df}e"),
            ("nats://me:gr\u{f6}\u{df}e@one", "gr\u{f6}\u{df}e"),
            ("nats://me:x^y*z!|@one", "x^y*z!|"),
        ] {
            assert_eq!(told(&servers(&[url]).unwrap(), 0).await, some(["me", password, ""]), "{url}");
        }
        assert!(servers(&["nats://me:%ff@one"]).is_err());
    }

    #[tokio::test]
    async fn the_options_go_before_what_a_url_holds() {
        let both = options(&["nats://a:first@one"]);
        let both = ConnectOptions { user: Some("me".into()), password: Some("mine".into()), ..both };
        assert_eq!(told(&Servers::new(&both).unwrap(), 0).await, some(["me", "mine", ""]));
    }

    #[tokio::test]
    async fn a_token_that_is_asked_for_is_asked_for_each_time() {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let source = TokenSource::new(move || {
            Ok(format!("token {}", asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
        });
        let servers =
            Servers::new(&ConnectOptions { token_source: Some(source), ..options(&["one"]) }).unwrap();
        assert_eq!(told(&servers, 0).await, some(["", "", "token 0"]));
        assert_eq!(told(&servers, 0).await, some(["", "", "token 1"]));
        assert!(servers.addresses()[0].tls_required());
    }

    #[test]
    fn a_password_crosses_a_network_only_with_tls() {
        let over_tls = |urls: &[&str], password: Option<&str>, tls_required: Option<bool>| {
            let user = password.map(|_| "me".to_owned());
            let password = password.map(Into::into);
            let options = ConnectOptions { user, password, tls_required, ..options(urls) };
            let servers = Servers::new(&options).unwrap();
            servers.addresses().iter().map(ServerAddr::tls_required).collect::<Vec<_>>()
        };
        assert_eq!(over_tls(&["nats.example.org"], Some("hunter2"), None), [true]);
        assert_eq!(over_tls(&["nats://me:hunter2@10.0.0.7", "10.0.0.8"], None, None), [true, false]);
        assert_eq!(over_tls(&["localhost", "10.0.0.7"], Some("hunter2"), None), [false, true]);
        assert_eq!(over_tls(&["nats://10.0.0.7"], None, None), [false]);
        assert_eq!(
            over_tls(&["localhost:4222", "127.0.0.1", "[::1]:4222"], Some("hunter2"), None),
            [false; 3]
        );
        assert_eq!(over_tls(&["nats.example.org"], Some("hunter2"), Some(false)), [false]);
    }

    #[tokio::test]
    async fn a_server_that_is_learned_is_signed_in_to_as_the_one_that_told_of_it_and_over_tls() {
        let servers = servers(&["nats://me:hunter2@127.0.0.1:4222", "nats://other:secret@two"]).unwrap();
        assert_eq!(told(&servers, 0).await, some(["me", "hunter2", ""]));
        let cluster = ["10.0.0.7:4222".to_owned(), "127.0.0.1:4222".to_owned(), "two:4222".to_owned()];
        assert!(servers.learn(&cluster));
        assert!(!servers.learn(&cluster), "nothing new");
        assert_eq!(servers.learned(), ["nats://10.0.0.7:4222"]);
        assert!(servers.addresses()[2].tls_required());
        assert_eq!(told(&servers, 2).await, some(["me", "hunter2", ""]));
        assert!(servers.learn(&[]));
        assert!(servers.learned().is_empty());
    }

    #[test]
    fn an_address_is_spelled_as_it_was_given_without_its_password() {
        let servers = servers(&["nats://me:hunter2@nats:4333", "localhost", "[::1]:1"]).unwrap();
        assert_eq!(servers.named(), ["nats://nats:4333", "nats://localhost:4222", "nats://[::1]:1"]);
    }
}
