//! The HTTP client block of Prometheus' configuration, and the client it describes.

mod client;
mod config;

pub use client::{ClientOptions, HttpClient, SendLimits};
pub use config::{
    Credentials, HttpClientConfig, RawAuthorization, RawBasicAuth, RawHttpClientConfig, RawHttpHeader,
    RawOauth2,
};
