//! `/-/healthy`, `/-/ready`, `/-/reload`, `/-/quit`. Texts are Prometheus': probes and scripts compare them.

use axum::body::Body;
use http::{Response, StatusCode};

use crate::app::App;
use crate::envelope::{plain_response, text_response};

const DISABLED: &str = "Lifecycle API is not enabled.";

pub(crate) fn healthy() -> Response<Body> {
    plain_response(StatusCode::OK, "Prometheus Server is Healthy.\n")
}

pub(crate) fn ready(app: &App) -> Response<Body> {
    if app.parts().is_some() {
        plain_response(StatusCode::OK, "Prometheus Server is Ready.\n")
    } else {
        text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
    }
}

/// GET does nothing. The text comes without the headers that other refusals have: so does Prometheus'.
pub(crate) fn only_post() -> Response<Body> {
    plain_response(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed")
}

pub(crate) async fn reload(app: &App) -> Response<Body> {
    if !app.options.enable_lifecycle {
        return text_response(StatusCode::FORBIDDEN, DISABLED);
    }
    match app.control.reload().await {
        Ok(()) => Response::new(Body::empty()),
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
    plain_response(StatusCode::OK, "Requesting termination... Goodbye!")
}
