//! Receiving remote write.
//!
//! [`v1`] reads `prometheus.WriteRequest` from borrowed bytes, [`v2`] `io.prometheus.write.v2.Request`; [`Receiver`] turns requests
//! into transactions. The hot road costs no decoding of labels: a series is recognised by a hash of its raw label bytes,
//! and first looked for behind the series that came before it last time (senders keep their order). What comes in the
//! same order again becomes an append layout of the storage, and is written as parts of rows from then on; all else goes
//! by reference, many samples at once.

mod index;
mod plan;
mod receiver;
mod scan;
mod series;
mod upkeep;
pub mod v1;
pub mod v2;

pub use receiver::{PartialWrite, Receiver, ReceiverOptions, WriteError, WriteSummary};
