//! Receivers: from `webhook_configs[]` and the like as written to valid ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use model::{ConfigError, ConfigPath};
use net::http::RawHttpClientConfig;

use super::build::{Built, check_url, either, text};
use super::raw::{RawEmail, RawGlobal, RawReceiver, RawWebhook, Text};
use super::{EmailConfig, IntegrationConfig, ReceiverConfig, SecretText, ThreadByDate, WebhookConfig};
use crate::template::Templates;

/// Builds receivers with the defaults of `global`.
pub(super) struct ReceiverBuilder<'a> {
    pub(super) global: &'a RawGlobal,
    pub(super) global_path: &'a ConfigPath,
    pub(super) dir: &'a Path,
    pub(super) templates: &'a Templates,
}

impl ReceiverBuilder<'_> {
    pub(super) fn build_all(&self, raw: Vec<RawReceiver>, path: &ConfigPath) -> Built<Vec<ReceiverConfig>> {
        let mut receivers = Vec::new();
        let mut names = BTreeSet::new();
        for (index, receiver) in raw.into_iter().enumerate() {
            let path = path.index(index);
            let name = text(&receiver.name).to_owned();
            if name.is_empty() {
                return Err(ConfigError::new(&path, "missing name in receiver"));
            }
            if !names.insert(name.clone()) {
                let message = format!("notification config name {name:?} is not unique");
                return Err(ConfigError::new(&path.key("name"), message));
            }
            for (kind, configs) in receiver.unbuilt() {
                if configs.as_ref().is_some_and(|configs| !configs.is_empty()) {
                    let message = format!("receiver kind {kind} is not supported yet");
                    return Err(ConfigError::new(&path.key(format!("{kind}_configs")), message));
                }
            }
            let mut integrations = Vec::new();
            for (index, webhook) in receiver.webhook_configs.unwrap_or_default().into_iter().enumerate() {
                let path = path.key("webhook_configs").index(index);
                integrations.push(IntegrationConfig::Webhook(Box::new(self.webhook(webhook, &path)?)));
            }
            for (index, email) in receiver.email_configs.unwrap_or_default().into_iter().enumerate() {
                let path = path.key("email_configs").index(index);
                integrations.push(IntegrationConfig::Email(Box::new(self.email(email, &path)?)));
            }
            let labels = receiver.labels.unwrap_or_default();
            let labels = labels.into_iter().map(|(name, value)| (name, value.0)).collect();
            receivers.push(ReceiverConfig { name, labels, integrations });
        }
        Ok(receivers)
    }

    fn check_template(&self, path: &ConfigPath, template: &str, html: bool) -> Built<()> {
        self.templates.check(template, html).map_err(|error| ConfigError::new(path, error))
    }

    fn http(
        &self,
        own: Option<RawHttpClientConfig>,
        path: &ConfigPath,
    ) -> Built<net::http::HttpClientConfig> {
        match (own, &self.global.http_config) {
            (Some(own), _) => own.build(&path.key("http_config"), self.dir),
            (None, Some(global)) => global.clone().build(&self.global_path.key("http_config"), self.dir),
            (None, None) => RawHttpClientConfig::default().build(&path.key("http_config"), self.dir),
        }
    }

    fn webhook(&self, raw: RawWebhook, path: &ConfigPath) -> Built<WebhookConfig> {
        let url = either(path, ("url", raw.url.as_ref()), ("url_file", raw.url_file.as_ref()), self.dir)?
            .ok_or_else(|| ConfigError::new(path, "one of url or url_file must be configured"))?;
        if let SecretText::Inline(url) = &url {
            let url_path = path.key("url");
            if url.expose().contains("{{") {
                self.check_template(&url_path, url.expose(), false)?;
            } else {
                check_url(url.expose()).map_err(|error| ConfigError::new(&url_path, error))?;
            }
        }
        if let Some(payload) = &raw.payload {
            crate::notify::webhook::payload_templates(&payload.0, &mut |template| {
                self.check_template(&path.key("payload"), template, false)
            })?;
        }
        Ok(WebhookConfig {
            send_resolved: raw.send_resolved.unwrap_or(true),
            http: self.http(raw.http_config, path)?,
            url,
            max_alerts: raw.max_alerts.unwrap_or(0),
            timeout: raw.timeout.map(Duration::from).filter(|timeout| !timeout.is_zero()),
            payload: raw.payload.filter(|payload| !payload.0.is_null()),
        })
    }

    fn email(&self, raw: RawEmail, path: &ConfigPath) -> Built<EmailConfig> {
        let global = self.global;
        if text(&raw.to).is_empty() {
            return Err(ConfigError::new(path, "missing to address in email config"));
        }
        let or_global = |own: &Option<Text>, global: &Option<Text>| -> String {
            match text(own) {
                "" => text(global).to_owned(),
                own => own.to_owned(),
            }
        };
        let smarthost = or_global(&raw.smarthost, &global.smtp_smarthost);
        if smarthost.is_empty() {
            return Err(ConfigError::new(path, "no global SMTP smarthost set"));
        }
        let smarthost_path = if text(&raw.smarthost).is_empty() {
            self.global_path.key("smtp_smarthost")
        } else {
            path.key("smarthost")
        };
        let (host, port) = split_host_port(&smarthost).map_err(|e| ConfigError::new(&smarthost_path, e))?;
        let from = or_global(&raw.from, &global.smtp_from);
        if from.is_empty() {
            return Err(ConfigError::new(path, "no global SMTP from set"));
        }
        let to = text(&raw.to).to_owned();
        let mut headers = BTreeMap::new();
        for (name, value) in raw.headers.unwrap_or_default() {
            let header_path = path.key("headers").key(name.clone());
            let canonical = canonical_header(&name);
            let printable = |b: u8| b.is_ascii_graphic() && b != b':';
            if canonical.is_empty() || !canonical.bytes().all(printable) {
                return Err(ConfigError::new(&header_path, format!("invalid header name {name:?}")));
            }
            self.check_template(&header_path, &value.0, false)?;
            if headers.insert(canonical.clone(), value.0).is_some() {
                return Err(ConfigError::new(
                    &header_path,
                    format!("duplicate header {canonical:?} in email config"),
                ));
            }
        }
        headers.entry("Subject".to_owned()).or_insert_with(|| DEFAULT_SUBJECT.to_owned());
        headers.entry("To".to_owned()).or_insert_with(|| to.clone());
        headers.entry("From".to_owned()).or_insert_with(|| from.clone());
        let html = raw.html.map_or_else(|| DEFAULT_HTML.to_owned(), |html| html.0);
        let plain = text(&raw.text).to_owned();
        self.check_template(&path.key("to"), &to, false)?;
        self.check_template(&path.key("from"), &from, false)?;
        self.check_template(&path.key("html"), &html, true)?;
        self.check_template(&path.key("text"), &plain, false)?;

        let own = either(
            path,
            ("auth_password", raw.auth_password.as_ref()),
            ("auth_password_file", raw.auth_password_file.as_ref()),
            self.dir,
        )?;
        let inherited = (
            ("smtp_auth_password", global.smtp_auth_password.as_ref()),
            ("smtp_auth_password_file", global.smtp_auth_password_file.as_ref()),
        );
        let auth_password = match own {
            Some(own) => Some(own),
            None => either(self.global_path, inherited.0, inherited.1, self.dir)?,
        };
        let own = either(
            path,
            ("auth_secret", raw.auth_secret.as_ref()),
            ("auth_secret_file", raw.auth_secret_file.as_ref()),
            self.dir,
        )?;
        let inherited = (
            ("smtp_auth_secret", global.smtp_auth_secret.as_ref()),
            ("smtp_auth_secret_file", global.smtp_auth_secret_file.as_ref()),
        );
        let auth_secret = match own {
            Some(own) => Some(own),
            None => either(self.global_path, inherited.0, inherited.1, self.dir)?,
        };
        let tls = match (raw.tls_config, &global.smtp_tls_config) {
            (Some(own), _) => own.build(&path.key("tls_config"), self.dir)?,
            (None, Some(global)) => {
                global.clone().build(&self.global_path.key("smtp_tls_config"), self.dir)?
            }
            (None, None) => net::tls::TlsConfig::default(),
        };
        let hello = match or_global(&raw.hello, &global.smtp_hello) {
            hello if hello.is_empty() => "localhost".to_owned(),
            hello => hello,
        };
        let implicit = raw.force_implicit_tls.or(global.smtp_force_implicit_tls);
        let threading = raw.threading.unwrap_or_default();
        let by_date = match text(&threading.thread_by_date) {
            "" | "daily" => ThreadByDate::Daily,
            "none" => ThreadByDate::None,
            other => {
                let path = path.key("threading").key("thread_by_date");
                return Err(ConfigError::new(
                    &path,
                    format!("invalid thread_by_date {other:?}: daily or none"),
                ));
            }
        };
        Ok(EmailConfig {
            send_resolved: raw.send_resolved.unwrap_or(false),
            to,
            from,
            hello,
            host,
            port,
            auth_username: or_global(&raw.auth_username, &global.smtp_auth_username),
            auth_password,
            auth_secret,
            auth_identity: or_global(&raw.auth_identity, &global.smtp_auth_identity),
            headers,
            html,
            text: plain,
            require_tls: raw.require_tls.or(global.smtp_require_tls).unwrap_or(true),
            implicit_tls: implicit.unwrap_or(port == 465),
            tls,
            threading: (threading.enabled == Some(true)).then_some(by_date),
        })
    }
}

pub(super) const DEFAULT_SUBJECT: &str = r#"{{ template "email.default.subject" . }}"#;
pub(super) const DEFAULT_HTML: &str = r#"{{ template "email.default.html" . }}"#;

fn split_host_port(text: &str) -> Result<(String, u16), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("address {text:?}: missing port in address"));
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6,
        None if host.contains(':') => return Err(format!("address {text:?}: too many colons in address")),
        None => host,
    };
    if port.is_empty() {
        return Err(format!("address {text:?}: port cannot be empty"));
    }
    let port = port.parse().map_err(|_| format!("address {text:?}: invalid port {port:?}"))?;
    let host = if host.is_empty() { "localhost" } else { host };
    Ok((host.to_owned(), port))
}

/// `x-foo` → `X-Foo`
pub(super) fn canonical_header(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = true;
    for c in name.chars() {
        out.push(if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
        upper = !c.is_ascii_alphanumeric();
    }
    out
}
