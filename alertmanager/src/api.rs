//! API v2: its JSON types, its filters, its errors. Serving them over HTTP is the `web` crate's.
//!
//! Field names, their order and the forms of times are Alertmanager 0.33's; bodies are made by [`to_json`], which
//! escapes as Go does. Validation errors are JSON strings with 400, schema errors `{"code","message"}` with 422.

use std::collections::BTreeMap;

use model::{MatchOp, Matcher, Timestamp};
use serde::{Deserialize, Serialize};

use crate::alert::IncomingAlert;
use crate::matchers::MatcherMode;
use crate::silence::{Silence, SilenceRequest, SilenceState};
use crate::{gojson, matchers, rfc3339};

/// Most alerts in one request: clients send batches of dozens.
pub const POSTED_ALERTS_MAX: usize = 100_000;

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The body; JSON, or empty.
    pub body: String,
}

impl ApiError {
    /// A message as a JSON string.
    pub fn message(status: u16, message: &str) -> Self {
        Self { status, body: to_json(message) }
    }

    /// A violation of the schema.
    pub fn schema(status: u16, code: u32, message: impl Into<String>) -> Self {
        #[derive(Serialize)]
        struct Body {
            code: u32,
            message: String,
        }
        Self { status, body: to_json(&Body { code, message: message.into() }).trim_end().to_owned() }
    }

    /// A status without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, body: String::new() }
    }
}

/// `value` as the API writes it: compact, Go's escapes, a newline at the end.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    // All types here are structs and maps with string keys: they have a JSON form.
    let mut text = gojson::to_string(value).unwrap_or_else(|_| "null".to_owned());
    text.push('\n');
    text
}

// ---- alerts ----

/// An alert as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GettableAlert {
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it ends or ended.
    pub ends_at: ApiTime,
    /// Identity.
    pub fingerprint: String,
    /// Who is notified.
    pub receivers: Vec<ReceiverName>,
    /// Since when.
    pub starts_at: ApiTime,
    /// Whether and why it is suppressed.
    pub status: AlertStatus,
    /// When it was last heard of.
    pub updated_at: ApiTime,
    /// Where it comes from.
    #[serde(rename = "generatorURL", skip_serializing_if = "String::is_empty")]
    pub generator_url: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A moment, printed with milliseconds in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiTime(pub Timestamp);

impl Serialize for ApiTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339::millis(self.0))
    }
}

/// A receiver by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiverName {
    /// Its name.
    pub name: String,
}

/// What happens to an alert.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// Fingerprints of the alerts that inhibit it.
    pub inhibited_by: Vec<String>,
    /// Names of the intervals that mute it; only known for groups.
    pub muted_by: Vec<String>,
    /// Ids of the silences that hold for it.
    pub silenced_by: Vec<String>,
    /// `active`, `suppressed` or `unprocessed`.
    pub state: &'static str,
}

/// A group as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertGroup {
    /// Its alerts.
    pub alerts: Vec<GettableAlert>,
    /// What it is called by.
    pub labels: BTreeMap<String, String>,
    /// Who is notified.
    pub receiver: ReceiverName,
    /// Labels of its route, if there are any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub route_labels: BTreeMap<String, String>,
}

/// A receiver as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiverView {
    /// Its labels, `name` among them.
    pub labels: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
}

/// Which alerts or groups are asked for.
#[derive(Clone, Debug)]
pub struct AlertFilter {
    /// Those that are not suppressed.
    pub active: bool,
    /// Those that are silenced.
    pub silenced: bool,
    /// Those that are inhibited.
    pub inhibited: bool,
    /// Those not looked at yet.
    pub unprocessed: bool,
    /// Those in muted groups.
    pub muted: bool,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// Of the receiver's name.
    pub receiver: Option<Matcher>,
    /// Of the receiver's labels.
    pub receiver_matchers: Vec<Matcher>,
}

impl Default for AlertFilter {
    fn default() -> Self {
        Self {
            active: true,
            silenced: true,
            inhibited: true,
            unprocessed: true,
            muted: true,
            matchers: Vec::new(),
            receiver: None,
            receiver_matchers: Vec::new(),
        }
    }
}

impl AlertFilter {
    /// Reads the parameters of a query string; unknown ones are ignored.
    ///
    /// # Errors
    /// 400 with the reason when a matcher or the receiver's expression is malformed.
    pub fn from_query<'a>(
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
        mode: MatcherMode,
    ) -> Result<Self, ApiError> {
        let mut filter = Self::default();
        for (key, value) in query {
            match key {
                "active" => filter.active = is_true(value),
                "silenced" => filter.silenced = is_true(value),
                "inhibited" => filter.inhibited = is_true(value),
                "unprocessed" => filter.unprocessed = is_true(value),
                "muted" => filter.muted = is_true(value),
                "filter" => filter.matchers.push(parse_filter(value, mode)?),
                "receiver_matchers" => filter.receiver_matchers.push(parse_filter(value, mode)?),
                "receiver" if !value.is_empty() => {
                    let matcher = matchers::compile(MatchOp::Regex, "receiver", value).map_err(|error| {
                        ApiError::message(400, &format!("failed to parse receiver param: {error}"))
                    })?;
                    filter.receiver = Some(matcher);
                }
                _ => {}
            }
        }
        Ok(filter)
    }
}

/// The server's way with booleans: what is not true is false.
fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "true" | "1" | "yes" | "ok" | "y" | "on" | "selected" | "checked" | "t" | "enabled"
    )
}

fn parse_filter(text: &str, mode: MatcherMode) -> Result<Matcher, ApiError> {
    mode.parse_one(text).map_err(|error| ApiError::message(400, &error))
}

/// An alert as clients post it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostableAlert {
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    starts_at: Option<String>,
    #[serde(default)]
    ends_at: Option<String>,
    #[serde(rename = "generatorURL", default)]
    generator_url: Option<String>,
}

/// Reads the body of `POST /alerts`.
///
/// # Errors
/// 422 for an empty body and missing labels, 400 for what is no list of alerts.
pub fn parse_alerts(body: &[u8]) -> Result<Vec<IncomingAlert>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::schema(422, 602, "alerts in body is required"));
    }
    let malformed = |reason: String| {
        ApiError::schema(400, 400, format!("parsing alerts body from \"\" failed, because {reason}"))
    };
    let posted: Option<Vec<Option<PostableAlert>>> =
        serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let posted = posted.unwrap_or_default();
    if posted.len() > POSTED_ALERTS_MAX {
        return Err(ApiError::schema(
            413,
            413,
            format!("more than {POSTED_ALERTS_MAX} alerts in one request"),
        ));
    }
    let mut alerts = Vec::with_capacity(posted.len());
    for (index, alert) in posted.into_iter().enumerate() {
        let Some(PostableAlert { labels: Some(labels), annotations, starts_at, ends_at, generator_url }) =
            alert
        else {
            return Err(ApiError::schema(422, 602, format!("{index}.labels in body is required")));
        };
        let time =
            |text: Option<String>| rfc3339::parse(text.as_deref().unwrap_or_default()).map_err(malformed);
        let generator_url = generator_url.unwrap_or_default();
        if !generator_url.is_empty() && !is_uri(&generator_url) {
            let message = format!("{index}.generatorURL in body must be of type uri: {generator_url:?}");
            return Err(ApiError::schema(422, 601, message));
        }
        alerts.push(IncomingAlert {
            labels,
            annotations: annotations.unwrap_or_default(),
            starts_at: time(starts_at)?,
            ends_at: time(ends_at)?,
            generator_url,
        });
    }
    Ok(alerts)
}

/// What Go's `url.ParseRequestURI` takes: an absolute URI or an absolute path.
fn is_uri(text: &str) -> bool {
    let clean = text.bytes().all(|b| b > b' ' && b != 0x7f);
    clean && (text.starts_with('/') || url::Url::parse(text).is_ok())
}

// ---- silences ----

/// A silence as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GettableSilence {
    /// UUID.
    pub id: String,
    /// Where it is in its life.
    pub status: SilenceStatus,
    /// Last change.
    pub updated_at: ApiTime,
    /// Anything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Why.
    pub comment: String,
    /// Who.
    pub created_by: String,
    /// First moment after.
    pub ends_at: ApiTime,
    /// All must match.
    pub matchers: Vec<ApiMatcher>,
    /// First moment.
    pub starts_at: ApiTime,
}

/// Where a silence is in its life.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SilenceStatus {
    /// The state.
    pub state: SilenceState,
}

/// A matcher in JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiMatcher {
    /// `=` or `=~` rather than `!=` or `!~`.
    pub is_equal: bool,
    /// `=~` or `!~`.
    pub is_regex: bool,
    /// The label.
    pub name: String,
    /// With what it is compared.
    pub value: String,
}

impl GettableSilence {
    /// A silence as it is at `now`.
    pub fn of(silence: &Silence, now: Timestamp) -> Self {
        let matcher = |matcher: &Matcher| ApiMatcher {
            is_equal: !matcher.op.is_negative(),
            is_regex: matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex),
            name: matcher.name.clone(),
            value: matcher.value.clone(),
        };
        Self {
            id: silence.id.clone(),
            status: SilenceStatus { state: silence.state(now) },
            updated_at: ApiTime(silence.updated_at),
            annotations: silence.annotations.clone(),
            comment: silence.comment.clone(),
            created_by: silence.created_by.clone(),
            ends_at: ApiTime(silence.ends_at),
            matchers: silence.matchers.iter().map(matcher).collect(),
            starts_at: ApiTime(silence.starts_at),
        }
    }
}

/// Which silences are asked for.
#[derive(Clone, Debug)]
pub struct SilenceFilter {
    /// Those that hold.
    pub active: bool,
    /// Those that will.
    pub pending: bool,
    /// Those that did.
    pub expired: bool,
    /// Matchers that a silence must have, literally.
    pub matchers: Vec<Matcher>,
}

impl Default for SilenceFilter {
    fn default() -> Self {
        Self { active: true, pending: true, expired: true, matchers: Vec::new() }
    }
}

impl SilenceFilter {
    /// Reads the parameters of a query string; unknown ones are ignored.
    ///
    /// # Errors
    /// 400 with the reason when a matcher is malformed.
    pub fn from_query<'a>(
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
        mode: MatcherMode,
    ) -> Result<Self, ApiError> {
        let mut filter = Self::default();
        for (key, value) in query {
            match key {
                "active" => filter.active = is_true(value),
                "pending" => filter.pending = is_true(value),
                "expired" => filter.expired = is_true(value),
                "filter" => filter.matchers.push(parse_filter(value, mode)?),
                _ => {}
            }
        }
        Ok(filter)
    }

    /// Whether a silence is asked for.
    pub(crate) fn accepts(&self, silence: &Silence, now: Timestamp) -> bool {
        let by_state = match silence.state(now) {
            SilenceState::Active => self.active,
            SilenceState::Pending => self.pending,
            SilenceState::Expired => self.expired,
        };
        by_state && self.matchers.iter().all(|wanted| silence_is_about(silence, wanted))
    }
}

/// Whether the silence has this very matcher: filters of silences compare matchers, not labels.
fn silence_is_about(silence: &Silence, wanted: &Matcher) -> bool {
    silence.matchers.contains(wanted)
}

/// A silence as clients post it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostableSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Option<Vec<PostableMatcher>>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostableMatcher {
    name: Option<String>,
    value: Option<String>,
    is_regex: Option<bool>,
    #[serde(default)]
    is_equal: Option<bool>,
}

/// Reads the body of `POST /silences`.
///
/// # Errors
/// 422 for missing fields, 400 for what is no silence or makes no sense at `now`.
pub fn parse_silence(body: &[u8], now: Timestamp) -> Result<SilenceRequest, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::schema(422, 602, "silence in body is required"));
    }
    let malformed = |reason: String| {
        ApiError::schema(400, 400, format!("parsing silence body from \"\" failed, because {reason}"))
    };
    let required = |field: &str| ApiError::schema(422, 602, format!("{field} in body is required"));
    let posted: PostableSilence =
        serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let comment = posted.comment.ok_or_else(|| required("comment"))?;
    let created_by = posted.created_by.ok_or_else(|| required("createdBy"))?;
    let ends_at = posted.ends_at.ok_or_else(|| required("endsAt"))?;
    let matchers = posted.matchers.ok_or_else(|| required("matchers"))?;
    if matchers.is_empty() {
        return Err(ApiError::schema(422, 612, "matchers in body should have at least 1 items"));
    }
    let starts_at = posted.starts_at.ok_or_else(|| required("startsAt"))?;
    let mut compiled = Vec::with_capacity(matchers.len());
    for (index, matcher) in matchers.into_iter().enumerate() {
        let of = |field: &str| required(&format!("matchers.{index}.{field}"));
        let is_regex = matcher.is_regex.ok_or_else(|| of("isRegex"))?;
        let name = matcher.name.ok_or_else(|| of("name"))?;
        let value = matcher.value.ok_or_else(|| of("value"))?;
        let op = match (is_regex, matcher.is_equal.unwrap_or(true)) {
            (false, true) => MatchOp::Equal,
            (false, false) => MatchOp::NotEqual,
            (true, true) => MatchOp::Regex,
            (true, false) => MatchOp::NotRegex,
        };
        let matcher = matchers::compile(op, &name, &value).map_err(|error| {
            let message =
                format!("invalid silence: invalid label matcher {index} in set 0: invalid regular expression {value:?}: {error}");
            ApiError::message(400, &message)
        })?;
        compiled.push(matcher);
    }
    let time = |text: &str| rfc3339::parse(text).map_err(malformed);
    let (starts_at, ends_at) = (time(&starts_at)?, time(&ends_at)?);
    // The zero time is before everything.
    let ends_at = ends_at.unwrap_or(i64::MIN);
    if starts_at.is_some_and(|starts_at| starts_at >= ends_at) {
        return Err(ApiError::message(400, "Failed to create silence: start time must be before end time"));
    }
    if ends_at < now {
        return Err(ApiError::message(400, "Failed to create silence: end time can't be in the past"));
    }
    Ok(SilenceRequest {
        id: posted.id.unwrap_or_default(),
        matchers: compiled,
        starts_at,
        ends_at,
        created_by,
        comment,
        annotations: posted.annotations.unwrap_or_default(),
    })
}

/// Checks the id in `/silence/{id}`.
///
/// # Errors
/// 422 when it is no UUID.
pub fn check_silence_id(id: &str) -> Result<(), ApiError> {
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if is_uuid {
        return Ok(());
    }
    Err(ApiError::schema(422, 601, format!("silenceID in path must be of type uuid: {id:?}")))
}

/// The answer to `POST /silences`.
#[derive(Clone, Debug, Serialize)]
pub struct SilenceCreated {
    /// The id it has now.
    #[serde(rename = "silenceID")]
    pub silence_id: String,
}

// ---- status ----

/// `GET /status`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterStatus,
    /// The configuration.
    pub config: ConfigText,
    /// Since when the server runs.
    pub uptime: ApiTime,
    /// What the server is.
    pub version_info: VersionInfo,
}

/// The cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// This replica's name, if there is a cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The replicas.
    pub peers: Vec<PeerStatus>,
    /// `ready`, `settling` or `disabled`.
    pub status: &'static str,
}

/// A replica.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Where it is.
    pub address: String,
    /// What it is called.
    pub name: String,
}

/// The configuration as text.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigText {
    /// YAML with defaults filled in and secrets masked.
    pub original: String,
}

/// What the server is.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// Branch it was built from.
    pub branch: String,
    /// When it was built.
    pub build_date: String,
    /// Who built it.
    pub build_user: String,
    /// Go's version there; the compiler's here.
    pub go_version: String,
    /// Commit it was built from.
    pub revision: String,
    /// Its version.
    pub version: String,
}
