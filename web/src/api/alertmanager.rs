//! `/api/v2`: the embedded Alertmanager's own API. Types, filters and texts are the `alertmanager` crate's; here they are
//! only served.

use std::sync::Arc;

use alertmanager::api::{AlertFilter, ApiError, SilenceCreated, SilenceFilter, check_silence_id, to_json};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde::Serialize;

use crate::app::{App, Parts};
use crate::envelope::text_response;
use crate::routes::read_body;

/// Most bytes of a posted body.
const BODY_BYTES_MAX: usize = 32 << 20;

type AppState = State<Arc<App>>;
type Answer = Result<Response<Body>, ApiError>;

/// All routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/api/v2/status",
            get(async |state: AppState| answer(state, |parts| Ok(json(&parts.alertmanager.status())))),
        )
        .route("/api/v2/receivers", get(receivers))
        .route("/api/v2/alerts", get(alerts).post(post_alerts))
        .route("/api/v2/alerts/groups", get(groups))
        .route("/api/v2/silences", get(silences).post(post_silence))
        .route("/api/v2/silence/{id}", get(silence).delete(delete_silence))
}

fn answer(State(app): AppState, handle: impl FnOnce(&Parts) -> Answer) -> Response<Body> {
    match app.parts() {
        Some(parts) => handle(parts).unwrap_or_else(|error| error_response(&error)),
        None => text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Response<Body> {
    with_type(StatusCode::OK, to_json(value))
}

fn with_type(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_response(error: &ApiError) -> Response<Body> {
    with_type(
        StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        error.body.clone(),
    )
}

fn pairs(request: &Request<Body>) -> Vec<(String, String)> {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

fn alert_filter(parts: &Parts, request: &Request<Body>) -> Result<AlertFilter, ApiError> {
    let pairs = pairs(request);
    let borrowed = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    AlertFilter::from_query(borrowed, parts.alertmanager.matcher_mode())
}

async fn alerts(state: AppState, request: Request<Body>) -> Response<Body> {
    answer(state, |parts| Ok(json(&parts.alertmanager.alerts(&alert_filter(parts, &request)?))))
}

async fn groups(state: AppState, request: Request<Body>) -> Response<Body> {
    answer(state, |parts| Ok(json(&parts.alertmanager.groups(&alert_filter(parts, &request)?))))
}

async fn receivers(state: AppState, request: Request<Body>) -> Response<Body> {
    answer(state, |parts| {
        Ok(json(&parts.alertmanager.receivers(&alert_filter(parts, &request)?.receiver_matchers)))
    })
}

async fn silences(state: AppState, request: Request<Body>) -> Response<Body> {
    answer(state, |parts| {
        let pairs = pairs(&request);
        let borrowed = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let filter = SilenceFilter::from_query(borrowed, parts.alertmanager.matcher_mode())?;
        Ok(json(&parts.alertmanager.silences(&filter)))
    })
}

async fn silence(state: AppState, Path(id): Path<String>) -> Response<Body> {
    answer(state, |parts| {
        check_silence_id(&id)?;
        parts.alertmanager.silence(&id).map(|silence| json(&silence)).ok_or_else(|| ApiError::empty(404))
    })
}

async fn delete_silence(State(app): AppState, Path(id): Path<String>) -> Response<Body> {
    let Some(parts) = app.parts() else {
        return text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    };
    if let Err(error) = check_silence_id(&id) {
        return error_response(&error);
    }
    match parts.alertmanager.delete_silence(&id).await {
        Ok(()) => Response::new(Body::empty()),
        Err(error) => error_response(&error),
    }
}

async fn post_alerts(State(app): AppState, request: Request<Body>) -> Response<Body> {
    with_body(&app, request, async |parts, body| {
        parts.alertmanager.post_alerts(&body)?;
        Ok(Response::new(Body::empty()))
    })
    .await
}

async fn post_silence(State(app): AppState, request: Request<Body>) -> Response<Body> {
    with_body(&app, request, async |parts, body| {
        let silence_id = parts.alertmanager.post_silence(&body).await?;
        Ok(json(&SilenceCreated { silence_id }))
    })
    .await
}

/// Reads a JSON body and handles it.
async fn with_body(
    app: &App,
    request: Request<Body>,
    handle: impl AsyncFnOnce(Parts, bytes::Bytes) -> Answer,
) -> Response<Body> {
    let Some(parts) = app.parts().cloned() else {
        return text_response(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    };
    if let Err(error) = check_content_type(request.headers()) {
        return error_response(&error);
    }
    match read_body(request.into_body(), BODY_BYTES_MAX, app.options.read_timeout).await {
        Ok(body) => handle(parts, body).await.unwrap_or_else(|error| error_response(&error)),
        Err(error) => error_response(&ApiError::message(400, &error.text)),
    }
}

/// JSON only: also what keeps web pages of others from posting here without a preflight.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let text = format!("unsupported media type {kind:?}, only [application/json] are allowed");
    Err(ApiError::schema(415, 415, text))
}
