//! Why a message of remote write cannot be read, and the reader of the wire format that all of them share.

pub use model::protobuf::{Field, Reader, Value, WireError, zigzag};

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It breaks the wire format.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A reference beyond the table of symbols (remote write 2.0).
    #[error("symbol reference {0} is out of range")]
    SymbolOutOfRange(u64),
    /// A label name without a value (remote write 2.0).
    #[error("label references do not come in pairs")]
    OddLabelReferences,
}
