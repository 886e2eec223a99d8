//! What is seen from outside: the HTTP API of Prometheus ([`api`]), the UI ([`assets`]), remote write, our own metrics.
//!
//! The crate knows the public types of the engines and holds no state of its own but connections. Computation runs on
//! the pools it is given; handlers only read parameters and write answers. While the store replays its log, everything
//! behind the ready gate answers 503.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod assets;
mod caller;
pub mod compress;
pub mod envelope;
pub mod json;
mod lifecycle;
pub mod metrics;
mod multipart;
pub mod params;
mod routes;
mod serve;
mod server;
mod stall;
mod stream;

pub use app::{App, BuildInfo, Control, Options, Parts, ReloadStatus};
pub use server::{Server, ServerError};
