//! The HTTP client block of Prometheus' configuration, and the client it describes.

mod client;
mod config;
mod unix;

pub use client::{AnswerBody, ClientOptions, HttpClient, SendLimits};
pub use config::{
    Credentials, HttpClientConfig, RawAuthorization, RawBasicAuth, RawHttpClientConfig, RawHttpHeader,
    RawOauth2,
};
pub use unix::send_over_unix;
