//! What templates of notifications see: Alertmanager's `Data`, `Alert`, `KV`, and the functions beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::alert::Fingerprint;
use model::template::{
    Env, Functions, GoTime, Struct, Value, as_object, as_text, functions as tables, list, map, object, text,
};
use model::{Labels, Timestamp};

use super::Templates;
use crate::notify::{FlushedAlert, Notification};

/// Labels or annotations by name.
pub type Kv = BTreeMap<String, String>;

/// An alert in a notification.
#[derive(Clone, Debug)]
pub struct DataAlert {
    /// Labels.
    pub labels: Kv,
    /// Annotations, empty ones included.
    pub annotations: Kv,
    /// Since when.
    pub starts_at: Timestamp,
    /// When it ended; `None`: it fires.
    pub ends_at: Option<Timestamp>,
    /// Where it comes from.
    pub generator_url: String,
    /// Identity.
    pub fingerprint: Fingerprint,
}

impl DataAlert {
    /// `firing` or `resolved`.
    pub fn status(&self) -> &'static str {
        if self.ends_at.is_some() { "resolved" } else { "firing" }
    }
}

/// A notification as templates and the webhook show it.
#[derive(Clone, Debug)]
pub struct Data {
    /// Name of the receiver, quoted for regular expressions (links filter by it).
    pub receiver: String,
    /// In the order of notifications.
    pub alerts: Vec<DataAlert>,
    /// Why it is sent.
    pub reason: &'static str,
    /// What the group is called by.
    pub group_labels: Kv,
    /// Labels that all alerts share.
    pub common_labels: Kv,
    /// Annotations that all alerts share.
    pub common_annotations: Kv,
    /// Labels of the route, expanded.
    pub route_labels: Kv,
    /// Where links lead, without a slash at the end.
    pub external_url: String,
}

fn kv(labels: &Labels) -> Kv {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What `all` have in common; an absent entry equals an empty one.
fn common<'a>(mut all: impl Iterator<Item = &'a Kv>) -> Kv {
    let Some(mut common) = all.next().cloned() else { return Kv::new() };
    for other in all {
        common.retain(|name, value| other.get(name).map_or("", String::as_str) == value);
        if common.is_empty() {
            break;
        }
    }
    common
}

/// Go's `regexp.QuoteMeta`.
fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Data {
    /// The data of a notification reduced to `alerts`.
    pub fn of(
        notification: &Notification,
        alerts: &[FlushedAlert],
        external_url: &str,
        templates: &Templates,
    ) -> Self {
        let data_alert = |flushed: &FlushedAlert| DataAlert {
            labels: kv(&flushed.alert.labels),
            annotations: flushed.alert.annotations.clone(),
            starts_at: flushed.alert.starts_at,
            ends_at: flushed.ends_at(),
            generator_url: flushed.alert.generator_url.clone(),
            fingerprint: flushed.alert.fingerprint,
        };
        let alerts: Vec<DataAlert> = alerts.iter().map(data_alert).collect();
        let mut data = Self {
            receiver: quote_meta(&notification.receiver),
            common_labels: common(alerts.iter().map(|alert| &alert.labels)),
            common_annotations: common(alerts.iter().map(|alert| &alert.annotations)),
            alerts,
            reason: notification.reason.as_str(),
            group_labels: kv(&notification.group_labels),
            route_labels: Kv::new(),
            external_url: external_url.to_owned(),
        };
        if !notification.route_labels.is_empty() {
            data.expand_route_labels(&notification.route_labels, notification.now, templates);
        }
        data
    }

    fn expand_route_labels(&mut self, labels: &Kv, now: Timestamp, templates: &Templates) {
        let value = self.to_value();
        let env = Env { now, query: None, external_url: Arc::from(self.external_url.as_str()) };
        for (name, template) in labels {
            // A label that cannot be expanded is no reason to lose the notification.
            let expanded = templates.text(template, &value, &env).unwrap_or_else(|error| {
                tracing::warn!(label = %name, %error, "label of a route could not be expanded");
                template.clone()
            });
            self.route_labels.insert(name.clone(), expanded);
        }
    }

    /// `firing` while any alert fires, else `resolved`.
    pub fn status(&self) -> &'static str {
        if self.alerts.iter().any(|alert| alert.ends_at.is_none()) { "firing" } else { "resolved" }
    }

    /// The data as a template's dot.
    pub fn to_value(&self) -> Value {
        Struct::new("*template.Data")
            .field("Receiver", "receiver", text(&self.receiver))
            .field("Status", "status", text(self.status()))
            .field("Alerts", "alerts", list(self.alerts.iter().map(alert_value)))
            .field("NotificationReason", "notification_reason", text(self.reason))
            .field("GroupLabels", "groupLabels", kv_value(&self.group_labels))
            .field("CommonLabels", "commonLabels", kv_value(&self.common_labels))
            .field("CommonAnnotations", "commonAnnotations", kv_value(&self.common_annotations))
            .field("ExternalURL", "externalURL", text(&self.external_url))
            .field("RouteLabels", "routeLabels", kv_value(&self.route_labels))
            .into_value()
    }
}

fn kv_value(kv: &Kv) -> Value {
    map(kv.iter().map(|(name, value)| (name, text(value))))
}

fn alert_value(alert: &DataAlert) -> Value {
    Struct::new("template.Alert")
        .field("Status", "status", text(alert.status()))
        .field("Labels", "labels", kv_value(&alert.labels))
        .field("Annotations", "annotations", kv_value(&alert.annotations))
        .field("StartsAt", "startsAt", object(GoTime::from_ms(alert.starts_at)))
        .field("EndsAt", "endsAt", object(alert.ends_at.map_or_else(GoTime::zero, GoTime::from_ms)))
        .field("GeneratorURL", "generatorURL", text(&alert.generator_url))
        .field("Fingerprint", "fingerprint", text(alert.fingerprint.to_string()))
        .into_value()
}

/// Alertmanager's function table, with the methods of `Alerts`, `KV` and `Pairs`.
pub(crate) fn functions() -> Functions {
    tables::alertmanager()
        .with_method("Firing", |receiver, _args| alerts_with_status(receiver, "firing"))
        .with_method("Resolved", |receiver, _args| alerts_with_status(receiver, "resolved"))
        .with_method("SortedPairs", |receiver, _args| kv_pairs(receiver).map(Ok))
        .with_method("Names", |receiver, _args| pair_fields(receiver, "Name"))
        .with_method("Values", |receiver, _args| pair_fields(receiver, "Value"))
        .with_method("Remove", |receiver, args| match receiver {
            Value::Map(entries) => Some(without(entries, args)),
            _ => None,
        })
}

fn alerts_with_status(receiver: &Value, status: &str) -> Option<Result<Value, String>> {
    let Value::List(alerts) = receiver else { return None };
    let has_status = |alert: &&Value| {
        as_object(alert).and_then(|alert| alert.field("Status")).is_some_and(|own| own == text(status))
    };
    Some(Ok(list(alerts.iter().filter(has_status).cloned())))
}

/// The entries of a map as pairs: `alertname` first, the others by name.
fn kv_pairs(receiver: &Value) -> Option<Value> {
    let Value::Map(entries) = receiver else { return None };
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(name, _)| (&***name != model::labels::ALERT_NAME, Arc::clone(name)));
    let pair = |(name, value): (&Arc<str>, &Value)| {
        Struct::new("template.Pair")
            .field("Name", "name", text(name))
            .field("Value", "value", value.clone())
            .into_value()
    };
    Some(list(sorted.into_iter().map(pair)))
}

/// `Names` and `Values` of a map, or of pairs.
fn pair_fields(receiver: &Value, field: &str) -> Option<Result<Value, String>> {
    let pairs = kv_pairs(receiver).unwrap_or_else(|| receiver.clone());
    let Value::List(pairs) = pairs else { return None };
    let values = pairs.iter().map(|pair| as_object(pair).and_then(|pair| pair.field(field)));
    values.collect::<Option<Vec<Value>>>().map(|values| Ok(list(values)))
}

fn without(entries: &BTreeMap<Arc<str>, Value>, args: &[Value]) -> Result<Value, String> {
    let [Value::List(names)] = args else {
        return Err("wrong arguments for Remove: want a list of names".to_owned());
    };
    let removed = |name: &Arc<str>| names.iter().any(|other| as_text(other) == Some(&**name));
    let kept = entries.iter().filter(|(name, _)| !removed(name));
    Ok(map(kept.map(|(name, value)| (name, value.clone()))))
}
