//! The oldest server that consumers can rely on.

use crate::error::{Error, ErrorKind, Result};

/// Versions before 2.11 lose messages: when a burst cuts the connection of a push consumer, what was on its way counts
/// as acknowledged (seen on 2.10.25 and 2.10.26). Versions before 2.10 ignore several filters and send the whole stream.
pub const OLDEST_SERVER: (u64, u64) = (2, 11);

/// Whether a version is this one or later. One that cannot be read is taken for a new one.
pub(crate) fn is_since(version: &str, oldest: (u64, u64)) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return true };
    (major, minor) >= oldest
}

/// # Errors
/// [`ErrorKind::Config`] for a version that is too old.
pub(crate) fn check(version: &str, server: &str) -> Result<()> {
    if is_since(version, OLDEST_SERVER) {
        return Ok(());
    }
    let (oldest_major, oldest_minor) = OLDEST_SERVER;
    let text = format!(
        "The NATS server at {server} has version {version}, and consumers need {oldest_major}.{oldest_minor} or later: \
         older ones can lose messages or deliver those that were filtered out. Update the server."
    );
    Err(Error::new(ErrorKind::Config, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_by_name() {
        for version in ["2.9.25", "2.10.26", "v2.10.0", "1.4.1"] {
            let error = check(version, "nats://one:4222").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().contains(version) && error.to_string().contains("nats://one:4222"),
                "{error}"
            );
        }
        for version in ["2.11.0", "2.11.0-RC.1", "2.15.1", "3.0.0", "", "development"] {
            assert!(check(version, "nats://one:4222").is_ok(), "{version}");
        }
    }
}
