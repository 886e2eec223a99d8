//! Everything that crosses to another engine. Today: the remote-write receiver, versions 1.0 and 2.0 ([`mod@write`]). The
//! sender, remote read, OTLP and Prometheus blocks will live beside it.
#![forbid(unsafe_code)]

pub mod protobuf;
pub mod write;
