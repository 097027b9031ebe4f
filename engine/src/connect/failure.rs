//! Why a server could not be connected, in words that say what was seen and what helps.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// A server that could not be connected, and the words of async-nats.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) server: String,
    pub(crate) text: String,
    /// TLS was demanded only because a password or token would be sent.
    pub(crate) is_guarded: bool,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nothing listens there, or it does not answer.
    Silent,
    Refused,
    /// There is nothing to sign in with.
    Unproven,
    /// The TLS files of the options cannot be used.
    Files,
    NoTls,
    /// No certificate can be for what the address names.
    NoName,
    Authority,
    OtherName,
    Expired,
    ClientCertificate,
    Other,
}

/// In the words of async-nats, rustls and nats-server.
const CAUSES: [(&str, Cause); 22] = [
    ("authorization violation", Cause::Refused),
    ("failed signing nonce", Cause::Unproven),
    ("invalid dns name", Cause::NoName),
    ("TLS error", Cause::Files),
    ("InvalidContentType", Cause::NoTls),
    ("UnknownIssuer", Cause::Authority),
    ("CaUsedAsEndEntity", Cause::Authority),
    ("not valid for name", Cause::OtherName),
    ("NotValidForName", Cause::OtherName),
    ("certificate expired", Cause::Expired),
    ("Expired", Cause::Expired),
    ("not valid yet", Cause::Expired),
    ("NotValidYet", Cause::Expired),
    ("received fatal alert", Cause::ClientCertificate),
    ("invalid peer certificate", Cause::Other),
    ("timed out", Cause::Silent),
    ("DNS error", Cause::Silent),
    ("refused", Cause::Silent),
    ("unreachable", Cause::Silent),
    ("reset by peer", Cause::Silent),
    ("broken pipe", Cause::Silent),
    ("expected INFO", Cause::Silent),
];

impl Failure {
    fn cause(&self) -> Cause {
        let known = CAUSES.iter().find(|(words, _)| self.text.contains(words));
        known.map_or(Cause::Other, |(_, cause)| *cause)
    }

    /// Whether the server refused the credentials.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.cause(), Cause::Refused | Cause::Unproven)
    }

    /// Whether no server can be connected with these options.
    pub(crate) fn is_of_the_options(&self) -> bool {
        self.cause() == Cause::Files
    }

    /// What was seen.
    pub(crate) fn reason(&self) -> String {
        let Self { server, .. } = self;
        let text = self.text.split_once(": ").map_or(self.text.as_str(), |(_, source)| source);
        let text = text.trim_start_matches("nats: ");
        match self.cause() {
            Cause::Silent => format!("nobody can be reached at {server} ({text})"),
            Cause::Refused => format!("{server} refuses the credentials ({text})"),
            Cause::Unproven => format!("there is nothing to sign in to {server} with ({text})"),
            Cause::Files => format!("TLS cannot be set up with these options ({text})"),
            Cause::NoTls if self.is_guarded => {
                format!(
                    "the server does not speak TLS at {server}, and a password or token is sent over TLS only, except to this machine"
                )
            }
            Cause::NoName => format!("TLS cannot be used with {server}, which is not a host name ({text})"),
            Cause::NoTls => format!("the server does not speak TLS at {server}"),
            Cause::Authority => {
                format!("the certificate of {server} is from an authority that is not trusted ({text})")
            }
            Cause::OtherName => format!("the certificate of {server} is for another name ({text})"),
            Cause::Expired => format!("the certificate of {server} is not valid now ({text})"),
            Cause::ClientCertificate => format!("{server} refuses the TLS handshake ({text})"),
            Cause::Other => format!("{server} cannot be connected ({text})"),
        }
    }

    /// What helps.
    pub(crate) fn advice(&self) -> &'static str {
        match self.cause() {
            Cause::Silent => "Check that a server listens there and that `servers` names it.",
            Cause::Refused => "Check the user, password, token, nkey or credentials file.",
            Cause::Unproven => "Check the credentials file, the seed, or the callable that gives the token.",
            Cause::Files => {
                "Check that `tls_ca`, `tls_cert` and `tls_key` are PEM files and that the key belongs to the certificate."
            }
            Cause::NoTls if self.is_guarded => {
                "Enable TLS on the server. If you trust the network between you and the server, set `tls` to False."
            }
            Cause::NoTls => {
                "Enable TLS on the server, or correct its address: a `tls://` URL, `tls` and the `tls_` files demand TLS."
            }
            Cause::NoName => "Use a host name or an IP address in `servers`.",
            Cause::Authority => "Name the PEM file of the authority that signed it in `tls_ca`.",
            Cause::OtherName => "Use a name in `servers` that the certificate is for.",
            Cause::Expired => "Renew it, and check the clock of this machine.",
            Cause::ClientCertificate => {
                "Give a client certificate that the server accepts in `tls_cert` and `tls_key`; the server's log says more."
            }
            Cause::Other => "The server's log says more.",
        }
    }

    fn kind(&self) -> ErrorKind {
        match self.cause() {
            Cause::Refused | Cause::Unproven => ErrorKind::Denied,
            Cause::Files => ErrorKind::Config,
            _ => ErrorKind::Unreachable,
        }
    }
}

/// The error of a connection that did not come about: what was seen last of each server.
pub(crate) fn not_connected(failures: &[Failure], waited: Duration) -> Error {
    let of_options = failures.iter().find(|failure| failure.is_of_the_options());
    let refusal = failures.iter().find(|failure| failure.is_refusal());
    let kind = of_options.or(refusal).or(failures.first()).map_or(ErrorKind::Unreachable, Failure::kind);
    let told: Vec<&Failure> = match of_options {
        Some(failure) => vec![failure],
        None => failures.iter().collect(),
    };
    let mut advice: Vec<_> = told.iter().map(|failure| failure.advice()).collect();
    advice.sort_unstable();
    advice.dedup();
    let is_silent = told.iter().all(|failure| failure.cause() == Cause::Silent);
    let begin = if is_silent {
        format!("No NATS server answered within {waited:?}")
    } else {
        "Not connected to NATS".into()
    };
    let reasons: Vec<_> = told.iter().map(|failure| failure.reason()).collect();
    Error::new(kind, format!("{begin}: {}. {}", reasons.join("; "), advice.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        Failure { server: "nats://one:4222".into(), text: text.into(), is_guarded: false }
    }

    fn error(texts: &[&str]) -> Error {
        let failures: Vec<_> = texts.iter().map(|text| failure(text)).collect();
        not_connected(&failures, Duration::from_secs(2))
    }

    #[test]
    fn a_server_that_spoke_is_not_said_to_be_silent() {
        for text in [
            "IO error: invalid peer certificate: UnknownIssuer",
            "IO error: received corrupt message of type InvalidContentType",
            "IO error: received fatal alert: CertificateRequired",
            "IO error: nats: maximum connections exceeded",
            "authorization violation: nats: authorization violation",
        ] {
            assert!(!error(&[text]).to_string().contains("No NATS server answered"), "{text}");
        }
        let silent = error(&["IO error: Connection refused (os error 111)"]);
        assert!(silent.to_string().starts_with("No NATS server answered within 2s: nobody can"), "{silent}");
    }

    #[test]
    fn only_the_guard_of_a_password_is_answered_by_less_security_and_not_as_the_first_advice() {
        for (text, _) in CAUSES {
            assert!(!error(&[text]).to_string().contains("False"), "{text}");
        }
        let guarded = Failure { is_guarded: true, ..failure("InvalidContentType") };
        let text = not_connected(&[guarded], Duration::ZERO).to_string();
        assert!(text.find("Enable TLS") < text.find("False") && text.contains("password"), "{text}");
    }

    #[test]
    fn each_kind_of_failure_has_its_own_kind_of_error() {
        assert_eq!(error(&["timed out"]).kind(), ErrorKind::Unreachable);
        assert_eq!(error(&["TLS error: invalid dns name"]).kind(), ErrorKind::Unreachable);
        assert_eq!(error(&["timed out", "authorization violation"]).kind(), ErrorKind::Denied);
        assert_eq!(
            error(&["TLS error: could not load private key: no items found"]).kind(),
            ErrorKind::Config
        );
    }

    #[test]
    fn every_server_is_told_of_with_its_own_reason() {
        let text = error(&["timed out", "IO error: invalid peer certificate: UnknownIssuer"]).to_string();
        assert!(
            text.contains("(timed out)") && text.contains("tls_ca") && text.contains("`servers`"),
            "{text}"
        );
    }
}
