//! The configuration as written: Alertmanager's keys, unknown ones refused.
//!
//! Receiver kinds that are not built yet are known keys with uninterpreted contents; [`super::build`] refuses them
//! at their place. Strings accept plain numbers and booleans, since users write `match: {code: 500}`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use model::Secret;
use model::config::PromDuration;
use net::http::RawHttpClientConfig;
use net::tls::RawTlsConfig;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_yaml::Value;

/// A string that may be written as a plain number, boolean or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_unit<E: Error>(self) -> Result<Text, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// YAML that is not interpreted, or later: it may hold secrets, so it is not shown.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Opaque(pub Value);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<yaml>")
    }
}

/// The whole file, or the `alertmanager:` section of the main one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAlertmanagerConfig {
    pub(super) global: Option<RawGlobal>,
    pub(super) route: Option<RawRoute>,
    pub(super) receivers: Option<Vec<RawReceiver>>,
    pub(super) inhibit_rules: Option<Vec<RawInhibitRule>>,
    pub(super) templates: Option<Vec<Text>>,
    pub(super) time_intervals: Option<Vec<RawTimeInterval>>,
    pub(super) mute_time_intervals: Option<Vec<RawTimeInterval>>,
    pub(super) tracing: Option<Opaque>,
    pub(super) event_recorder: Option<Opaque>,
}

/// Defaults for all receivers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGlobal {
    pub(super) resolve_timeout: Option<PromDuration>,
    pub(super) http_config: Option<RawHttpClientConfig>,
    pub(super) smtp_from: Option<Text>,
    pub(super) smtp_hello: Option<Text>,
    pub(super) smtp_smarthost: Option<Text>,
    pub(super) smtp_auth_username: Option<Text>,
    pub(super) smtp_auth_password: Option<Secret>,
    pub(super) smtp_auth_password_file: Option<PathBuf>,
    pub(super) smtp_auth_secret: Option<Secret>,
    pub(super) smtp_auth_secret_file: Option<PathBuf>,
    pub(super) smtp_auth_identity: Option<Text>,
    pub(super) smtp_require_tls: Option<bool>,
    pub(super) smtp_tls_config: Option<RawTlsConfig>,
    pub(super) smtp_force_implicit_tls: Option<bool>,
    // Defaults of receiver kinds that are not built yet: known keys, checked for contradictions, otherwise unused.
    pub(super) slack_api_url: Option<Secret>,
    pub(super) slack_api_url_file: Option<PathBuf>,
    pub(super) slack_app_token: Option<Secret>,
    pub(super) slack_app_token_file: Option<PathBuf>,
    pub(super) slack_app_url: Option<Text>,
    pub(super) pagerduty_url: Option<Text>,
    pub(super) opsgenie_api_url: Option<Text>,
    pub(super) opsgenie_api_key: Option<Secret>,
    pub(super) opsgenie_api_key_file: Option<PathBuf>,
    pub(super) victorops_api_url: Option<Text>,
    pub(super) victorops_api_key: Option<Secret>,
    pub(super) victorops_api_key_file: Option<PathBuf>,
    pub(super) wechat_api_url: Option<Text>,
    pub(super) wechat_api_secret: Option<Secret>,
    pub(super) wechat_api_secret_file: Option<PathBuf>,
    pub(super) wechat_api_corp_id: Option<Text>,
    pub(super) telegram_api_url: Option<Text>,
    pub(super) telegram_bot_token: Option<Secret>,
    pub(super) telegram_bot_token_file: Option<PathBuf>,
    pub(super) webex_api_url: Option<Text>,
    pub(super) rocketchat_api_url: Option<Text>,
    pub(super) rocketchat_token: Option<Secret>,
    pub(super) rocketchat_token_file: Option<PathBuf>,
    pub(super) rocketchat_token_id: Option<Secret>,
    pub(super) rocketchat_token_id_file: Option<PathBuf>,
    pub(super) jira_api_url: Option<Text>,
    pub(super) mattermost_webhook_url: Option<Secret>,
    pub(super) mattermost_webhook_url_file: Option<PathBuf>,
}

/// A node of the route tree.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) receiver: Option<Text>,
    pub(super) group_by: Option<Vec<Text>>,
    #[serde(rename = "match")]
    pub(super) match_: Option<BTreeMap<String, Text>>,
    pub(super) match_re: Option<BTreeMap<String, Text>>,
    pub(super) matchers: Option<Vec<Text>>,
    #[serde(rename = "continue")]
    pub(super) continue_: Option<bool>,
    pub(super) group_wait: Option<PromDuration>,
    pub(super) group_interval: Option<PromDuration>,
    pub(super) repeat_interval: Option<PromDuration>,
    pub(super) mute_time_intervals: Option<Vec<Text>>,
    pub(super) active_time_intervals: Option<Vec<Text>>,
    pub(super) labels: Option<BTreeMap<String, Text>>,
    pub(super) routes: Option<Vec<RawRoute>>,
}

/// An inhibition rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawInhibitRule {
    pub(super) name: Option<Text>,
    pub(super) source_match: Option<BTreeMap<String, Text>>,
    pub(super) source_match_re: Option<BTreeMap<String, Text>>,
    pub(super) source_matchers: Option<Vec<Text>>,
    pub(super) target_match: Option<BTreeMap<String, Text>>,
    pub(super) target_match_re: Option<BTreeMap<String, Text>>,
    pub(super) target_matchers: Option<Vec<Text>>,
    pub(super) equal: Option<Vec<Text>>,
}

/// A named list of intervals.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTimeInterval {
    pub(super) name: Option<Text>,
    pub(super) time_intervals: Option<Vec<RawInterval>>,
}

/// One interval.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawInterval {
    pub(super) times: Option<Vec<RawTimes>>,
    pub(super) weekdays: Option<Vec<Text>>,
    pub(super) days_of_month: Option<Vec<Text>>,
    pub(super) months: Option<Vec<Text>>,
    pub(super) years: Option<Vec<Text>>,
    pub(super) location: Option<Text>,
}

/// A range of times of day.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTimes {
    pub(super) start_time: Option<Text>,
    pub(super) end_time: Option<Text>,
}

/// A receiver with its integrations.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawReceiver {
    pub(super) name: Option<Text>,
    pub(super) labels: Option<BTreeMap<String, Text>>,
    pub(super) webhook_configs: Option<Vec<RawWebhook>>,
    pub(super) email_configs: Option<Vec<RawEmail>>,
    pub(super) discord_configs: Option<Vec<Opaque>>,
    pub(super) incidentio_configs: Option<Vec<Opaque>>,
    pub(super) jira_configs: Option<Vec<Opaque>>,
    pub(super) mattermost_configs: Option<Vec<Opaque>>,
    pub(super) msteams_configs: Option<Vec<Opaque>>,
    pub(super) msteamsv2_configs: Option<Vec<Opaque>>,
    pub(super) opsgenie_configs: Option<Vec<Opaque>>,
    pub(super) pagerduty_configs: Option<Vec<Opaque>>,
    pub(super) pushover_configs: Option<Vec<Opaque>>,
    pub(super) rocketchat_configs: Option<Vec<Opaque>>,
    pub(super) slack_configs: Option<Vec<Opaque>>,
    pub(super) sns_configs: Option<Vec<Opaque>>,
    pub(super) telegram_configs: Option<Vec<Opaque>>,
    pub(super) victorops_configs: Option<Vec<Opaque>>,
    pub(super) webex_configs: Option<Vec<Opaque>>,
    pub(super) wechat_configs: Option<Vec<Opaque>>,
}

impl RawReceiver {
    /// The configurations of kinds that are known and not built yet, by kind.
    pub(super) fn unbuilt(&self) -> [(&'static str, &Option<Vec<Opaque>>); 16] {
        [
            ("discord", &self.discord_configs),
            ("incidentio", &self.incidentio_configs),
            ("jira", &self.jira_configs),
            ("mattermost", &self.mattermost_configs),
            ("msteams", &self.msteams_configs),
            ("msteamsv2", &self.msteamsv2_configs),
            ("opsgenie", &self.opsgenie_configs),
            ("pagerduty", &self.pagerduty_configs),
            ("pushover", &self.pushover_configs),
            ("rocketchat", &self.rocketchat_configs),
            ("slack", &self.slack_configs),
            ("sns", &self.sns_configs),
            ("telegram", &self.telegram_configs),
            ("victorops", &self.victorops_configs),
            ("webex", &self.webex_configs),
            ("wechat", &self.wechat_configs),
        ]
    }
}

/// `webhook_configs[]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWebhook {
    pub(super) send_resolved: Option<bool>,
    pub(super) http_config: Option<RawHttpClientConfig>,
    pub(super) url: Option<Secret>,
    pub(super) url_file: Option<PathBuf>,
    pub(super) max_alerts: Option<u64>,
    pub(super) timeout: Option<PromDuration>,
    pub(super) payload: Option<Opaque>,
}

/// `email_configs[]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawEmail {
    pub(super) send_resolved: Option<bool>,
    pub(super) to: Option<Text>,
    pub(super) from: Option<Text>,
    pub(super) hello: Option<Text>,
    pub(super) smarthost: Option<Text>,
    pub(super) auth_username: Option<Text>,
    pub(super) auth_password: Option<Secret>,
    pub(super) auth_password_file: Option<PathBuf>,
    pub(super) auth_secret: Option<Secret>,
    pub(super) auth_secret_file: Option<PathBuf>,
    pub(super) auth_identity: Option<Text>,
    pub(super) headers: Option<BTreeMap<String, Text>>,
    pub(super) html: Option<Text>,
    pub(super) text: Option<Text>,
    pub(super) require_tls: Option<bool>,
    pub(super) tls_config: Option<RawTlsConfig>,
    pub(super) force_implicit_tls: Option<bool>,
    pub(super) threading: Option<RawThreading>,
}

/// `email_configs[].threading`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawThreading {
    pub(super) enabled: Option<bool>,
    pub(super) thread_by_date: Option<Text>,
}
