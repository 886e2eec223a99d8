//! The notification log: what each integration was last told about each group.
//!
//! It is what keeps a restarted, reloaded or (later) replicated Alertmanager from telling the same thing twice. An
//! entry is kept in memory and written to the [`StateStore`] before the notification counts as logged. If the disk
//! refuses, the entry still holds in memory: a repetition after a restart is better than repetitions now.

use std::collections::{BTreeSet, HashMap};

use model::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::state::{Change, StateError, StateStore, Table};

/// Whose entry it is: a receiver's integration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct IntegrationKey {
    /// Name of the receiver.
    pub(crate) receiver: String,
    /// Kind of the integration.
    pub(crate) kind: String,
    /// Position among those of its kind.
    pub(crate) index: usize,
}

/// The last notification of one integration about one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    /// The group.
    pub(crate) group_key: String,
    /// The integration.
    pub(crate) integration: IntegrationKey,
    /// When it was sent.
    pub(crate) timestamp: Timestamp,
    /// Fingerprints of the alerts that fired.
    pub(crate) firing: BTreeSet<u64>,
    /// Fingerprints of the alerts that were resolved.
    pub(crate) resolved: BTreeSet<u64>,
    /// When it may be forgotten.
    pub(crate) expires_at: Timestamp,
}

impl LogEntry {
    fn key(group_key: &str, integration: &IntegrationKey) -> String {
        // Receiver names and group keys may hold anything but this separator's neighbours matter to nobody: the parts
        // are prefixed with their lengths, so no two pairs share a key.
        format!(
            "{}:{}/{}/{}:{group_key}",
            integration.receiver.len(),
            integration.receiver,
            integration.kind,
            integration.index
        )
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct NotificationLog {
    entries: Mutex<HashMap<String, LogEntry>>,
    store: StateStore,
    metrics: Metrics,
}

impl NotificationLog {
    /// Loads what the store has.
    pub(crate) fn load(store: StateStore, metrics: Metrics) -> Self {
        let mut entries = HashMap::new();
        for (key, value) in store.entries(Table::NotificationLog) {
            match serde_json::from_str::<LogEntry>(&value) {
                Ok(entry) => {
                    entries.insert(key, entry);
                }
                Err(error) => {
                    tracing::warn!(%key, %error, "notification log entry is unreadable and left out")
                }
            }
        }
        metrics.nflog_entries.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        Self { entries: Mutex::new(entries), store, metrics }
    }

    /// The last entry, if there is one.
    pub(crate) fn get(&self, group_key: &str, integration: &IntegrationKey) -> Option<LogEntry> {
        self.metrics.nflog_queries.inc();
        self.entries.lock().get(&LogEntry::key(group_key, integration)).cloned()
    }

    /// Takes over `entry` and makes it durable.
    pub(crate) async fn put(&self, entry: LogEntry) -> Result<(), StateError> {
        let key = LogEntry::key(&entry.group_key, &entry.integration);
        let value = serde_json::to_string(&entry).map_err(|error| StateError::Database(error.to_string()))?;
        {
            let mut entries = self.entries.lock();
            entries.insert(key.clone(), entry);
            self.metrics.nflog_entries.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        }
        self.store.keep(vec![Change { table: Table::NotificationLog, key, value: Some(value) }]).await
    }

    /// Takes over what the store came to know after it was loaded.
    pub(crate) fn adopt(&self) {
        let mut entries = self.entries.lock();
        for (key, value) in self.store.entries(Table::NotificationLog) {
            let Ok(entry) = serde_json::from_str::<LogEntry>(&value) else { continue };
            if entries.get(&key).is_none_or(|known| known.timestamp < entry.timestamp) {
                entries.insert(key, entry);
            }
        }
        self.metrics.nflog_entries.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
    }

    /// Forgets what has expired.
    pub(crate) async fn maintain(&self, now: Timestamp) -> Result<usize, StateError> {
        let expired: Vec<String> = {
            let mut entries = self.entries.lock();
            let expired: Vec<String> = entries
                .iter()
                .filter(|(_, entry)| entry.expires_at <= now)
                .map(|(key, _)| key.clone())
                .collect();
            for key in &expired {
                entries.remove(key);
            }
            self.metrics.nflog_entries.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
            expired
        };
        let count = expired.len();
        let remove = |key| Change { table: Table::NotificationLog, key, value: None };
        self.store.keep(expired.into_iter().map(remove).collect()).await?;
        Ok(count)
    }
}
