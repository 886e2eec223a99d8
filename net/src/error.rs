//! What can go wrong between us and another server.

use std::path::PathBuf;

/// Trouble with a request. Texts follow Go's where Prometheus' users know them (`context deadline exceeded`,
/// `connection refused`); no text holds a credential.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// No connection came about.
    #[error("dial tcp {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// The system's or the TLS library's answer.
        reason: String,
    },
    /// Nobody knows the host.
    #[error("dial tcp: lookup {host}: {reason}")]
    Lookup {
        /// The name.
        host: String,
        /// The resolver's answer.
        reason: String,
    },
    /// No TLS with the other side: its certificate, or ours, or no common version.
    #[error("{0}")]
    Handshake(String),
    /// The proxy is not there or does not let us through.
    #[error("{0}")]
    Proxy(String),
    /// No token of the authorization server.
    #[error("{0}")]
    Token(String),
    /// The whole time allowed had passed.
    #[error("context deadline exceeded")]
    Timeout,
    /// The connection broke or the other side does not speak HTTP.
    #[error("{0}")]
    Protocol(String),
    /// The answer ended before its end.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// Status line and headers of the answer are longer than allowed.
    #[error("net/http: server response headers exceeded the limit")]
    HeadersTooLarge,
    /// The answer is longer than allowed.
    #[error("response body exceeds {limit} bytes")]
    BodyTooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// The other side sends us in circles.
    #[error("stopped after {0} redirects")]
    TooManyRedirects(usize),
    /// An address that cannot be asked.
    #[error("invalid url: {0}")]
    InvalidUrl(String),
    /// A file with a secret or certificate cannot be used.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The TLS settings contradict themselves or the system.
    #[error("tls: {0}")]
    Tls(String),
}

impl NetError {
    /// Whether trying again may help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Lookup { .. }
            | Self::Handshake(_)
            | Self::Proxy(_)
            | Self::Token(_)
            | Self::Timeout
            | Self::Protocol(_)
            | Self::UnexpectedEof => true,
            Self::HeadersTooLarge
            | Self::BodyTooLarge { .. }
            | Self::TooManyRedirects(_)
            | Self::InvalidUrl(_)
            | Self::File { .. }
            | Self::Tls(_) => false,
        }
    }
}
