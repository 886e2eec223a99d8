//! Configuration of the Alertmanager: `alertmanager.yml`, or the `alertmanager:` section of the main file.
//!
//! Two stages. [`RawAlertmanagerConfig`] is the file as written; [`RawAlertmanagerConfig::build`] gives an
//! [`AlertmanagerConfig`]: defaults filled in, references checked, matchers and templates compiled, template files
//! read. Secrets from `*_file` keys are not read here but each time they are used, so that they can be rotated.

mod build;
mod print;
mod print_http;
mod raw;
mod receivers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{ConfigError, Matcher, Secret};
use net::http::HttpClientConfig;
use net::tls::TlsConfig;

pub use raw::{Opaque, RawAlertmanagerConfig, Text};

use crate::interval::TimeIntervals;
use crate::matchers::MatcherMode;
use crate::route::Route;
use crate::template::TemplateFile;

/// Settings that are flags, not keys of the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// Which grammar reads matchers.
    pub matcher_mode: MatcherMode,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct AlertmanagerConfig {
    /// When an alert without an end counts as resolved if it is not heard of again.
    pub resolve_timeout: Duration,
    /// The root of the route tree.
    pub route: Arc<Route>,
    /// In the order of the file.
    pub receivers: Vec<ReceiverConfig>,
    /// In the order of the file.
    pub inhibit_rules: Vec<InhibitRuleConfig>,
    /// All named intervals.
    pub time_intervals: TimeIntervals,
    /// Contents of the files that `templates` names.
    pub templates: Vec<TemplateFile>,
    /// The grammar of matchers, for those of the API.
    pub matcher_mode: MatcherMode,
    /// The configuration as YAML with the defaults filled in and secrets masked.
    pub original: String,
}

impl AlertmanagerConfig {
    /// Reads and checks the text of a configuration file whose relative paths start in `dir`.
    ///
    /// # Errors
    /// When the text is no YAML, has unknown keys, or says something impossible.
    pub fn parse(text: &str, dir: &std::path::Path) -> Result<Self, ParseError> {
        let raw: RawAlertmanagerConfig = serde_yaml::from_str(text).map_err(ParseError::Yaml)?;
        Ok(raw.build(&model::ConfigPath::root(), dir, BuildOptions::default())?)
    }
}

/// Why the text of a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// No YAML, or not of the right shape; the message has line and column.
    #[error(transparent)]
    Yaml(serde_yaml::Error),
    /// Well-formed and wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A receiver and its integrations.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// Unique name.
    pub name: String,
    /// Labels of its own; the API adds `name`.
    pub labels: BTreeMap<String, String>,
    /// In Alertmanager's order of kinds, each kind in the order of the file.
    pub integrations: Vec<IntegrationConfig>,
}

/// One way to notify.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IntegrationConfig {
    /// `webhook_configs[]`
    Webhook(Box<WebhookConfig>),
    /// `email_configs[]`
    Email(Box<EmailConfig>),
}

impl IntegrationConfig {
    /// The kind as metrics and the notification log call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
        }
    }

    /// Whether resolved alerts are notified.
    pub fn send_resolved(&self) -> bool {
        match self {
            Self::Webhook(webhook) => webhook.send_resolved,
            Self::Email(email) => email.send_resolved,
        }
    }
}

/// A secret text, given here or in a file that is read at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretText {
    /// Given in the configuration.
    Inline(Secret),
    /// The trimmed contents of a file.
    File(PathBuf),
}

impl SecretText {
    /// The text now. Blocks: not to be called on the reactor.
    ///
    /// # Errors
    /// When the file cannot be read, is no plain file (reading a pipe could take for ever), or is larger than
    /// any secret; the message names it.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => read_secret_file(path)
                .map(|text| Secret::new(text.trim()))
                .map_err(|error| format!("could not read {}: {error}", path.display())),
        }
    }
}

/// Larger files hold no secret; certificates and tokens are some kilobytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

fn read_secret_file(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, Read as _};
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::other("not a plain file"));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(Error::other(format!("larger than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// `webhook_configs[]`, valid.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Whether resolved alerts are notified.
    pub send_resolved: bool,
    /// Client settings.
    pub http: HttpClientConfig,
    /// Where to; a template.
    pub url: SecretText,
    /// Most alerts in a body; 0: all.
    pub max_alerts: u64,
    /// Of one request; `None`: only the flush ends it.
    pub timeout: Option<Duration>,
    /// A body of one's own: strings in it are templates.
    pub payload: Option<Opaque>,
}

/// How a thread of mails is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadByDate {
    /// All mails about a group.
    None,
    /// The mails about a group on one day (UTC).
    Daily,
}

/// `email_configs[]`, valid.
#[derive(Clone, Debug)]
pub struct EmailConfig {
    /// Whether resolved alerts are notified.
    pub send_resolved: bool,
    /// Recipients; a template.
    pub to: String,
    /// Sender; a template.
    pub from: String,
    /// What we call ourselves.
    pub hello: String,
    /// Host of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User; empty: no authentication.
    pub auth_username: String,
    /// Password for PLAIN and LOGIN.
    pub auth_password: Option<SecretText>,
    /// Secret for CRAM-MD5.
    pub auth_secret: Option<SecretText>,
    /// Authorisation identity for PLAIN.
    pub auth_identity: String,
    /// Templates by canonical name, `Subject`, `To` and `From` included.
    pub headers: BTreeMap<String, String>,
    /// A template; empty: no such part.
    pub html: String,
    /// A template; empty: no such part.
    pub text: String,
    /// Refuse a server without STARTTLS.
    pub require_tls: bool,
    /// TLS from the first byte whatever the port; `None`: on port 465.
    pub implicit_tls: bool,
    /// TLS settings.
    pub tls: TlsConfig,
    /// Whether and how mails refer to each other.
    pub threading: Option<ThreadByDate>,
}

/// An inhibition rule.
#[derive(Clone, Debug)]
pub struct InhibitRuleConfig {
    /// May be empty.
    pub name: String,
    /// What inhibits.
    pub source: Vec<Matcher>,
    /// What is inhibited.
    pub target: Vec<Matcher>,
    /// Labels whose values must agree.
    pub equal: Vec<String>,
}

#[cfg(test)]
mod tests;
