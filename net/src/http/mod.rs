//! The HTTP client block of Prometheus' configuration, and the client it describes.

mod client;
mod config;
mod connect;
mod jwt;
mod oauth2;
mod proxy;
mod raw;
mod redirect;
mod trouble;
mod tunnel;
mod unix;

pub use client::{AnswerBody, ClientOptions, HttpClient, SendLimits};
pub use config::{Credentials, HttpClientConfig, SecretSource};
pub use oauth2::Oauth2Config;
pub use proxy::ProxyConfig;
pub use raw::{RawAuthorization, RawBasicAuth, RawHttpClientConfig, RawHttpHeader, RawOauth2};
pub use unix::send_over_unix;
