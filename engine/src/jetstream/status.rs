//! Statuses: what the server itself says in the place of a message, such as how a request for messages ended.

use async_nats::{Message as Raw, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::timeout;

use crate::connect::{Connection, SEND_TIMEOUT};

/// How the reply subject of a message of a stream begins.
pub(crate) const ACK_PREFIX: &str = "$JS.ACK.";

/// A status message of the server: the end of a request, or a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status<'a> {
    /// The request it belongs to.
    pub(crate) id: Option<u64>,
    pub(crate) code: u16,
    pub(crate) description: &'a str,
    /// How much of the request stays unfilled, where the server says so.
    pub(crate) unfilled: Option<usize>,
}

impl<'a> Status<'a> {
    /// Reads what came to `<inbox>.<id>`; `None` for a message of the stream.
    pub(crate) fn read(inbox: &str, message: &'a Raw) -> Option<Self> {
        if !is_status(message) {
            return None;
        }
        let unfilled = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        Some(Self {
            id: request_of(inbox, &message.subject),
            code: message.status.map_or(0, |status| status.as_u16()),
            description: message.description.as_deref().unwrap_or_default(),
            unfilled: unfilled.and_then(|count| count.as_str().parse().ok()),
        })
    }
}

/// Whether it is a word of the server. A message of a stream says where it is to be settled, and is a message
/// whatever status its publisher gave it. (nats-server 2.15.1 takes that off; it need not be the server's word.)
pub(crate) fn is_status(message: &Raw) -> bool {
    let is_of_a_stream = || message.reply.as_deref().is_some_and(|reply| reply.starts_with(ACK_PREFIX));
    message.status.is_some() && !is_of_a_stream()
}

/// The subject to answer, where the status is flow control of a push consumer: the server sends no more until it is
/// answered. It comes with a reply subject, or as a heartbeat that repeats an earlier one.
pub(crate) fn flow_control(status: &Raw) -> Option<Subject> {
    if status.status != Some(StatusCode::IDLE_HEARTBEAT) {
        return None;
    }
    let stalled = status.headers.as_ref().and_then(|headers| headers.get("Nats-Consumer-Stalled"));
    status.reply.clone().or_else(|| stalled.map(|reply| reply.as_str().into()))
}

/// Answers flow control.
pub(crate) async fn answer_flow_control(connection: &Connection, subject: Subject) {
    // A connection that is lost meanwhile takes the subscription with it.
    let _ = timeout(SEND_TIMEOUT, connection.client().publish(subject, Bytes::new())).await;
}

/// The number of the request whose answers go to `subject`.
pub(crate) fn request_of(inbox: &str, subject: &str) -> Option<u64> {
    subject.strip_prefix(inbox)?.strip_prefix('.')?.parse().ok()
}

/// The meaning of a status for the pull request that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A heartbeat: the request goes on.
    Alive,
    /// The request ended: there are no messages, its time is over, or it is filled in bytes.
    Ended,
    /// The next message is larger than what is left of `max_bytes`.
    TooSmall,
    /// The server cannot serve it now: a new leader, a shutdown, a full queue.
    Busy,
    /// The consumer does not answer: it is gone, or it has no leader.
    Unanswered,
    /// The consumer was deleted.
    Deleted,
    /// The consumer does not take pull requests.
    PushBased,
    /// The consumer does not accept this request, and will not accept it later.
    Refused,
}

impl Meaning {
    /// Reads the code and the description of a status (ADR-37; texts as seen on nats-server 2.15.1).
    pub(crate) fn of(code: u16, description: &str) -> Self {
        let text = description.to_ascii_lowercase();
        match code {
            100 => Self::Alive,
            404 | 408 => Self::Ended,
            409 if text.contains("consumer deleted") => Self::Deleted,
            409 if text.contains("push based") => Self::PushBased,
            409 if text.starts_with("exceeded maxrequest") => Self::Refused,
            409 if text.starts_with("batch completed") => Self::Ended,
            409 if text.starts_with("message size exceeds maxbytes") => Self::TooSmall,
            409 => Self::Busy,
            503 => Self::Unanswered,
            _ => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn message(subject: &str, reply: Option<&str>, code: Option<u16>, words: &str, count: &str) -> Raw {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Pending-Messages", count.replace(['\r', '\n'], " "));
        Raw {
            subject: subject.into(),
            reply: reply.map(Into::into),
            payload: "".into(),
            headers: Some(headers),
            status: code.and_then(|code| StatusCode::try_from(code).ok()),
            description: Some(words.to_owned()),
            length: 0,
        }
    }

    #[test]
    fn a_message_of_a_stream_is_no_status_whatever_its_publisher_wrote_into_its_first_line() {
        let reply = Some("$JS.ACK.orders.billing.1.1.1.1700000000000000001.0");
        for code in [100, 404, 408, 409, 503] {
            assert!(!is_status(&message("orders.created", reply, Some(code), "Consumer Deleted", "5")));
        }
        assert!(is_status(&message("_INBOX.a.1", None, Some(409), "Consumer Deleted", "5")));
        assert!(is_status(&message("_INBOX.a.1", Some("$JS.FC.orders.billing.x"), Some(100), "", "")));
        assert!(!is_status(&message("orders.created", None, None, "", "")));
    }

    #[test]
    fn flow_control_is_answered_where_it_says_or_where_a_later_heartbeat_repeats_it() {
        let reply = "$JS.FC.orders.billing.x";
        let mut heartbeat = message("_INBOX.a.1", None, Some(100), "Idle Heartbeat", "");
        assert_eq!(flow_control(&heartbeat), None);
        heartbeat.headers.get_or_insert_default().insert("Nats-Consumer-Stalled", reply);
        let asked = message("_INBOX.a.1", Some(reply), Some(100), "FlowControl Request", "");
        assert_eq!(
            [flow_control(&heartbeat), flow_control(&asked)],
            [Some(reply.into()), Some(reply.into())]
        );
        assert_eq!(
            flow_control(&message("_INBOX.a.1", Some(reply), Some(409), "Consumer Deleted", "")),
            None
        );
    }

    #[test]
    fn a_conflict_ends_the_consumer_the_request_or_only_this_try() {
        let read = |description| Meaning::of(409, description);
        assert_eq!(read("Consumer Deleted"), Meaning::Deleted);
        assert_eq!(read("Consumer is push based"), Meaning::PushBased);
        assert_eq!(read("Exceeded MaxRequestBatch of 10"), Meaning::Refused);
        assert_eq!(read("Batch Completed"), Meaning::Ended);
        assert_eq!(read("Message Size Exceeds MaxBytes"), Meaning::TooSmall);
        for passing in ["Exceeded MaxWaiting", "Leadership Change", "Server Shutdown", ""] {
            assert_eq!(read(passing), Meaning::Busy);
        }
    }

    #[test]
    fn a_code_that_is_not_known_refuses_the_request() {
        let codes = [100, 400, 404, 408, 423, 503].map(|code| Meaning::of(code, ""));
        let [ended, refused] = [Meaning::Ended, Meaning::Refused];
        assert_eq!(codes, [Meaning::Alive, refused, ended, ended, refused, Meaning::Unanswered]);
    }

    fn codes() -> impl Strategy<Value = u16> {
        prop_oneof![prop::sample::select(vec![100_u16, 404, 408, 409, 423, 503]), 100..999_u16]
    }

    fn words() -> impl Strategy<Value = String> {
        let known =
            ["Idle Heartbeat", "No Messages", "Request Timeout", "Consumer Deleted", "Batch Completed"];
        prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), any::<String>()]
    }

    proptest! {
        #[test]
        fn a_status_says_what_the_server_said(
            id in any::<u64>(),
            code in codes(),
            words in words(),
            count in any::<usize>(),
        ) {
            let sent = message(&format!("_INBOX.a.{id}"), None, Some(code), &words, &count.to_string());
            let expected = Status { id: Some(id), code, description: &words, unfilled: Some(count) };
            prop_assert_eq!(Status::read("_INBOX.a", &sent), Some(expected));
        }

        #[test]
        fn no_status_panics(
            subject in "(_INBOX\\.a)?[.0-9a-z\u{e4}-]{0,30}",
            reply in prop::option::of("(\\$JS\\.ACK\\.)?\\PC{0,20}"),
            code in prop::option::of(codes()),
            words in words(),
            count in "(\\PC|[0-9]){0,24}",
        ) {
            let sent = message(&subject, reply.as_deref(), code, &words, &count);
            let read = Status::read("_INBOX.a", &sent);
            prop_assert_eq!(read.is_some(), is_status(&sent));
            let _ = Meaning::of(code.unwrap_or_default(), &words);
        }
    }
}
