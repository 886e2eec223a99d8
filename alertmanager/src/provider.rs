//! The alerts that are known: merged messages, limits, and what is forgotten.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::Timestamp;
use model::alert::Fingerprint;
use parking_lot::Mutex;

use crate::alert::StoredAlert;

/// Limits on alerts; 0 means none.
#[derive(Clone, Copy, Debug)]
pub struct AlertLimits {
    /// Most alerts that fire at the same time under one alert name.
    pub per_alertname_max: usize,
    /// Most alerts in all.
    pub alerts_max: usize,
}

impl Default for AlertLimits {
    /// A million alerts in all (about 1 GiB): more than any receiver survives, less than any server's memory.
    fn default() -> Self {
        Self { per_alertname_max: 0, alerts_max: 1_000_000 }
    }
}

#[derive(Debug, Default)]
struct Known {
    alerts: HashMap<Fingerprint, Arc<StoredAlert>>,
    /// Fingerprints by alert name: only kept when there is a limit on it.
    by_name: HashMap<String, HashSet<Fingerprint>>,
}

/// The alerts.
#[derive(Debug)]
pub(crate) struct Provider {
    known: Mutex<Known>,
    limits: AlertLimits,
}

impl Provider {
    pub(crate) fn new(limits: AlertLimits) -> Self {
        Self { known: Mutex::default(), limits }
    }

    /// Merges `alerts` in order. Gives the states after each, one for each identity, and how many were dropped because
    /// of a limit.
    pub(crate) fn put(&self, alerts: Vec<StoredAlert>) -> (Vec<Arc<StoredAlert>>, usize) {
        let mut known = self.known.lock();
        let mut touched: Vec<Fingerprint> = Vec::with_capacity(alerts.len());
        let mut dropped = 0;
        for alert in alerts {
            let fingerprint = alert.fingerprint;
            let old = known.alerts.get(&fingerprint).cloned();
            let merged = match old {
                // Equal fingerprints of different labels: 64 bits of FNV can be made to collide. The first one stays.
                Some(old) if old.labels != alert.labels => {
                    dropped += 1;
                    continue;
                }
                Some(old) => old.merged_with(alert),
                None if !self.has_room(&mut known, &alert) => {
                    dropped += 1;
                    continue;
                }
                None => alert,
            };
            if self.limits.per_alertname_max > 0 {
                known.by_name.entry(merged.name().to_owned()).or_default().insert(fingerprint);
            }
            known.alerts.insert(fingerprint, Arc::new(merged));
            touched.push(fingerprint);
        }
        let mut seen = HashSet::new();
        let fresh = touched.into_iter().filter(|fingerprint| seen.insert(*fingerprint));
        (fresh.filter_map(|fingerprint| known.alerts.get(&fingerprint).cloned()).collect(), dropped)
    }

    fn has_room(&self, known: &mut Known, alert: &StoredAlert) -> bool {
        if self.limits.alerts_max > 0 && known.alerts.len() >= self.limits.alerts_max {
            return false;
        }
        if self.limits.per_alertname_max == 0 {
            return true;
        }
        let Known { alerts, by_name } = known;
        let Some(same_name) = by_name.get_mut(alert.name()) else { return true };
        if same_name.len() >= self.limits.per_alertname_max {
            let now = alert.updated_at;
            same_name.retain(|fp| alerts.get(fp).is_some_and(|alert| !alert.is_resolved_at(now)));
        }
        same_name.len() < self.limits.per_alertname_max
    }

    /// All, resolved ones included until they are forgotten; oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<StoredAlert>> {
        let mut all: Vec<Arc<StoredAlert>> = self.known.lock().alerts.values().cloned().collect();
        all.sort_by_key(|alert| (alert.starts_at, alert.fingerprint));
        all
    }

    /// Forgets resolved alerts.
    pub(crate) fn maintain(&self, now: Timestamp) {
        let mut known = self.known.lock();
        known.alerts.retain(|_, alert| !alert.is_resolved_at(now));
        let Known { alerts, by_name } = &mut *known;
        by_name.retain(|_, same_name| {
            same_name.retain(|fingerprint| alerts.contains_key(fingerprint));
            !same_name.is_empty()
        });
    }
}
