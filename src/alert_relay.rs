//! Between rules and the Alertmanager: external labels are added and alerts relabelled, as Prometheus' notifier does.

use std::sync::Arc;

use alertmanager::Alertmanager;
use arc_swap::ArcSwap;
use model::relabel::{RelabelConfig, process};
use model::{Alert, AlertSink, Labels, LabelsBuilder};

/// What a reload changes.
#[derive(Debug, Default)]
pub(crate) struct RelaySettings {
    /// Added to alerts that do not have them.
    pub external_labels: Labels,
    /// `alerting.alert_relabel_configs`
    pub relabel_configs: Arc<[RelabelConfig]>,
}

/// Hands alerts of rules to the embedded Alertmanager.
pub(crate) struct AlertRelay {
    settings: ArcSwap<RelaySettings>,
    alertmanager: Arc<Alertmanager>,
}

impl AlertRelay {
    /// A relay without settings.
    pub(crate) fn new(alertmanager: Arc<Alertmanager>) -> Self {
        Self { settings: ArcSwap::default(), alertmanager }
    }

    /// Takes new settings.
    pub(crate) fn set(&self, settings: RelaySettings) {
        self.settings.store(Arc::new(settings));
    }
}

impl AlertSink for AlertRelay {
    fn send(&self, alerts: &[Alert]) {
        let settings = self.settings.load();
        let relayed: Vec<Alert> = alerts.iter().filter_map(|alert| relayed(alert, &settings)).collect();
        self.alertmanager.send(&relayed);
    }
}

/// The alert as it leaves; `None` when relabelling drops it.
fn relayed(alert: &Alert, settings: &RelaySettings) -> Option<Alert> {
    let mut builder = LabelsBuilder::from(&alert.labels);
    for (name, value) in &settings.external_labels {
        if builder.value(name).is_empty() {
            builder.set(name, value);
        }
    }
    let kept = process(&mut builder, &settings.relabel_configs);
    kept.then(|| Alert { labels: builder.build(), ..alert.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_labels_do_not_win_over_the_alerts_own() {
        let settings = RelaySettings {
            external_labels: Labels::from_pairs([("cluster", "outer"), ("region", "eu")]),
            relabel_configs: Arc::from([]),
        };
        let labels = Labels::from_pairs([("alertname", "A"), ("cluster", "own")]);
        let alert = Alert {
            labels,
            annotations: Labels::empty(),
            starts_at: 0,
            ends_at: None,
            generator_url: String::new(),
        };
        let relayed = relayed(&alert, &settings).unwrap();
        let expected = Labels::from_pairs([("alertname", "A"), ("cluster", "own"), ("region", "eu")]);
        assert_eq!(relayed.labels, expected);
    }
}
