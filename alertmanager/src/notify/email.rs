//! Mail: headers and bodies from templates, HTML and text as alternatives, one conversation for each attempt.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, Headers};
use lettre::message::{Mailboxes, MultiPart, SinglePart};
use model::Timestamp;
use model::template::{Env, Value};

use super::smtp::{self, SmtpLogin, SmtpServer};
use super::{Integration, Notification, NotifyError, away};
use crate::config::{EmailConfig, ThreadByDate};
use crate::random::Random;
use crate::template::Templates;
use crate::template::data::Data;

/// More recipients than a notification has.
const RECIPIENTS_MAX: usize = 1000;

/// A conversation that takes longer is given up and tried again: mail servers let clients wait on purpose, but not so.
const CONVERSATION_MAX: Duration = Duration::from_secs(120);

/// A mail integration of a receiver. Clones share everything.
#[derive(Clone, Debug)]
pub struct Email {
    config: Arc<EmailConfig>,
    templates: Arc<Templates>,
    external_url: Arc<str>,
    random: Arc<dyn Random>,
}

/// A mail ready to be sent.
#[derive(Debug)]
pub struct Mail {
    /// Who sends and who receives.
    pub envelope: Envelope,
    /// Headers and body, CRLF line ends.
    pub bytes: Vec<u8>,
}

impl Email {
    /// Makes the integration; connections are made for each attempt.
    pub fn new(
        config: EmailConfig,
        templates: Arc<Templates>,
        external_url: Arc<str>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { config: Arc::new(config), templates, external_url, random }
    }

    /// The mail for a notification.
    ///
    /// # Errors
    /// When a template fails or makes no address.
    pub fn render(&self, notification: &Notification) -> Result<Mail, NotifyError> {
        let data =
            Data::of(notification, &notification.alerts, &self.external_url, &self.templates).to_value();
        let env = Env { now: notification.now, query: None, external_url: Arc::clone(&self.external_url) };
        let run = Run { templates: &self.templates, data, env };

        let from = addresses("from", &run.text("from", &self.config.from)?)?;
        let [from] = from.as_slice() else {
            let count = from.len();
            return Err(NotifyError::permanent(format!("must be exactly one from address (got: {count})")));
        };
        let to = addresses("to", &run.text("to", &self.config.to)?)?;
        let envelope = Envelope::new(Some(from.clone()), to)
            .map_err(|error| NotifyError::permanent(format!("to: {error}")))?;

        let mut headers = Headers::new();
        for (name, template) in &self.config.headers {
            let value = run.text(name, template)?;
            add_header(&mut headers, name, &value)?;
        }
        if !self.config.headers.contains_key("Message-Id") {
            add_header(&mut headers, "Message-Id", &self.message_id(notification.now))?;
        }
        if let Some(by_date) = self.config.threading {
            let root = thread_root(&notification.group_key, by_date, notification.now);
            add_header(&mut headers, "References", &root)?;
            add_header(&mut headers, "In-Reply-To", &root)?;
        }
        if !self.config.headers.contains_key("Date") {
            add_header(&mut headers, "Date", &date(notification.now, "%a, %d %b %Y %H:%M:%S +0000"))?;
        }
        add_header(&mut headers, "MIME-Version", "1.0")?;

        let boundary = format!("{:016x}{:016x}", self.random.next_u64(), self.random.next_u64());
        let parts = MultiPart::alternative().boundary(boundary);
        let part = |kind: ContentType, body: String| SinglePart::builder().header(kind).body(body);
        let text = run.text("text", &self.config.text)?;
        let html = run.html(&self.config.html)?;
        let body = match (text.is_empty(), html.is_empty()) {
            (false, false) => parts
                .singlepart(part(ContentType::TEXT_PLAIN, text))
                .singlepart(part(ContentType::TEXT_HTML, html)),
            (true, false) => parts.singlepart(part(ContentType::TEXT_HTML, html)),
            (_, true) => parts.singlepart(part(ContentType::TEXT_PLAIN, text)),
        };
        let mut bytes = headers.to_string().into_bytes();
        bytes.extend_from_slice(&body.formatted());
        Ok(Mail { envelope, bytes })
    }

    fn message_id(&self, now: Timestamp) -> String {
        let host = hostname::get().ok().and_then(|name| name.into_string().ok());
        let host = host.filter(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()));
        format!("<{now}.{}@{}>", self.random.next_u64(), host.as_deref().unwrap_or("localhost"))
    }

    /// Blocks if a secret is in a file.
    fn login(&self) -> Result<SmtpLogin, NotifyError> {
        let config = &self.config;
        let read = |secret: &Option<crate::config::SecretText>| match secret {
            None => Ok(None),
            Some(secret) => secret.read().map(Some).map_err(NotifyError::permanent),
        };
        Ok(SmtpLogin {
            username: config.auth_username.clone(),
            password: read(&config.auth_password)?,
            secret: read(&config.auth_secret)?,
            identity: config.auth_identity.clone(),
        })
    }

    async fn send(&self, notification: &Notification) -> Result<(), NotifyError> {
        let (this, rendered) = (self.clone(), notification.clone());
        let (mail, login) = away(move || Ok((this.render(&rendered)?, this.login()?))).await?;
        let config = &self.config;
        let server = SmtpServer {
            host: &config.host,
            port: config.port,
            hello: &config.hello,
            implicit_tls: config.implicit_tls,
            require_tls: config.require_tls,
            tls: &config.tls,
        };
        // All trouble of a conversation is worth another attempt, refusals too: greylisting refuses for a while.
        let conversation = smtp::deliver(&server, Some(&login), &mail.envelope, &mail.bytes);
        match tokio::time::timeout(CONVERSATION_MAX, conversation).await {
            Ok(delivered) => delivered.map_err(|error| NotifyError::retryable(error.to_string())),
            Err(_) => Err(NotifyError::retryable("the conversation with the mail server takes too long")),
        }
    }
}

impl Integration for Email {
    fn notify<'a>(&'a self, notification: &'a Notification) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(self.send(notification))
    }
}

struct Run<'a> {
    templates: &'a Templates,
    data: Value,
    env: Env,
}

impl Run<'_> {
    fn text(&self, what: &str, template: &str) -> Result<String, NotifyError> {
        let expanded = self.templates.text(template, &self.data, &self.env);
        expanded.map_err(|error| NotifyError::permanent(format!("execute {what:?} template: {error}")))
    }

    fn html(&self, template: &str) -> Result<String, NotifyError> {
        let expanded = self.templates.html(template, &self.data, &self.env);
        expanded.map_err(|error| NotifyError::permanent(format!("execute \"html\" template: {error}")))
    }
}

fn addresses(what: &str, text: &str) -> Result<Vec<Address>, NotifyError> {
    let parsed: Mailboxes = text
        .trim()
        .parse()
        .map_err(|error| NotifyError::permanent(format!("parse {what:?} addresses: {error}")))?;
    let addresses: Vec<Address> = parsed.into_iter().map(|mailbox| mailbox.email).collect();
    if addresses.len() > RECIPIENTS_MAX {
        return Err(NotifyError::permanent(format!("more than {RECIPIENTS_MAX} {what:?} addresses")));
    }
    Ok(addresses)
}

fn add_header(headers: &mut Headers, name: &str, value: &str) -> Result<(), NotifyError> {
    let header = HeaderName::new_from_ascii(name.to_owned())
        .map_err(|_| NotifyError::permanent(format!("invalid header name {name:?}")))?;
    // Label values may hold line ends; in a header they would begin another header.
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    headers.insert_raw(HeaderValue::new(header, value));
    Ok(())
}

/// A message id that no mail has: programs that sort mails into threads make an empty root of it.
fn thread_root(group_key: &str, by_date: ThreadByDate, now: Timestamp) -> String {
    let day = match by_date {
        ThreadByDate::None => String::new(),
        ThreadByDate::Daily => date(now, "%Y-%m-%d"),
    };
    let hash = xxhash_rust::xxh3::xxh3_64(group_key.as_bytes());
    format!("<alert-{hash:016x}-{day}@alertmanager>")
}

fn date(now: Timestamp, format: &str) -> String {
    jiff::Timestamp::from_millisecond(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime(format).to_string()
}
