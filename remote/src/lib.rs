//! Everything that crosses to another engine. Today: the remote-write 1.0 receiver ([`write`]). Remote write 2.0, the
//! sender, remote read, OTLP and Prometheus blocks will live beside it.
#![forbid(unsafe_code)]

pub mod protobuf;
pub mod write;
