//! `/write`: remote write.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode};
use remote::protobuf::{DecodeError, WireError};
use remote::write::{PartialWrite, WriteError};

use crate::app::App;
use crate::envelope::{ErrorType, text_response};
use crate::routes::read_body;

/// Takes one request of remote write 1.0 or 2.0.
pub(crate) async fn write(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    if !app.options.enable_remote_write_receiver {
        let text = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";
        return text_response(StatusCode::NOT_FOUND, text);
    }
    let Some(parts) = app.parts() else {
        return text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    };
    let version = match check_headers(request.headers()) {
        Ok(version) => version,
        Err(text) => return text_response(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text),
    };
    let body = match read_body(
        request.into_body(),
        app.options.write_body_bytes_max,
        app.options.read_timeout,
    )
    .await
    {
        Ok(body) => body,
        // A sender gives up what a 4xx refuses: a body that came too slowly is worth another try.
        Err(error) if error.kind == ErrorType::Timeout => {
            return text_response(StatusCode::SERVICE_UNAVAILABLE, &error.text);
        }
        Err(error) => return text_response(StatusCode::BAD_REQUEST, &error.text),
    };
    let receiver = Arc::clone(&parts.receiver);
    let written = app.pool.run(move || match version {
        Version::V1 => receiver.write_v1(&body).map(|summary| PartialWrite { summary, first_refusal: None }),
        Version::V2 => receiver.write_v2(&body),
    });
    match written.await {
        Ok(Ok(PartialWrite { summary, first_refusal })) => {
            let mut response = match first_refusal {
                None => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    response
                }
                Some(refusal) => text_response(StatusCode::BAD_REQUEST, &refusal.to_string()),
            };
            if version == Version::V1 {
                // Only senders of 2.0 are told what was written.
                return response;
            }
            let counts = [
                ("x-prometheus-remote-write-samples-written", summary.samples),
                ("x-prometheus-remote-write-histograms-written", summary.histograms),
                ("x-prometheus-remote-write-exemplars-written", summary.exemplars),
            ];
            for (name, count) in counts {
                response.headers_mut().insert(name, count.into());
            }
            response
        }
        Ok(Err(error)) if error.is_retryable() => {
            tracing::error!(%error, "remote write failed");
            text_response(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
        Ok(Err(error)) => {
            // The answer has Prometheus' words, which senders know; which series it was is told here.
            tracing::warn!(%error, "remote write refused");
            text_response(StatusCode::BAD_REQUEST, &refusal(&error))
        }
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A refusal in Prometheus' words.
fn refusal(error: &WriteError) -> String {
    match error {
        WriteError::Compression(_) => "snappy: corrupt input".to_owned(),
        WriteError::Decode(DecodeError::Wire(WireError::Truncated(_))) => "unexpected EOF".to_owned(),
        WriteError::Refused { error, .. } => error.to_string(),
        _ => error.to_string(),
    }
}

/// Only protobuf of the two versions, compressed with snappy. An absent header counts as the right one, as in Prometheus.
fn check_headers(headers: &HeaderMap) -> Result<Version, String> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = header(CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(format!(
            "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ));
    }
    let kind = header(CONTENT_TYPE);
    let mut parts = kind.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.is_empty() && !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(format!(
            "expected application/x-protobuf as the first (media) part, got {kind} content-type"
        ));
    }
    match parts.find_map(|part| part.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Ok(Version::V1),
        Some("io.prometheus.write.v2.Request") => Ok(Version::V2),
        Some(other) => Err(format!(
            "{other} protobuf message is not accepted by this server; only prometheus.WriteRequest and io.prometheus.write.v2.Request are accepted"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_prometheus_words() {
        let refused = WriteError::Refused {
            error: model::storage::AppendError::OutOfOrder,
            labels: model::Labels::from_pairs([("a", "b")]),
            t: 1,
        };
        assert_eq!(refusal(&refused), "out of order sample");
        assert_eq!(refusal(&WriteError::Compression("literal too long".to_owned())), "snappy: corrupt input");
        assert_eq!(
            refusal(&WriteError::Decode(DecodeError::Wire(WireError::Truncated(3)))),
            "unexpected EOF"
        );
        assert_eq!(
            refusal(&WriteError::Decode(DecodeError::Wire(WireError::InvalidTag(3)))),
            "invalid field tag at byte 3"
        );
    }

    #[test]
    fn other_versions_and_encodings_are_refused() {
        let check = |encoding: &'static str, kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(encoding));
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
            check_headers(&headers)
        };
        assert_eq!(check("snappy", "application/x-protobuf"), Ok(Version::V1));
        assert_eq!(check("snappy", "application/x-protobuf;proto=prometheus.WriteRequest"), Ok(Version::V1));
        assert_eq!(
            check("snappy", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            Ok(Version::V2)
        );
        assert!(check("gzip", "application/x-protobuf").is_err());
        assert!(check("snappy", "application/json").is_err());
        assert!(check("snappy", "application/x-protobuf;proto=io.prometheus.write.v3.Request").is_err());
        assert_eq!(check_headers(&HeaderMap::new()), Ok(Version::V1));
    }
}
