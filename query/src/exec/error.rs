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
    /// Storage or we are at fault (`internal`).
    Internal,
}

impl QueryErrorKind {
    /// `errorType` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
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

    pub(crate) fn same_labels() -> Self {
        Self::execution("vector cannot contain metrics with the same labelset")
    }
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
