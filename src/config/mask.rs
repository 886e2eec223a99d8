//! The configuration as it may be shown: the file's own text without comments, every secret replaced.
//!
//! Works on the events of the text, so order and layout stay as written. A scalar is a secret when its key says so; in any
//! other scalar, passwords within URLs are replaced. Comments go: people keep old passwords in them. What cannot be told
//! for sure counts as secret.

use std::collections::HashMap;
use std::ops::Range;

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
const SECRET_TREES: [&str; 3] = ["secrets", "proxy_connect_header", "payload"];

/// `text` without its secrets. What is no YAML is not shown at all.
pub(crate) fn mask(text: &str) -> String {
    let Some(mut changes) = Masker::changes(text) else {
        return "# not shown: cannot be read as YAML, so secrets in it cannot be told\n".to_owned();
    };
    // From the end, so that earlier ranges stay true. Of two that overlap the outer one wins.
    changes.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (range, replacement) in changes {
        if range.start < done {
            continue;
        }
        out.push_str(&text[done..range.start]);
        out.push_str(&replacement);
        done = range.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Reads the events of one text.
struct Masker<'a> {
    text: &'a str,
    /// Byte at which each character begins: marks count characters.
    bytes: Vec<usize>,
    open: Vec<Level>,
    /// Where anchored scalars stand, by anchor.
    anchors: HashMap<usize, Range<usize>>,
    scalars: Vec<Range<usize>>,
    changes: Vec<(Range<usize>, String)>,
}

/// An open map or list.
struct Level {
    is_map: bool,
    at_key: bool,
    key: String,
    /// The nearest key above, for keys that are secret only in some sections.
    section: String,
    secret: bool,
    /// The key came from an alias: what it names is not known.
    unknown_key: bool,
}

impl Level {
    fn value_done(&mut self) {
        self.at_key = self.is_map;
        self.unknown_key = false;
    }

    fn value_is_secret(&self) -> bool {
        let key = self.key.as_str();
        self.secret
            || self.unknown_key
            || SECRET_KEYS.contains(&key)
            || (key == "url" && self.section.ends_with("webhook_configs"))
            || (key == "key" && self.section == "tls_config")
    }
}

impl<'a> Masker<'a> {
    fn changes(text: &'a str) -> Option<Vec<(Range<usize>, String)>> {
        let bytes = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
        let mut masker = Self {
            text,
            bytes,
            open: Vec::new(),
            anchors: HashMap::new(),
            scalars: Vec::new(),
            changes: Vec::new(),
        };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.ok()?;
            let range = masker.range(span.start.index(), span.end.index())?;
            masker.event(&event, range);
        }
        masker.drop_comments();
        Some(masker.changes)
    }

    /// The bytes between two marks. Block scalars reach up to the next content: what is blank there is not theirs.
    fn range(&self, start: usize, end: usize) -> Option<Range<usize>> {
        let (start, end) = (*self.bytes.get(start)?, *self.bytes.get(end)?);
        Some(start..start + self.text[start..end].trim_end().len())
    }

    fn event(&mut self, event: &Event<'_>, range: Range<usize>) {
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                self.enter(matches!(event, Event::MappingStart(..)))
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
                self.value_done();
            }
            Event::Scalar(value, _, anchor, _) => {
                if *anchor > 0 {
                    self.anchors.insert(*anchor, range.clone());
                }
                self.scalars.push(range.clone());
                self.scalar(value, range);
            }
            Event::Alias(anchor) => match self.open.last_mut() {
                Some(level) if level.at_key => {
                    level.at_key = false;
                    level.key.clear();
                    level.unknown_key = true;
                }
                Some(level) => {
                    if level.value_is_secret() {
                        let anchored = self.anchors.get(anchor).cloned();
                        self.changes.extend(
                            anchored.into_iter().chain([range]).map(|at| (at, SECRET_MASK.to_owned())),
                        );
                    }
                    self.value_done();
                }
                None => {}
            },
            _ => {}
        }
    }

    fn enter(&mut self, is_map: bool) {
        let above = self.open.last();
        let secret = above.is_some_and(|level| {
            level.secret || level.unknown_key || SECRET_TREES.contains(&level.key.as_str())
        });
        // A list hands its key down to its elements.
        let key = above.filter(|_| !is_map).map(|level| level.key.clone()).unwrap_or_default();
        let section = self.open.iter().rev().map(|level| &level.key).find(|key| !key.is_empty());
        let section = section.cloned().unwrap_or_default();
        self.open.push(Level { is_map, at_key: is_map, key, section, secret, unknown_key: false });
    }

    fn scalar(&mut self, value: &str, range: Range<usize>) {
        let Some(level) = self.open.last_mut() else { return };
        if level.at_key {
            value.clone_into(&mut level.key);
            level.at_key = false;
            return;
        }
        if !value.is_empty() && level.value_is_secret() {
            self.changes.push((range, SECRET_MASK.to_owned()));
        } else if let Some(masked) = mask_urls(&self.text[range.clone()]) {
            self.changes.push((range, masked));
        }
        self.value_done();
    }

    fn value_done(&mut self) {
        if let Some(level) = self.open.last_mut() {
            level.value_done();
        }
    }

    /// A `#` outside of scalars, at the start of a line or after white space, begins a comment.
    fn drop_comments(&mut self) {
        let mut scalars = self.scalars.clone();
        scalars.sort_by_key(|range| range.start);
        let mut at = 0;
        while let Some(found) = self.text[at..].find('#').map(|offset| at + offset) {
            let next = scalars.partition_point(|range| range.start <= found);
            let within = next.checked_sub(1).map(|index| scalars[index].end).filter(|end| *end > found);
            let begins = self.text[..found].chars().next_back().is_none_or(char::is_whitespace);
            if let Some(end) = within {
                at = end;
            } else if begins {
                let end = self.text[found..].find('\n').map_or(self.text.len(), |offset| found + offset);
                let start = self.text[..found].trim_end_matches([' ', '\t']).len();
                self.changes.push((start..end, String::new()));
                at = end;
            } else {
                at = found + 1;
            }
        }
    }
}

/// Every `scheme://user:PASSWORD@host` with the password replaced; `None` when there is none. A slash in the password is
/// no excuse to show it.
fn mask_urls(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut found = false;
    while let Some(scheme) = rest.find("://") {
        let (head, tail) = rest.split_at(scheme + 3);
        out.push_str(head);
        let end =
            tail.find(|c: char| c.is_whitespace() || c == '"' || c == '\'' || c == ',').unwrap_or(tail.len());
        let masked = tail[..end].rsplit_once('@').and_then(|(user_info, host)| {
            let (user, _) = user_info.split_once(':')?;
            Some(format!("{user}:{SECRET_MASK}@{host}"))
        });
        match masked {
            Some(masked) => {
                found = true;
                out.push_str(&masked);
            }
            None => out.push_str(&tail[..end]),
        }
        rest = &tail[end..];
    }
    out.push_str(rest);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_all_else_stays() {
        let text = "\
# password: 0ld-one
scrape_configs:
  - job_name: a # not a secret: t0ken-in-comment
    basic_auth: {username: u, password: 'hunter2'}
    authorization:
      credentials: \"t0ken\"
      credentials_file: /etc/token
    http_headers: {X-A: {values: [v], secrets: [s1, s2]}}
    tls_config:
      key: |
        -----BEGIN KEY-----
        s3cret # no comment
      cert_file: /etc/cert
    collector_options: {password: p4ss}
    params: {k: [&anchor anch0red], 'a#b': ['c#d']}
    bearer_token: *anchor
    static_configs: [{targets: ['redis://me:pw/1@h:1/0', 'http://a:b0@x/, http://c:d0@y/']}]
alertmanager:
  receivers:
    - name: r
      webhook_configs: [{url: 'http://x/secret-path', payload: {deep: [in-pay]}}]
";
        let masked = mask(text);
        let secrets = [
            "0ld-one",
            "t0ken",
            "hunter2",
            "s1",
            "s2",
            "BEGIN",
            "s3cret",
            "p4ss",
            "anch0red",
            "pw/1",
            "b0",
            "d0",
            "secret-path",
            "in-pay",
        ];
        for secret in secrets {
            assert!(!masked.contains(secret), "{secret} is shown:\n{masked}");
        }
        let kept = [
            "job_name: a\n",
            "username: u",
            "/etc/token",
            "values: [v]",
            "cert_file: /etc/cert",
            "redis://me:<secret>@h:1/0",
            "'a#b': ['c#d']",
            "name: r",
        ];
        for kept in kept {
            assert!(masked.contains(kept), "{kept} is gone:\n{masked}");
        }
        let shown: Result<serde_yaml::Value, _> = serde_yaml::from_str(&masked);
        assert!(shown.is_ok(), "{shown:?}\n{masked}");
    }

    #[test]
    fn what_cannot_be_told_is_not_shown() {
        assert!(!mask("a: [").contains("a: ["));
        let by_alias = mask("names: [&k password]\nmap: {*k : hunter2, other: shown}\n");
        assert!(!by_alias.contains("hunter2") && by_alias.contains("shown"), "{by_alias}");
    }
}
