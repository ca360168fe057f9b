//! Why a server that can be reached gives no WebSocket.

use std::io;
use std::time::Duration;

use futures_rustls::rustls::{self, CertificateError};
use http::StatusCode;
use thiserror::Error;

/// Why there is no WebSocket, although the server can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The server answered with another HTTP status than 101.
    #[error("it answered HTTP {}{}; {}", status_text(*.status), message_text(.message.as_deref()), advice(*.status, *.retry_after))]
    Answered {
        /// The status (RFC 9110 §15).
        status: u16,
        /// The `message` of its JSON answer: at most [`ConnectError::MAX_CHARS`] characters, without control
        /// characters.
        message: Option<String>,
        /// Its `Retry-After` in seconds (RFC 9110 §10.2.3), at most a day.
        retry_after: Option<Duration>,
    },
    /// The server closed or reset the connection before it answered.
    #[error("it hung up before it answered; try again in a while, or check whether it is to be ws:// or wss://")]
    HungUp,
    /// The URL is `ws://`, but the server speaks TLS.
    #[error("it speaks TLS; try wss://")]
    SpeaksTls,
    /// The URL is `wss://`, but the server does not speak TLS.
    #[error("it does not speak TLS; check the port, or try ws://, where nothing is encrypted")]
    SpeaksNoTls,
    /// No trusted authority has issued the certificate.
    #[error(
        "its certificate is not trusted: no known authority has issued it; name the file with the certificate of that \
         authority with --ca"
    )]
    NotTrusted,
    /// The certificate is for other names or addresses than that of the URL.
    #[error("its certificate is {}, not for the host of the URL; check the URL", for_names(.names))]
    WrongName {
        /// The names of the certificate: at most [`ConnectError::MAX_NAMES`].
        names: Vec<String>,
    },
    /// The certificate has expired.
    #[error("its certificate has expired; have it renewed, and check the clock of this machine")]
    Expired,
    /// The certificate is not valid yet.
    #[error("its certificate is not valid yet; check the clock of this machine")]
    NotYetValid,
    /// The certificate is invalid for another reason.
    #[error("its certificate is no good: {0}; have it replaced")]
    BadCertificate(String),
    /// The TLS handshake failed for another reason.
    #[error("no TLS with it: {0}; check that the URL is that of a session server")]
    Tls(String),
    /// The server broke the rules of HTTP or of the WebSocket handshake (RFC 6455 §4.1).
    #[error("{0}; check that the URL is that of a session server")]
    Protocol(String),
}

impl ConnectError {
    /// The longest message that is kept, in characters.
    pub const MAX_CHARS: usize = 200;

    /// The most names that are kept.
    pub const MAX_NAMES: usize = 5;

    /// From the error of a TLS handshake.
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

    #[expect(clippy::wildcard_enum_match_arm, reason = "other errors keep the text of rustls")]
    fn from_certificate(error: &CertificateError) -> Self {
        match error {
            // The last two: the authority's name is known, but its key is another one.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::NotTrusted,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName => Self::WrongName { names: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => Self::WrongName {
                names: presented.iter().take(Self::MAX_NAMES).map(|name| strip_type_name(name)).collect(),
            },
            // `openssl req -x509` makes such certificates. The error's type is private, so its text is matched.
            other if other.to_string().contains("CaUsedAsEndEntity") => {
                Self::BadCertificate("it is an authority's own (CA:TRUE), not a server's".into())
            }
            other => Self::BadCertificate(shorten(&other.to_string())),
        }
    }

    /// `HungUp` if the peer closed or reset the stream.
    pub(super) fn from_stream_error(error: &io::Error) -> Option<Self> {
        is_hang_up(error.kind()).then_some(Self::HungUp)
    }
}

/// Whether the peer closed or reset the connection.
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

/// Shortens a text from a server and removes control characters.
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
    fn http_error_says_what_to_do() {
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
    fn server_text_is_short_and_printable() {
        assert_eq!(shorten("a\u{1b}[2J\nb\u{85}"), "a[2Jb");
        assert_eq!(shorten(&"ü".repeat(200)), "ü".repeat(200));
        assert_eq!(shorten(&"ü".repeat(201)), "ü".repeat(199) + "…");
        assert_eq!(shorten(&("ü".repeat(200) + "\n")), "ü".repeat(200));
    }

    #[test]
    fn rare_certificate_errors_have_texts() {
        let text =
            |error| ConnectError::from_tls(&io::Error::other(rustls::Error::InvalidCertificate(error))).to_string();
        assert_eq!(text(CertificateError::Revoked), "its certificate is no good: Revoked; have it replaced");
        let other_key = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![1],
            public_key_algorithm_id: vec![2],
        };
        assert!(text(other_key).starts_with("its certificate is not trusted: "));
        assert!(text(CertificateError::NotValidYet).starts_with("its certificate is not valid yet; "));
        assert!(text(CertificateError::NotValidForName).starts_with("its certificate is for no name at all, "));
    }
}
