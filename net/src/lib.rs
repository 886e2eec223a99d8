//! What several parts need to reach the network: an HTTP client with everything of Prometheus' client block
//! ([`http`]), TLS settings ([`tls`]), back-off ([`backoff`]), and the pool for CPU work that must stay off the reactor
//! ([`pool`]).
#![forbid(unsafe_code)]

pub mod backoff;
pub mod error;
pub mod http;
pub mod pool;
pub mod tls;

pub use backoff::Backoff;
pub use error::NetError;
pub use pool::CpuPool;
