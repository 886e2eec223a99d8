//! What can go wrong between us and another server.

use std::path::PathBuf;

/// Trouble with a request. Texts follow Go's where Prometheus' users know them (`context deadline exceeded`,
/// `connection refused`); no text holds a credential.
#[derive(Debug, thiserror::Error)]
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
    /// The whole time allowed had passed.
    #[error("context deadline exceeded")]
    Timeout,
    /// The connection broke or the other side does not speak HTTP.
    #[error("{0}")]
    Protocol(String),
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
        matches!(self, Self::Connect { .. } | Self::Timeout | Self::Protocol(_))
    }
}
