//! The configuration as it may be shown: the file's own text with every secret replaced.
//!
//! Works on the events of the text, so comments, order and layout stay as written. A scalar is a secret when its key says
//! so; in any other scalar that is a URL, a password within it is replaced.

use model::config::SECRET_MASK;
use saphyr_parser::{Event, Parser};

/// Keys whose values are secrets, in Prometheus' and Alertmanager's files and ours.
const SECRET_KEYS: [&str; 29] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "client_certificate_key",
    "secret_key",
    "secret_access_key",
    "smtp_auth_password",
    "smtp_auth_secret",
    "auth_password",
    "auth_secret",
    "slack_api_url",
    "slack_app_token",
    "api_url",
    "app_token",
    "opsgenie_api_key",
    "victorops_api_key",
    "api_key",
    "api_secret",
    "wechat_api_secret",
    "telegram_bot_token",
    "bot_token",
    "routing_key",
    "service_key",
    "user_key",
    "token",
    "webhook_url",
    "alert_source_token",
    "rocketchat_token",
];
/// Keys whose whole content is secret, lists and maps included.
const SECRET_TREES: [&str; 2] = ["secrets", "proxy_connect_header"];

/// `text` without its secrets. What is no YAML is not shown at all.
pub(crate) fn mask(text: &str) -> String {
    match secrets(text) {
        Some(mut secrets) => {
            let mut out = text.to_owned();
            secrets.sort_by_key(|(start, ..)| std::cmp::Reverse(*start));
            for (start, end, replacement) in secrets {
                out.replace_range(start..end, &replacement);
            }
            out
        }
        None => "# not shown: cannot be read as YAML, so secrets in it cannot be told\n".to_owned(),
    }
}

/// Byte ranges to replace, and by what.
fn secrets(text: &str) -> Option<Vec<(usize, usize, String)>> {
    // Marks count characters; replacing wants bytes.
    let bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
    let mut found = Vec::new();
    // For each open collection: whether it is a map, whether a key is next, the pending key, whether all within is secret.
    let mut open: Vec<Level> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                let secret = open
                    .last()
                    .is_some_and(|level| level.secret || SECRET_TREES.contains(&level.key.as_str()));
                // A list under a webhook key hands the key down to its elements.
                let key = open.last().map(|level| level.key.clone()).unwrap_or_default();
                let is_map = matches!(event, Event::MappingStart(..));
                open.push(Level {
                    is_map,
                    at_key: is_map,
                    key: if is_map { String::new() } else { key },
                    section: section(&open),
                    secret,
                });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                if let Some(level) = open.last_mut() {
                    level.value_done();
                }
            }
            Event::Scalar(value, ..) => {
                let Some(level) = open.last_mut() else { continue };
                if level.at_key {
                    level.key = value.into_owned();
                    level.at_key = false;
                    continue;
                }
                let (start, end) = (*bytes.get(span.start.index())?, *bytes.get(span.end.index())?);
                if !value.is_empty() && (level.secret || is_secret(level)) {
                    found.push((start, end, SECRET_MASK.to_owned()));
                } else if let Some(masked) = mask_url(&text[start..end]) {
                    found.push((start, end, masked));
                }
                level.value_done();
            }
            Event::Alias(_) => {
                if let Some(level) = open.last_mut() {
                    level.value_done();
                }
            }
            _ => {}
        }
    }
    Some(found)
}

struct Level {
    is_map: bool,
    at_key: bool,
    key: String,
    /// The nearest key above, for keys that are secret only in some sections.
    section: String,
    secret: bool,
}

impl Level {
    fn value_done(&mut self) {
        self.at_key = self.is_map;
    }
}

fn section(open: &[Level]) -> String {
    open.iter().rev().map(|level| &level.key).find(|key| !key.is_empty()).cloned().unwrap_or_default()
}

fn is_secret(level: &Level) -> bool {
    let key = level.key.as_str();
    SECRET_KEYS.contains(&key)
        || (key == "url" && level.section.ends_with("webhook_configs"))
        || (key == "key" && level.section == "tls_config")
}

/// `scheme://user:PASSWORD@host` with the password replaced.
fn mask_url(text: &str) -> Option<String> {
    let scheme = text.find("://")?;
    let authority = &text[scheme + 3..];
    let authority = &authority[..authority.find(['/', '?', '#']).unwrap_or(authority.len())];
    let (user_info, _) = authority.rsplit_once('@')?;
    let (user, _) = user_info.split_once(':')?;
    let rest = &text[scheme + 3 + user_info.len()..];
    Some(format!("{}://{user}:{SECRET_MASK}{rest}", &text[..scheme]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_all_else_stays() {
        let text = "\
# kept: é
scrape_configs:
  - job_name: a
    basic_auth: {username: u, password: 'hunter2'}
    authorization:
      credentials: \"t0ken\"
      credentials_file: /etc/token
    http_headers: {X-A: {values: [v], secrets: [s1, s2]}}
    collector_options: {password: p}
    static_configs: [{targets: ['redis://me:pw@h:1/0']}]
alertmanager:
  receivers:
    - name: r
      webhook_configs: [{url: 'http://x/secret-path'}]
";
        let masked = mask(text);
        for secret in ["hunter2", "t0ken\"", "s1", "s2", ": p}", "me:pw", "secret-path"] {
            assert!(!masked.contains(secret), "{secret} is shown:\n{masked}");
        }
        for kept in
            ["# kept: é", "username: u", "/etc/token", "values: [v]", "redis://me:<secret>@h:1/0", "name: r"]
        {
            assert!(masked.contains(kept), "{kept} is gone:\n{masked}");
        }
        assert!(!mask("a: [").contains("a: ["));
    }
}
