//! Our options become those of async-nats: TLS, timing, and a name for the answers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::ReconnectToServer;

use crate::config::ConnectOptions;
use crate::connect::customize::customized;
use crate::connect::failure::unreadable;
use crate::connect::link::Events;
use crate::connect::servers::Servers;
use crate::error::{Error, ErrorKind, Result};
use crate::route::validate_publish_subject;

/// Commands async-nats buffers before a send waits; acknowledgements of a full prefetch fit in.
const COMMAND_CAPACITY: usize = 16_384;

/// Options for the servers, whose events `events` takes note of.
pub(crate) fn client_options(
    options: &ConnectOptions,
    servers: &Arc<Servers>,
    inbox: &str,
    events: Arc<Events>,
) -> Result<async_nats::ConnectOptions> {
    let longest = options.reconnect_wait;
    let noted = Arc::downgrade(&events);
    let troubled = noted.clone();
    let (choosing, answering) = (servers.clone(), servers.clone());
    let callback = move |nonce: Vec<u8>| {
        let answering = answering.clone();
        async move { answering.answer(&nonce).await }
    };
    let mut client = customized(options, async_nats::ConnectOptions::with_auth_callback(callback))
        .connection_timeout(options.connect_timeout)
        .ping_interval(options.ping_interval)
        // For async-nats, 0 is without limit.
        .max_reconnects(options.max_reconnects.map(|most| most.max(1)))
        .client_capacity(COMMAND_CAPACITY)
        .require_tls(options.tls_required.unwrap_or_default())
        .custom_inbox_prefix(inbox)
        .reconnect_delay_callback(move |attempts| {
            noted.upgrade().map_or(longest, |events| events.pause(attempts, longest))
        })
        // Ours are kept by `servers`, each with what it may be told.
        .ignore_discovered_servers()
        .reconnect_to_server_callback(move |known, _| {
            let was_connected = troubled.upgrade().is_some_and(|events| events.was_connected());
            if let Some(addr) = choosing.nowhere().filter(|_| was_connected) {
                return std::future::ready(Some(ReconnectToServer { addr, delay: Some(Duration::ZERO) }));
            }
            if let (Some(events), Some(failure)) = (troubled.upgrade(), choosing.last_failure(&known)) {
                events.trouble(&failure);
            }
            let chosen = choosing.choose(&known);
            std::future::ready(chosen.map(|addr| ReconnectToServer { addr, delay: None }))
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
    Ok(client)
}

/// Prefix of the subjects for answers: a name of this very connection. A generator that lives in the process would
/// give a forked child the names of its parent, and the child would get the answers meant for a sibling.
pub(crate) fn inbox_prefix(options: &ConnectOptions) -> Result<String> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorKind::Config, format!("The operating system provides no random numbers: {error}."))
    })?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let prefix = options.inbox_prefix.as_deref().unwrap_or("_INBOX");
    validate_publish_subject(prefix)
        .map_err(|error| Error::new(ErrorKind::Config, format!("`inbox_prefix`: {error}")))?;
    Ok(format!("{prefix}.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_prefix_cannot_smuggle_another_command_in() {
        for prefix in ["a b", "a\r\nPUB b 0\r\n\r\n", "a.>", "", "a."] {
            let options = ConnectOptions { inbox_prefix: Some(prefix.into()), ..ConnectOptions::default() };
            assert_eq!(inbox_prefix(&options).unwrap_err().kind(), ErrorKind::Config, "{prefix:?}");
        }
        assert!(inbox_prefix(&ConnectOptions::default()).unwrap().starts_with("_INBOX."));
    }
}
