//! `/-/healthy`, `/-/ready`, `/-/reload`, `/-/quit`. Texts are Prometheus': probes and scripts compare them.

use axum::body::Body;
use http::{Response, StatusCode};

use crate::app::App;
use crate::envelope::text_response;

const DISABLED: &str = "Lifecycle API is not enabled.";

pub(crate) fn healthy() -> Response<Body> {
    plain(StatusCode::OK, "Prometheus Server is Healthy.\n")
}

pub(crate) fn ready(app: &App) -> Response<Body> {
    if app.parts().is_some() {
        plain(StatusCode::OK, "Prometheus Server is Ready.\n")
    } else {
        text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
    }
}

pub(crate) async fn reload(app: &App) -> Response<Body> {
    if !app.options.enable_lifecycle {
        return text_response(StatusCode::FORBIDDEN, DISABLED);
    }
    match app.control.reload().await {
        Ok(()) => plain(StatusCode::OK, ""),
        Err(error) => {
            text_response(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to reload config: {error}"))
        }
    }
}

pub(crate) fn quit(app: &App) -> Response<Body> {
    if !app.options.enable_lifecycle {
        return text_response(StatusCode::FORBIDDEN, DISABLED);
    }
    app.control.quit();
    plain(StatusCode::OK, "Requesting termination... Goodbye!")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
