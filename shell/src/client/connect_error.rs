//! What stands between a TCP connection and a WebSocket.

use std::io;
use std::time::Duration;

use futures_rustls::rustls::{self, CertificateError};
use http::StatusCode;
use thiserror::Error;

/// Why there is no WebSocket, though something listens there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// It answered the request for a WebSocket with another status than 101.
    #[error("it answered HTTP {}{}; {}", status_text(*.status), message_text(.message.as_deref()), advice(*.status, *.retry_after))]
    Answered {
        /// The status (RFC 9110 §15).
        status: u16,
        /// Why, in its own words: at most [`ConnectError::MAX_CHARS`] characters, none of them a control character. They
        /// are the `message` of its answer, an object of JSON.
        message: Option<String>,
        /// For how long it asks to be left alone, if it says so in seconds (RFC 9110 §10.2.3). At most a day.
        retry_after: Option<Duration>,
    },
    /// It closed or reset the connection before it had answered.
    #[error("it hung up before it answered; try again in a while, or check whether it is to be ws:// or wss://")]
    HungUp,
    /// The URL says `ws://`, and it speaks TLS.
    #[error("it speaks TLS; try wss://")]
    SpeaksTls,
    /// The URL says `wss://`, and it does not speak TLS.
    #[error("it does not speak TLS; check the port, or try ws://, where nothing is encrypted")]
    SpeaksNoTls,
    /// No authority that is trusted has issued its certificate.
    #[error(
        "its certificate is not trusted, for no authority known here has issued it; name the file with the certificate \
         of that authority with --ca"
    )]
    NotTrusted,
    /// Its certificate is for other names or addresses than that of the URL.
    #[error("its certificate is {}, not for the host of the URL; check the URL", for_names(.names))]
    WrongName {
        /// What it is for: at most [`ConnectError::MAX_NAMES`] of them.
        names: Vec<String>,
    },
    /// Its certificate was good until some time ago.
    #[error("its certificate has expired; have it renewed, and check the clock of this machine")]
    Expired,
    /// Its certificate is not good yet.
    #[error("its certificate is not valid yet; check the clock of this machine")]
    NotYetValid,
    /// Its certificate is no good for another reason.
    #[error("its certificate is no good: {0}; have it replaced")]
    BadCertificate(String),
    /// TLS did not come about for another reason.
    #[error("no TLS with it: {0}; check that the URL is that of a session server")]
    Tls(String),
    /// What it did is against HTTP or the opening handshake of a WebSocket (RFC 6455 §4.1).
    #[error("{0}; check that the URL is that of a session server")]
    Protocol(String),
}

impl ConnectError {
    /// The most characters that are kept of what a server says.
    pub const MAX_CHARS: usize = 200;

    /// The most names that are kept of a certificate.
    pub const MAX_NAMES: usize = 5;

    /// Why there is no TLS.
    pub(super) fn from_tls(error: &io::Error) -> Self {
        let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::from_stream_error(error).unwrap_or_else(|| Self::Tls(error.to_string()));
        };
        if let rustls::Error::InvalidCertificate(error) = inner {
            Self::from_certificate(error)
        } else if let rustls::Error::InvalidMessage(_) = inner {
            Self::SpeaksNoTls
        } else {
            Self::Tls(inner.to_string())
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "those that have no words of ours are told in their own")]
    fn from_certificate(error: &CertificateError) -> Self {
        match error {
            // The latter of one that has the name of an authority that is known, and another key, perhaps of another kind.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::NotTrusted,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName => Self::WrongName { names: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => Self::WrongName {
                names: presented.iter().take(Self::MAX_NAMES).map(|name| strip_type_name(name)).collect(),
            },
            // What `openssl req -x509` makes. The error's own type is not to be had.
            other if other.to_string().contains("CaUsedAsEndEntity") => {
                Self::BadCertificate("it is an authority's own (CA:TRUE), not a server's".into())
            }
            other => Self::BadCertificate(shorten(&other.to_string())),
        }
    }

    /// That the stream broke, if it is that.
    pub(super) fn from_stream_error(error: &io::Error) -> Option<Self> {
        is_hang_up(error.kind()).then_some(Self::HungUp)
    }
}

/// What the peer may do to a connection.
pub(super) fn is_hang_up(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

/// What a server says, fit to be printed.
pub(super) fn shorten(text: &str) -> String {
    let mut printable = text.chars().filter(|character| !character.is_control());
    let mut short: String = printable.by_ref().take(ConnectError::MAX_CHARS).collect();
    if printable.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

/// `localhost` of `DnsName("localhost")`.
fn strip_type_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    shorten(inner.trim_matches('"'))
}

fn for_names(names: &[String]) -> String {
    if names.is_empty() { "for no name at all".into() } else { format!("for {}", names.join(", ")) }
}

fn status_text(status: u16) -> String {
    StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |status| status.to_string())
}

fn message_text(message: Option<&str>) -> String {
    message.map(|message| format!(": \"{message}\"")).unwrap_or_default()
}

fn advice(status: u16, retry_after: Option<Duration>) -> String {
    match (retry_after, status) {
        (Some(after), _) => format!("try again in {} s", after.as_secs()),
        (None, 408 | 429 | 503) => "try again in a while".into(),
        (None, 403) => "ask its operator who may connect, and from where".into(),
        (None, 421) => "check the host of the URL".into(),
        (None, _) => "check that the URL is that of a session server".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_what_to_do() {
        let text = |status, message: Option<&str>, seconds: Option<u64>| {
            let (message, retry_after) = (message.map(Into::into), seconds.map(Duration::from_secs));
            ConnectError::Answered { status, message, retry_after }.to_string()
        };
        assert_eq!(
            text(503, Some("The server has as many connections as it may"), Some(1)),
            "it answered HTTP 503 Service Unavailable: \"The server has as many connections as it may\"; \
             try again in 1 s"
        );
        assert_eq!(text(408, None, None), "it answered HTTP 408 Request Timeout; try again in a while");
        assert_eq!(
            text(403, Some("No"), None),
            "it answered HTTP 403 Forbidden: \"No\"; ask its operator who may connect, and from where"
        );
        assert_eq!(text(421, None, None), "it answered HTTP 421 Misdirected Request; check the host of the URL");
        assert!(text(404, None, None).ends_with("Not Found; check that the URL is that of a session server"));
    }

    #[test]
    fn what_a_server_says_is_short_and_printable() {
        assert_eq!(shorten("a\u{1b}[2J\nb\u{85}"), "a[2Jb");
        assert_eq!(shorten(&"ü".repeat(200)), "ü".repeat(200));
        assert_eq!(shorten(&"ü".repeat(201)), "ü".repeat(199) + "…");
        assert_eq!(shorten(&("ü".repeat(200) + "\n")), "ü".repeat(200));
    }

    #[test]
    fn certificates_that_are_wrong_in_rare_ways_are_told_in_words() {
        let text =
            |error| ConnectError::from_tls(&io::Error::other(rustls::Error::InvalidCertificate(error))).to_string();
        assert_eq!(text(CertificateError::Revoked), "its certificate is no good: Revoked; have it replaced");
        let other_key = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![1],
            public_key_algorithm_id: vec![2],
        };
        assert!(text(other_key).starts_with("its certificate is not trusted, "));
        assert!(text(CertificateError::NotValidYet).starts_with("its certificate is not valid yet; "));
        assert!(text(CertificateError::NotValidForName).starts_with("its certificate is for no name at all, "));
    }
}
