//! Why a server could not be connected, in words that say what was seen and what helps.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// The error of async-nats.
pub(crate) type Cause = Arc<dyn StdError + Send + Sync>;

/// A server that could not be connected, and the words of async-nats.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) server: String,
    pub(crate) text: String,
    /// TLS was demanded only because a password or token would be sent.
    pub(crate) is_guarded: bool,
    /// The error itself, where there is one.
    pub(crate) error: Option<Cause>,
}

/// The kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// No server listens there, or it does not answer.
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

/// Texts of async-nats, rustls and nats-server.
const SORTS: [(&str, Sort); 24] = [
    ("authorization violation", Sort::Refused),
    ("Authentication Expired", Sort::Refused),
    ("Authentication Revoked", Sort::Refused),
    ("failed signing nonce", Sort::Unproven),
    ("invalid dns name", Sort::NoName),
    ("TLS error", Sort::Files),
    ("InvalidContentType", Sort::NoTls),
    ("UnknownIssuer", Sort::Authority),
    ("CaUsedAsEndEntity", Sort::Authority),
    ("not valid for name", Sort::OtherName),
    ("NotValidForName", Sort::OtherName),
    ("certificate expired", Sort::Expired),
    ("Expired", Sort::Expired),
    ("not valid yet", Sort::Expired),
    ("NotValidYet", Sort::Expired),
    ("received fatal alert", Sort::ClientCertificate),
    ("invalid peer certificate", Sort::Other),
    ("timed out", Sort::Silent),
    ("DNS error", Sort::Silent),
    ("refused", Sort::Silent),
    ("unreachable", Sort::Silent),
    ("reset by peer", Sort::Silent),
    ("broken pipe", Sort::Silent),
    ("expected INFO", Sort::Silent),
];

impl Failure {
    fn sort(&self) -> Sort {
        let known = SORTS.iter().find(|(words, _)| self.text.contains(words));
        known.map_or(Sort::Other, |(_, sort)| *sort)
    }

    /// Whether the server refused the credentials.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.sort(), Sort::Refused | Sort::Unproven)
    }

    /// Whether no server can be connected with these options.
    pub(crate) fn is_of_the_options(&self) -> bool {
        self.sort() == Sort::Files
    }

    /// The reason, as it was seen.
    pub(crate) fn reason(&self) -> String {
        let Self { server, .. } = self;
        let text = self.text.split_once(": ").map_or(self.text.as_str(), |(_, source)| source);
        let text = text.trim_start_matches("nats: ");
        match self.sort() {
            Sort::Silent => format!("no server can be reached at {server} ({text})"),
            Sort::Refused => format!("{server} refuses the credentials ({text})"),
            Sort::Unproven => format!("there are no usable credentials for {server} ({text})"),
            Sort::Files => format!("TLS cannot be set up with these options ({text})"),
            Sort::NoTls if self.is_guarded => {
                format!(
                    "the server does not speak TLS at {server}, and a password or token is sent over TLS only, except to this machine"
                )
            }
            Sort::NoName => format!("TLS cannot be used with {server}, which is not a host name ({text})"),
            Sort::NoTls => format!("the server does not speak TLS at {server}"),
            Sort::Authority => {
                format!("the certificate of {server} is from an authority that is not trusted ({text})")
            }
            Sort::OtherName => format!("the certificate of {server} is for another name ({text})"),
            Sort::Expired => format!("the certificate of {server} is not valid now ({text})"),
            Sort::ClientCertificate => format!("{server} refuses the TLS handshake ({text})"),
            Sort::Other => format!("cannot connect to {server} ({text})"),
        }
    }

    /// The remedy.
    pub(crate) fn advice(&self) -> &'static str {
        match self.sort() {
            Sort::Silent => "Check that a server listens there and that `servers` names it.",
            Sort::Refused => "Check the user, password, token, nkey or credentials file.",
            Sort::Unproven => "Check the credentials file, the seed, or the callable that gives the token.",
            Sort::Files => {
                "Check that `tls_ca`, `tls_cert` and `tls_key` are PEM files and that the key belongs to the certificate."
            }
            Sort::NoTls if self.is_guarded => {
                "Enable TLS on the server. If you trust the network between you and the server, set `tls` to False."
            }
            Sort::NoTls => {
                "Enable TLS on the server, or correct its address: a `tls://` URL, `tls` and the `tls_` files demand TLS."
            }
            Sort::NoName => "Use a host name or an IP address in `servers`.",
            Sort::Authority => "Name the PEM file of the authority that signed it in `tls_ca`.",
            Sort::OtherName => "Use a name in `servers` that the certificate is for.",
            Sort::Expired => "Renew it, and check the clock of this machine.",
            Sort::ClientCertificate => {
                "Give a client certificate that the server accepts in `tls_cert` and `tls_key`; the server's log says more."
            }
            Sort::Other => "The server's log says more.",
        }
    }

    fn kind(&self) -> ErrorKind {
        match self.sort() {
            Sort::Refused | Sort::Unproven => ErrorKind::Denied,
            Sort::Files => ErrorKind::Config,
            _ => ErrorKind::Unreachable,
        }
    }
}

/// The error of a connection that did not come about: what was seen last of each server.
pub(crate) fn not_connected(failures: &[Failure], waited: Duration) -> Error {
    let of_options = failures.iter().find(|failure| failure.is_of_the_options());
    let refusal = failures.iter().find(|failure| failure.is_refusal());
    let decisive = of_options.or(refusal).or(failures.first());
    let kind = decisive.map_or(ErrorKind::Unreachable, Failure::kind);
    let told: Vec<&Failure> = match of_options {
        Some(failure) => vec![failure],
        None => failures.iter().collect(),
    };
    let mut advice: Vec<_> = told.iter().map(|failure| failure.advice()).collect();
    advice.sort_unstable();
    advice.dedup();
    let is_silent = told.iter().all(|failure| failure.sort() == Sort::Silent);
    let begin = if is_silent {
        format!("No NATS server answered within {waited:?}")
    } else {
        "Not connected to NATS".into()
    };
    let reasons: Vec<_> = told.iter().map(|failure| failure.reason()).collect();
    let error = Error::new(kind, format!("{begin}: {}. {}", reasons.join("; "), advice.join(" ")));
    match decisive.and_then(|failure| failure.error.clone()) {
        Some(cause) => error.because(cause),
        None => error,
    }
}

/// The error of a file that cannot be used.
pub(crate) fn unreadable(what: &str, path: &Path, error: std::io::Error) -> Error {
    let message = format!("{what} {} cannot be used: {error}.", path.display());
    Error::new(ErrorKind::Config, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        Failure { server: "nats://one:4222".into(), text: text.into(), is_guarded: false, error: None }
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
        assert!(
            silent.to_string().starts_with("No NATS server answered within 2s: no server can"),
            "{silent}"
        );
    }

    #[test]
    fn only_the_guard_of_a_password_is_answered_by_less_security_and_not_as_the_first_advice() {
        for (text, _) in SORTS {
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
    fn credentials_that_expired_are_not_said_to_be_a_certificate() {
        for text in
            ["User Authentication Expired", "Account Authentication Expired", "User Authentication Revoked"]
        {
            let error = error(&[text]);
            assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
            assert!(!error.to_string().contains("certificate"), "{error}");
        }
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
