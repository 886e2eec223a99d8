//! The envelope of every API answer, and errors with their types and status codes (INVENTORY: "Rules that hold for
//! every endpoint").

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use model::Annotations;

use crate::json;
use crate::stream::{Large, Pending};

/// Most warnings, and most infos, in an answer; the rest is summed up in one line.
const ANNOTATIONS_MAX: usize = 10;

/// What kind of error an answer tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// The request is wrong.
    BadData,
    /// The query cannot be computed.
    Execution,
    /// Whoever asked has gone.
    Canceled,
    /// Time is up.
    Timeout,
    /// Our own fault.
    Internal,
    /// There is no such thing.
    NotFound,
    /// Not ready or switched off.
    Unavailable,
    /// Too much else to do: trying again may help. Shown as `unavailable`, which has no status of its own in Prometheus.
    Busy,
}

impl ErrorType {
    fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::Unavailable | Self::Busy => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // nginx's "client closed request"; http has no name for it.
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Timeout | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            // `unavailable` falls to the default in Prometheus: observed on 3.5.3.
            Self::Internal | Self::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Its kind.
    pub kind: ErrorType,
    /// Its text, shown to people as it is.
    pub text: String,
}

impl ApiError {
    /// An error of `kind`.
    pub fn new(kind: ErrorType, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// A wrong request.
    pub fn bad_data(text: impl Into<String>) -> Self {
        Self::new(ErrorType::BadData, text)
    }

    /// A wrong parameter: `invalid parameter "NAME": REASON`.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {reason}"))
    }

    /// The whole answer.
    pub fn response(&self) -> Response<Body> {
        let mut out = String::with_capacity(128 + self.text.len());
        out.push_str("{\"status\":\"error\",\"errorType\":\"");
        out.push_str(self.kind.as_str());
        out.push_str("\",\"error\":");
        json::write_string(&mut out, &self.text);
        out.push('}');
        json_response(self.kind.status(), out)
    }
}

impl From<model::storage::StorageError> for ApiError {
    fn from(error: model::storage::StorageError) -> Self {
        use model::storage::StorageError as E;
        let kind = match &error {
            E::NotReady(_) => ErrorType::Unavailable,
            E::Cancelled => ErrorType::Canceled,
            E::BadRequest(_) => ErrorType::BadData,
            E::Limit { .. } => ErrorType::Execution,
            _ => ErrorType::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<net::pool::JobLost> for ApiError {
    fn from(error: net::pool::JobLost) -> Self {
        Self::new(ErrorType::Internal, error.to_string())
    }
}

/// A successful answer: `data` is JSON already.
#[derive(Debug, Default)]
pub struct Success {
    /// The `data` field.
    pub data: String,
    /// Doubts about it.
    pub annotations: Annotations,
    /// Nothing to say at all: 204, without a body.
    pub is_empty: bool,
    /// The envelope is around `data` already.
    pub(crate) is_whole: bool,
    /// Instead of all this: an answer that is written while it is sent.
    pub(crate) large: Option<Large>,
}

impl Success {
    /// What stands before the data.
    pub(crate) const HEAD: &'static str = "{\"status\":\"success\",\"data\":";

    /// An answer without doubts.
    pub fn new(data: impl Into<String>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// An answer without a body.
    pub fn empty() -> Self {
        Self { is_empty: true, ..Self::default() }
    }

    /// An answer with its envelope.
    pub(crate) fn whole(text: String) -> Self {
        Self { data: text, is_whole: true, ..Self::default() }
    }

    /// An answer that is written while it is sent, with its envelope.
    pub(crate) fn large(large: Large) -> Self {
        Self { large: Some(large), ..Self::default() }
    }

    /// The whole answer. (Of large ones the head; `serve` sees to the body.)
    pub fn response(self) -> Response<Body> {
        if self.is_empty {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        if let Some(large) = self.large {
            let mut response = json_response(StatusCode::OK, Body::empty());
            response.extensions_mut().insert(Pending::new(large));
            return response;
        }
        let mut out = self.data;
        if !self.is_whole {
            out.insert_str(0, Self::HEAD);
            write_annotations(&mut out, &self.annotations);
            out.push('}');
        }
        json_response(StatusCode::OK, out)
    }
}

/// Appends what annotations say, if anything.
pub(crate) fn write_annotations(out: &mut String, annotations: &Annotations) {
    let warnings: Vec<&str> = annotations.warnings().collect();
    let infos: Vec<&str> = annotations.infos().collect();
    write_texts(out, "warnings", "warning", &warnings);
    write_texts(out, "infos", "info", &infos);
}

fn write_texts(out: &mut String, field: &str, kind: &str, texts: &[&str]) {
    if texts.is_empty() {
        return;
    }
    out.push_str(",\"");
    out.push_str(field);
    out.push_str("\":[");
    for (index, text) in texts.iter().take(ANNOTATIONS_MAX).enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::write_string(out, text);
    }
    if texts.len() > ANNOTATIONS_MAX {
        let omitted = texts.len() - ANNOTATIONS_MAX;
        out.push(',');
        json::write_string(out, &format!("{omitted} more {kind} annotations omitted"));
    }
    out.push(']');
}

/// Result of an API handler.
pub type ApiResult = Result<Success, ApiError>;

/// The answer to `result`.
pub fn respond(result: ApiResult) -> Response<Body> {
    match result {
        Ok(success) => success.response(),
        Err(error) => error.response(),
    }
}

/// JSON with a status.
pub fn json_response(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Plain text with a status, as it is.
pub fn plain_response(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Plain text with a status, as Go's `http.Error` writes it.
pub fn text_response(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = plain_response(status, format!("{text}\n"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn data_may_have_its_envelope() {
        let mut bare = Success::new("[1]");
        bare.annotations.warn("w");
        let want = r#"{"status":"success","data":[1],"warnings":["w"]}"#;
        for success in [bare, Success::whole(want.to_owned())] {
            let body = axum::body::to_bytes(success.response().into_body(), 1 << 10).await.unwrap();
            assert_eq!(&*body, want.as_bytes());
        }
    }

    #[test]
    fn ten_annotations_of_a_kind_are_told_the_others_counted() {
        let texts: Vec<String> = (0..13).map(|i| format!("w{i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let written = |count: usize, kind: &str| {
            let mut out = String::new();
            write_texts(&mut out, "warnings", kind, &texts[..count]);
            out
        };
        assert_eq!(written(0, "warning"), "");
        let ten = r#","warnings":["w0","w1","w2","w3","w4","w5","w6","w7","w8","w9""#;
        assert_eq!(written(10, "warning"), format!("{ten}]"));
        assert_eq!(written(13, "warning"), format!(r#"{ten},"3 more warning annotations omitted"]"#));
    }
}
