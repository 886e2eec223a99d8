//! Receiving remote write.
//!
//! [`v1`] reads `prometheus.WriteRequest` from borrowed bytes; [`Receiver`] turns requests into transactions. The hot road
//! costs no decoding of labels: a series is recognised by a hash of its raw label bytes, and first tried at the place
//! where it came last time (senders keep their order).

mod cache;
mod receiver;
pub mod v1;

pub use receiver::{Receiver, ReceiverOptions, WriteError, WriteSummary};
