//! Our options become those of async-nats: servers, TLS, authentication, and a name for the answers.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use async_nats::ServerAddr;

use crate::config::{ConnectOptions, Secret};
use crate::connect::credentials::sign_in;
use crate::connect::link::Events;
use crate::error::{Error, ErrorKind, Result};
use crate::route::validate_publish_subject;

/// Commands async-nats buffers before a send waits; acknowledgements of a full prefetch fit in.
const COMMAND_CAPACITY: usize = 16_384;

/// The servers that the options name.
pub(crate) fn parse_servers(servers: &[Secret]) -> Result<Vec<ServerAddr>> {
    if servers.is_empty() {
        return Err(Error::new(ErrorKind::Config, "`servers` is empty: name at least one NATS server."));
    }
    servers.iter().map(parse_server).collect()
}

fn parse_server(server: &Secret) -> Result<ServerAddr> {
    ServerAddr::from_str(server.reveal()).map_err(|error| {
        // The address itself may hold a password, so it is not repeated.
        Error::new(
            ErrorKind::Config,
            "An entry of `servers` is no server address: write `nats://host:port` or `host:port`.",
        )
        .because(error)
    })
}

/// Options for the servers at `addresses`, whose events `events` takes note of.
pub(crate) fn client_options(
    options: &ConnectOptions,
    addresses: &[ServerAddr],
    events: Arc<Events>,
) -> Result<async_nats::ConnectOptions> {
    let longest = options.reconnect_wait;
    let noted = Arc::downgrade(&events);
    let mut client = signing_in(options)?
        .connection_timeout(options.connect_timeout)
        .ping_interval(options.ping_interval)
        .max_reconnects(options.max_reconnects)
        .client_capacity(COMMAND_CAPACITY)
        .require_tls(options.tls_required.unwrap_or_else(|| exposes_a_secret(options, addresses)))
        .custom_inbox_prefix(inbox_prefix(options)?)
        .reconnect_delay_callback(move |attempts| {
            noted.upgrade().map_or(longest, |events| events.pause(attempts, longest))
        })
        // The only one to hold the events: with the connection task they end, which closes the channels.
        .event_callback(move |event| {
            events.note(&event);
            std::future::ready(())
        });
    if let Some(name) = &options.name {
        client = client.name(name);
    }
    for path in [&options.tls_ca, &options.tls_cert, &options.tls_key].into_iter().flatten() {
        std::fs::File::open(path).map_err(|error| unreadable("The TLS file", path, error))?;
    }
    if let Some(path) = &options.tls_ca {
        client = client.add_root_certificates(path.clone());
    }
    match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => client = client.add_client_certificate(cert.clone(), key.clone()),
        (None, None) => {}
        _ => return Err(Error::new(ErrorKind::Config, "`tls_cert` and `tls_key` go together: set both.")),
    }
    if options.no_echo {
        client = client.no_echo();
    }
    authenticate(client, options, addresses)
}

fn signing_in(options: &ConnectOptions) -> Result<async_nats::ConnectOptions> {
    match &options.credentials {
        Some(path) => sign_in(path).map_err(|error| unreadable("The credentials file", path, error)),
        None => Ok(async_nats::ConnectOptions::new()),
    }
}

/// Whether a password or token would cross a network. (With nkeys and credentials files nothing secret is
/// sent: the client signs what the server asks.)
fn exposes_a_secret(options: &ConnectOptions, addresses: &[ServerAddr]) -> bool {
    let in_url = addresses.iter().any(|address| address.username().is_some());
    let has_secret = options.password.is_some() || options.token.is_some() || in_url;
    has_secret && !addresses.iter().all(is_loopback)
}

fn is_loopback(address: &ServerAddr) -> bool {
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn authenticate(
    mut client: async_nats::ConnectOptions,
    options: &ConnectOptions,
    addresses: &[ServerAddr],
) -> Result<async_nats::ConnectOptions> {
    if let Some(seed) = &options.nkey_seed {
        client = client.nkey(seed.reveal().to_owned());
    }
    if let Some(token) = &options.token {
        client = client.token(token.reveal().to_owned());
    }
    match (&options.user, &options.password) {
        (Some(user), Some(password)) => {
            return Ok(client.user_and_password(user.clone(), password.reveal().to_owned()));
        }
        (None, None) => {}
        _ => return Err(Error::new(ErrorKind::Config, "`user` and `password` go together: set both.")),
    }
    // async-nats ignores credentials inside a URL; a lone user name there is a token, as in nats-py.
    let Some(address) = addresses.iter().find(|address| address.username().is_some()) else {
        return Ok(client);
    };
    let user = address.username().unwrap_or_default().to_owned();
    Ok(match address.password() {
        Some(password) => client.user_and_password(user, password.to_owned()),
        None => client.token(user),
    })
}

/// Where answers go: a name of this very connection. A generator that lives in the process would give a
/// forked child the names of its parent, and the child the answers meant for a sibling.
fn inbox_prefix(options: &ConnectOptions) -> Result<String> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorKind::Config, format!("The operating system gives no random numbers: {error}."))
    })?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let prefix = inboxes(options);
    validate_publish_subject(prefix)
        .map_err(|error| Error::new(ErrorKind::Config, format!("`inbox_prefix`: {error}")))?;
    Ok(format!("{prefix}.{name}"))
}

/// What the subjects of answers begin with.
pub(crate) fn inboxes(options: &ConnectOptions) -> &str {
    options.inbox_prefix.as_deref().unwrap_or("_INBOX")
}

fn unreadable(what: &str, path: &Path, error: std::io::Error) -> Error {
    let message = format!("{what} {} cannot be used: {error}.", path.display());
    Error::new(ErrorKind::Config, message).because(error)
}

/// Addresses without the credentials that a URL may hold.
pub(crate) fn spell(addresses: &[ServerAddr]) -> String {
    addresses.iter().map(spell_one).collect::<Vec<_>>().join(", ")
}

pub(crate) fn spell_one(address: &ServerAddr) -> String {
    format!("{}://{}:{}", address.scheme(), address.host(), address.port())
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
            let server = Secret::from(format!("{scheme}{user}hunter2@{host}"));
            match parse_servers(&[server]) {
                Ok(addresses) => {
                    let spelled = spell(&addresses);
                    prop_assert!(!spelled.contains("hunter2"), "{spelled}");
                    let options = ConnectOptions::default();
                    let _ = exposes_a_secret(&options, &addresses);
                }
                Err(error) => prop_assert!(!error.to_string().contains("hunter2")),
            }
        }
    }

    #[test]
    fn an_address_is_spelled_without_its_password() {
        let addresses = parse_servers(&["nats://me:hunter2@localhost:4333".into()]).unwrap();
        assert_eq!(spell(&addresses), "nats://localhost:4333");
    }

    #[test]
    fn a_password_crosses_a_network_only_with_tls() {
        let exposed = |servers: &[&str], password: Option<&str>| {
            let options = ConnectOptions { password: password.map(Into::into), ..ConnectOptions::default() };
            let servers: Vec<Secret> = servers.iter().map(|server| (*server).into()).collect();
            exposes_a_secret(&options, &parse_servers(&servers).unwrap())
        };
        assert!(exposed(&["nats://nats.example.org"], Some("hunter2")));
        assert!(exposed(&["nats://me:hunter2@10.0.0.7"], None));
        assert!(exposed(&["localhost", "10.0.0.7"], Some("hunter2")));
        assert!(!exposed(&["nats://10.0.0.7"], None));
        assert!(!exposed(&["localhost:4222", "127.0.0.1", "[::1]:4222"], Some("hunter2")));
    }

    #[test]
    fn an_inbox_prefix_cannot_smuggle_another_command_in() {
        for prefix in ["a b", "a\r\nPUB b 0\r\n\r\n", "a.>", "", "a."] {
            let options = ConnectOptions { inbox_prefix: Some(prefix.into()), ..ConnectOptions::default() };
            assert_eq!(inbox_prefix(&options).unwrap_err().kind(), ErrorKind::Config, "{prefix:?}");
        }
        assert!(inbox_prefix(&ConnectOptions::default()).unwrap().starts_with("_INBOX."));
    }

    #[test]
    fn a_bare_host_is_an_address() {
        let addresses = parse_servers(&["localhost".into(), "127.0.0.1:4333".into()]).unwrap();
        assert_eq!(spell(&addresses), "nats://localhost:4222, nats://127.0.0.1:4333");
    }
}
