//! Why a scrape failed. The text is the target's last error; Prometheus' where it has one.

use std::sync::Arc;

use model::storage::{AppendError, StorageError};
use net::NetError;

use crate::collector::CollectError;
use crate::exposition::protobuf::LabelsError;
use crate::exposition::{ContentTypeError, DecodeError, ParseError};

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScrapeError {
    /// No whole answer came.
    #[error("Get {}: {source}", model::labels::Quoted(.url))]
    Net {
        /// What was asked for.
        url: String,
        /// What happened.
        source: NetError,
    },
    /// The target closed the connection before the page was complete.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// The target's address, scheme or path make no URL.
    #[error("invalid target url {0:?}: {1}")]
    Url(String, String),
    /// Another status than 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// The body is as long as `body_size_limit` or longer.
    #[error("body size limit exceeded")]
    BodySizeLimit,
    /// The compressed body is broken.
    #[error("gzip: {0}")]
    Gzip(String),
    /// Nobody knows how to read the page.
    #[error(transparent)]
    ContentType(#[from] ContentTypeError),
    /// The page breaks its format.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A line of the page is no series.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A metric of a protobuf page is no series.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// Names that the job's validation scheme refuses.
    #[error("invalid metric name or label names: {0}")]
    InvalidNames(String),
    /// More samples than `sample_limit`.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// A native histogram with more buckets than `native_histogram_bucket_limit`.
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    /// One of the label limits.
    #[error("{0}")]
    LabelLimit(String),
    /// The job has more targets than `target_limit`.
    #[error("target_limit exceeded (number of targets: {targets}, limit: {limit})")]
    TargetLimit {
        /// Targets there are.
        targets: usize,
        /// Targets there may be.
        limit: u64,
    },
    /// A collector learnt nothing.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The collector did not end in time.
    #[error("context deadline exceeded")]
    CollectTimeout,
    /// The store refuses a series as such.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store could not keep what was scraped.
    #[error("storing the scrape failed: {0}")]
    Storage(Arc<StorageError>),
    /// Our own bug: the work on the page did not end well.
    #[error("internal error while reading the page")]
    Lost,
}
