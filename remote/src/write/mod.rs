//! Receiving remote write.
//!
//! [`v1`] reads `prometheus.WriteRequest` from borrowed bytes, [`v2`] `io.prometheus.write.v2.Request`; [`Receiver`] turns requests into transactions. The hot road
//! costs no decoding of labels: a series is recognised by a hash of its raw label bytes, and first tried at the place
//! where it came last time (senders keep their order).

mod cache;
mod receiver;
mod series;
pub mod v1;
pub mod v2;

pub use receiver::{PartialWrite, Receiver, ReceiverOptions, WriteError, WriteSummary};
