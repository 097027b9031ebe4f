//! The acknowledgement of a delivery, as it is written to the server.

use std::time::Duration;

use bytes::Bytes;

use crate::jetstream::api::nanoseconds;
use crate::jetstream::sign::HEARTBEAT;

/// The acknowledgement that the server gets for a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message is done.
    Ack,
    /// Deliver again after the delay, which is always sent: a bare NAK never waits by the
    /// consumer's `backoff` (nats-io/nats-server#5856).
    Nak(Duration),
    /// Never deliver it again, for this reason.
    Term(String),
    /// The handler is still working: wait another `ack_wait`.
    InProgress,
}

impl Verdict {
    pub(crate) fn wire(&self) -> Bytes {
        match self {
            Self::Ack => Bytes::from_static(b"+ACK"),
            Self::Nak(delay) if delay.is_zero() => Bytes::from_static(b"-NAK"),
            Self::Nak(delay) => format!("-NAK {{\"delay\":{}}}", nanoseconds(*delay)).into(),
            Self::Term(reason) => format!("+TERM {}", one_line(reason)).into(),
            Self::InProgress => HEARTBEAT,
        }
    }

    /// Whether the message never comes again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Ack | Self::Term(_))
    }

    /// The server does not fence a NAK or a heartbeat of an older delivery: after the lease has run
    /// out it would disturb the worker that has the message now. An acknowledgement is always welcome.
    pub(crate) fn needs_lease(&self) -> bool {
        matches!(self, Self::Nak(_) | Self::InProgress)
    }
}

/// A reason may be an exception's text; the server's advisory and the log want one short line.
pub(crate) fn one_line(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        #[test]
        fn every_delay_is_one_that_the_server_can_read(delay in any::<Duration>()) {
            let wire = Verdict::Nak(delay).wire();
            let json = wire.strip_prefix(b"-NAK").unwrap();
            let read = if json.is_empty() { Value::Null } else { serde_json::from_slice(json).unwrap() };
            let expected = delay.as_nanos().min(i64::MAX as u128) as i64;
            prop_assert_eq!(read["delay"].as_i64().unwrap_or_default(), expected);
        }

        #[test]
        fn every_reason_is_one_short_line(reason in any::<String>()) {
            let wire = Verdict::Term(reason).wire();
            let text = std::str::from_utf8(&wire).unwrap();
            prop_assert!(text.starts_with("+TERM ") && !text.contains(char::is_control));
            prop_assert!(text.chars().count() <= 206);
        }
    }

    #[test]
    fn a_delay_is_sent_in_nanoseconds() {
        assert_eq!(Verdict::Nak(Duration::from_millis(1500)).wire(), "-NAK {\"delay\":1500000000}");
    }

    #[test]
    fn a_reason_becomes_one_short_line() {
        let wire = Verdict::Term(format!("no\r\nsuch {}", "x".repeat(999))).wire();
        assert!(wire.starts_with(b"+TERM no  such x"));
        assert!(wire.len() <= 206);
    }

    #[test]
    fn only_an_ack_or_a_term_outlives_its_lease() {
        assert!(Verdict::Nak(Duration::ZERO).needs_lease() && Verdict::InProgress.needs_lease());
        assert!(!Verdict::Ack.needs_lease() && !Verdict::Term(String::new()).needs_lease());
    }
}
