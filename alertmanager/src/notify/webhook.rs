//! The webhook: a POST of JSON, body version 4, byte for byte as Alertmanager writes it.
//!
//! Many bridges read this body; some compare or sign it. Hence the order of fields, Go's escapes, the newline at the
//! end, and the user agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, header};
use model::ConfigError;
use model::template::Env;
use net::http::{ClientOptions, HttpClient, SendLimits};
use serde::Serialize;
use serde_yaml::Value;
use tokio::time::Instant;

use super::{FailureReason, Integration, Notification, NotifyError, USER_AGENT, away};
use crate::config::WebhookConfig;
use crate::template::Templates;
use crate::template::data::{Data, Kv};
use crate::{gojson, rfc3339};

/// As much of an answer is read: the beginning goes into error messages. A longer one counts as a failure, since its
/// status is not known then.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// As much of an answer goes into an error message.
const ANSWER_CHARS_SHOWN: usize = 400;
/// Deeper payloads are a mistake.
const PAYLOAD_DEPTH_MAX: usize = 32;

/// A webhook of a receiver. Clones share everything.
#[derive(Clone, Debug)]
pub struct Webhook {
    config: Arc<WebhookConfig>,
    client: HttpClient,
    templates: Arc<Templates>,
    external_url: Arc<str>,
}

/// The body, version 4. The order of fields is part of the format.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    receiver: &'a str,
    status: &'static str,
    alerts: Vec<BodyAlert<'a>>,
    #[serde(rename = "notification_reason")]
    notification_reason: &'static str,
    group_labels: &'a Kv,
    common_labels: &'a Kv,
    common_annotations: &'a Kv,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    route_labels: &'a Kv,
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyAlert<'a> {
    status: &'static str,
    labels: &'a Kv,
    annotations: &'a Kv,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: String,
}

/// The body of version 4 with at most `max_alerts` alerts (0: all).
///
/// # Errors
/// When the body has no JSON form, which no alert can bring about.
pub fn body(notification: &Notification, data: &Data, truncated: u64) -> Result<String, serde_json::Error> {
    let alerts = data.alerts.iter().map(|alert| BodyAlert {
        status: alert.status(),
        labels: &alert.labels,
        annotations: &alert.annotations,
        starts_at: rfc3339::nano(alert.starts_at),
        ends_at: rfc3339::nano_or_zero(alert.ends_at),
        generator_url: &alert.generator_url,
        fingerprint: alert.fingerprint.to_string(),
    });
    let body = Body {
        receiver: &data.receiver,
        status: data.status(),
        alerts: alerts.collect(),
        notification_reason: notification.reason.as_str(),
        group_labels: &data.group_labels,
        common_labels: &data.common_labels,
        common_annotations: &data.common_annotations,
        external_url: &data.external_url,
        route_labels: &data.route_labels,
        version: "4",
        group_key: &notification.group_key,
        truncated_alerts: truncated,
    };
    let mut text = gojson::to_string(&body)?;
    text.push('\n');
    Ok(text)
}

impl Webhook {
    /// Makes the client.
    ///
    /// # Errors
    /// When certificates cannot be used.
    pub fn new(
        config: WebhookConfig,
        templates: Arc<Templates>,
        external_url: Arc<str>,
    ) -> Result<Self, String> {
        let client =
            HttpClient::new(&config.http, ClientOptions::new(USER_AGENT)).map_err(|e| e.to_string())?;
        Ok(Self { config: Arc::new(config), client, templates, external_url })
    }

    /// The URL and the body of a notification: what [`Integration::notify`] sends. Blocks if the URL is in a file.
    ///
    /// # Errors
    /// When a template fails or the URL file cannot be read.
    pub fn render(&self, notification: &Notification) -> Result<(url::Url, String), NotifyError> {
        let count = notification.alerts.len();
        let kept = match usize::try_from(self.config.max_alerts).unwrap_or(usize::MAX) {
            0 => count,
            max => max.min(count),
        };
        let env = Env { now: notification.now, query: None, external_url: Arc::clone(&self.external_url) };
        let whole = Data::of(notification, &notification.alerts, &self.external_url, &self.templates);
        let url = self.config.url.read().map_err(NotifyError::permanent)?;
        let url = self.templates.text(url.expose(), &whole.to_value(), &env).map_err(|error| {
            // The error may quote the template, and URLs hold tokens.
            tracing::debug!(kind = ?error.kind(), "webhook url template failed");
            NotifyError::permanent("webhook url template failed")
        })?;
        let url = url::Url::parse(url.trim())
            .map_err(|e| NotifyError::permanent(format!("invalid webhook url: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NotifyError::permanent("invalid webhook url: unsupported scheme"));
        }
        // The list is cut before the body is made: common labels are those of the alerts that are sent.
        let data = if kept == count {
            whole
        } else {
            Data::of(notification, &notification.alerts[..kept], &self.external_url, &self.templates)
        };
        let body = match &self.config.payload {
            None => body(notification, &data, (count - kept) as u64),
            Some(payload) => {
                let value = data.to_value();
                let expand = &mut |template: &str| self.templates.text(template, &value, &env);
                let expanded = expand_payload(&payload.0, expand, 0)
                    .map_err(|error| NotifyError::permanent(format!("webhook payload: {error}")))?;
                gojson::to_string(&expanded).map(|text| text + "\n")
            }
        };
        Ok((url, body.map_err(|error| NotifyError::permanent(error.to_string()))?))
    }

    async fn send(&self, notification: &Notification) -> Result<(), NotifyError> {
        let (this, rendered) = (self.clone(), notification.clone());
        let (url, body) = away(move || this.render(&rendered)).await?;
        let request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(|_| NotifyError::permanent("webhook url is no request target"))?;
        let left = notification.deadline.saturating_duration_since(Instant::now());
        let timeout =
            self.config.timeout.map_or(left, |timeout| timeout.min(left)).max(Duration::from_millis(1));
        let limits = SendLimits { timeout, body_max_bytes: ANSWER_BYTES_MAX };
        let answer = match self.client.send(request, limits).await {
            Ok(answer) => answer,
            Err(error) => {
                let retry = error.is_transient();
                return Err(NotifyError { message: error.to_string(), retry, reason: FailureReason::Other });
            }
        };
        check_status(answer.status(), answer.body())
    }
}

/// 2xx is success, 5xx is worth another attempt, the rest (429 too) waits for the next flush.
fn check_status(status: StatusCode, body: &[u8]) -> Result<(), NotifyError> {
    if status.is_success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(body);
    let shown: String = text.trim().chars().take(ANSWER_CHARS_SHOWN).collect();
    let mut message = format!("unexpected status code {}", status.as_u16());
    if !shown.is_empty() {
        message.push_str(": ");
        message.push_str(&shown);
    }
    let reason = match status.as_u16() / 100 {
        4 => FailureReason::ClientError,
        5 => FailureReason::ServerError,
        _ => FailureReason::Other,
    };
    Err(NotifyError { message, retry: status.is_server_error(), reason })
}

impl Integration for Webhook {
    fn notify<'a>(&'a self, notification: &'a Notification) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(self.send(notification))
    }
}

// ---- custom payloads ----

/// Calls `check` with every template of a payload.
///
/// # Errors
/// The first error of `check`.
pub(crate) fn payload_templates(
    payload: &Value,
    check: &mut dyn FnMut(&str) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    match payload {
        Value::String(text) => check(text),
        Value::Sequence(items) => items.iter().try_for_each(|item| payload_templates(item, check)),
        Value::Mapping(entries) => entries.values().try_for_each(|value| payload_templates(value, check)),
        _ => Ok(()),
    }
}

/// Expands the strings of a payload. What comes out is read as YAML again, as Alertmanager 0.33 does: `1` becomes a
/// number, `yes` true, nothing null; what is no YAML stays a string.
fn expand_payload<E: std::fmt::Display>(
    payload: &Value,
    expand: &mut impl FnMut(&str) -> Result<String, E>,
    depth: usize,
) -> Result<serde_json::Value, String> {
    if depth > PAYLOAD_DEPTH_MAX {
        return Err(format!("nested deeper than {PAYLOAD_DEPTH_MAX}"));
    }
    match payload {
        Value::String(text) => {
            let expanded = expand(text).map_err(|error| error.to_string())?;
            let read = serde_yaml::from_str(&expanded).unwrap_or_else(|_| Value::String(expanded.clone()));
            plain(&read, depth)
        }
        Value::Sequence(items) => {
            items.iter().map(|item| expand_payload(item, expand, depth + 1)).collect::<Result<_, _>>()
        }
        Value::Mapping(entries) => {
            let mut object = serde_json::Map::new();
            for (key, value) in entries {
                object.insert(key_text(key), expand_payload(value, expand, depth + 1)?);
            }
            Ok(serde_json::Value::Object(object))
        }
        other => plain(other, depth),
    }
}

fn plain(value: &Value, depth: usize) -> Result<serde_json::Value, String> {
    if depth > PAYLOAD_DEPTH_MAX {
        return Err(format!("nested deeper than {PAYLOAD_DEPTH_MAX}"));
    }
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => number.into(),
            (_, Some(number), _) => number.into(),
            // NaN and infinities have no JSON form: null.
            (_, _, number) => number.and_then(serde_json::Number::from_f64).into(),
        },
        // Booleans of YAML 1.1, which the original reads.
        Value::String(text) => match text.as_str() {
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true.into(),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" => false.into(),
            _ => text.as_str().into(),
        },
        Value::Sequence(items) => serde_json::Value::Array(
            items.iter().map(|item| plain(item, depth + 1)).collect::<Result<_, _>>()?,
        ),
        Value::Mapping(entries) => {
            let mut object = serde_json::Map::new();
            for (key, value) in entries {
                object.insert(key_text(key), plain(value, depth + 1)?);
            }
            serde_json::Value::Object(object)
        }
        Value::Tagged(tagged) => plain(&tagged.value, depth + 1)?,
    })
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
    }
}
