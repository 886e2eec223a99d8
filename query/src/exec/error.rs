//! Why a query failed, in Prometheus' words.

use model::storage::StorageError;

/// Who can mend it; decides the error type and status code of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueryErrorKind {
    /// The text or a parameter is wrong (`bad_data`).
    BadData,
    /// The query cannot be evaluated on these data (`execution`).
    Execution,
    /// Time is up (`timeout`).
    Timeout,
    /// Whoever asked has gone (`canceled`).
    Canceled,
    /// Others hold what is needed: trying again later may help (`unavailable`).
    Unavailable,
    /// Storage or we are at fault (`internal`).
    Internal,
}

impl QueryErrorKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::BadData, Self::Execution, Self::Timeout, Self::Canceled, Self::Unavailable, Self::Internal];

    /// `errorType` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// A failed query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct QueryError {
    /// Whose fault it is.
    pub kind: QueryErrorKind,
    /// What is wrong.
    pub message: String,
}

impl QueryError {
    /// An error of this kind.
    pub fn new(kind: QueryErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::BadData, message)
    }

    pub(crate) fn execution(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Execution, message)
    }

    pub(crate) fn timeout() -> Self {
        Self::new(QueryErrorKind::Timeout, "query timed out in expression evaluation")
    }

    pub(crate) fn canceled() -> Self {
        Self::new(QueryErrorKind::Canceled, "query was canceled in expression evaluation")
    }

    pub(crate) fn too_many_samples() -> Self {
        Self::execution("query processing would load too many samples into memory in query execution")
    }

    pub(crate) fn too_many_series(max: u64) -> Self {
        Self::execution(format!("query selects more than {max} series (--query.max-series)"))
    }

    pub(crate) fn too_much_memory(max_bytes: u64) -> Self {
        Self::execution(format!(
            "query needs more than {} of memory (--query.max-memory-per-query)",
            bytes_text(max_bytes)
        ))
    }

    /// All queries together hold what they may.
    pub fn memory_exhausted(max_bytes: u64) -> Self {
        Self::new(
            QueryErrorKind::Unavailable,
            format!(
                "queries hold the {} of memory they may use (--query.max-memory); try again",
                bytes_text(max_bytes)
            ),
        )
    }

    /// More than there would be if no other query ran: to try again is no use.
    pub(crate) fn memory_too_small(max_bytes: u64) -> Self {
        Self::execution(format!(
            "query needs more than the {} of memory that all queries may use (--query.max-memory)",
            bytes_text(max_bytes)
        ))
    }

    pub(crate) fn same_labels() -> Self {
        Self::execution("vector cannot contain metrics with the same labelset")
    }
}

/// A number of bytes for people: `12.5 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size {
            let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(size));
            return if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

impl From<StorageError> for QueryError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Cancelled => Self::canceled(),
            StorageError::BadRequest(message) => Self::execution(message),
            StorageError::Limit { .. } => Self::execution(error.to_string()),
            other => Self::new(QueryErrorKind::Internal, format!("expanding series: {other}")),
        }
    }
}
