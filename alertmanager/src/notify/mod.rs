//! Notifications and the integrations that send them.
//!
//! An [`Integration`] makes one attempt; retries, deduplication and logging are the pipeline's. One file a kind.

pub mod email;
pub mod smtp;
pub mod webhook;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use model::{Labels, Timestamp};
use tokio::time::Instant;

use crate::alert::StoredAlert;
use crate::config::IntegrationConfig;
use crate::random::Random;
use crate::template::Templates;

/// Why a notification is sent, in the words of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotificationReason {
    /// Nothing is known to the receiver about the group.
    First,
    /// Something fires that did not.
    NewAlerts,
    /// Something has resolved.
    SomeResolved,
    /// Everything has resolved.
    AllResolved,
    /// Nothing has changed for long.
    Repeat,
}

impl NotificationReason {
    /// Alertmanager's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first notification",
            Self::NewAlerts => "new alerts added",
            Self::SomeResolved => "some alerts resolved",
            Self::AllResolved => "all alerts resolved",
            Self::Repeat => "repeat interval elapsed",
        }
    }
}

/// An alert as it was when its group was flushed.
#[derive(Clone, Debug)]
pub struct FlushedAlert {
    /// The alert.
    pub alert: Arc<StoredAlert>,
    /// Whether it had ended then. One that had not has no end in notifications.
    pub resolved: bool,
}

impl FlushedAlert {
    /// When it ended; `None`: it fires.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.resolved.then_some(self.alert.ends_at)
    }
}

/// One message about a group to one integration.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Name of the receiver.
    pub receiver: String,
    /// Identity of the group.
    pub group_key: String,
    /// What the group is called by.
    pub group_labels: Labels,
    /// Labels of the route, templates not expanded.
    pub route_labels: BTreeMap<String, String>,
    /// In the order of notifications; never empty.
    pub alerts: Vec<FlushedAlert>,
    /// Why.
    pub reason: NotificationReason,
    /// Wall-clock time.
    pub now: Timestamp,
    /// When the attempt is given up.
    pub deadline: Instant,
}

/// Classes of failures, as the metric calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The receiver said it is our fault (4xx).
    ClientError,
    /// The receiver said it is its fault (5xx).
    ServerError,
    /// The server was stopped or reloaded.
    Canceled,
    /// The flush was over.
    DeadlineExceeded,
    /// Anything else: no connection, a failing template.
    Other,
}

impl FailureReason {
    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientError => "clientError",
            Self::ServerError => "serverError",
            Self::Canceled => "contextCanceled",
            Self::DeadlineExceeded => "contextDeadlineExceeded",
            Self::Other => "other",
        }
    }
}

/// Why an attempt failed. The message has no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotifyError {
    /// For the log.
    pub message: String,
    /// Whether the same message may succeed later within the same flush.
    pub retry: bool,
    /// For the metric.
    pub reason: FailureReason,
}

impl NotifyError {
    /// Trouble outside: worth another attempt.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry: true, reason: FailureReason::Other }
    }

    /// Our own mistake: the same attempt would fail again.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry: false, reason: FailureReason::Other }
    }
}

/// Sends notifications somewhere.
///
/// Implementers owe: one attempt, bounded in memory; an error that says whether to try again and holds no secret. The
/// future may be dropped at any await (the flush is over, the server stops).
pub trait Integration: Send + Sync + Debug {
    /// One attempt.
    fn notify<'a>(&'a self, notification: &'a Notification) -> BoxFuture<'a, Result<(), NotifyError>>;
}

/// Makes integrations from their configuration.
pub trait IntegrationFactory: Send + Sync + Debug {
    /// One integration.
    ///
    /// # Errors
    /// When it cannot be made (a certificate that does not parse); the message has no secret.
    fn build(
        &self,
        config: &IntegrationConfig,
        templates: &Arc<Templates>,
    ) -> Result<Box<dyn Integration>, String>;
}

/// Runs `render` away from the reactor: templates of large groups and the files of secrets take their time.
async fn away<T: Send + 'static>(
    render: impl FnOnce() -> Result<T, NotifyError> + Send + 'static,
) -> Result<T, NotifyError> {
    let rendered = tokio::task::spawn_blocking(render).await;
    // What a panic says may quote what is rendered.
    rendered.unwrap_or_else(|_| Err(NotifyError::permanent("rendering panicked")))
}

/// The real integrations.
#[derive(Debug)]
pub struct StandardIntegrations {
    /// Where the links in notifications lead, without a slash at the end.
    pub external_url: Arc<str>,
    /// For message ids and boundaries.
    pub random: Arc<dyn Random>,
}

/// How we call ourselves to receivers: bridges look for this product name.
pub const USER_AGENT: &str = concat!("Alertmanager/0.34.0 (nilometer ", env!("CARGO_PKG_VERSION"), ")");

impl IntegrationFactory for StandardIntegrations {
    fn build(
        &self,
        config: &IntegrationConfig,
        templates: &Arc<Templates>,
    ) -> Result<Box<dyn Integration>, String> {
        let (templates, external_url) = (Arc::clone(templates), Arc::clone(&self.external_url));
        Ok(match config {
            IntegrationConfig::Webhook(webhook) => {
                Box::new(webhook::Webhook::new((**webhook).clone(), templates, external_url)?)
            }
            IntegrationConfig::Email(email) => {
                let random = Arc::clone(&self.random);
                Box::new(email::Email::new((**email).clone(), templates, external_url, random))
            }
        })
    }
}
