//! Finds targets, scrapes them on time, reads brokers, and appends what it got.
#![forbid(unsafe_code)]

pub mod collector;
pub mod discovery;
pub mod exposition;
pub mod loopback;
pub mod metrics;
