//! Tests of caps, dead-letter queues and objectives.

use super::*;
use crate::collector::schema::QueueInfo;

fn settings(yaml: RawQueueSettings) -> QueueSettings {
    yaml.build(&ConfigPath::root()).unwrap()
}

fn reading(queue: &str, group: &str, ready: f64) -> QueueReading {
    let mut reading = QueueReading::new("redis", "0", queue, group);
    reading.set(QueueMetric::Ready, ready).set(QueueMetric::LagSeconds, ready / 10.0);
    reading
}

/// `name{labels} value` of each sample, for one metric.
fn values(samples: &[ScrapedSample], metric: &str) -> Vec<(String, f64)> {
    samples
        .iter()
        .filter(|sample| sample.labels.metric_name() == metric)
        .map(|sample| {
            let group = sample.labels.value("group");
            let slash = if group.is_empty() { "" } else { "/" };
            (format!("{}{slash}{group}", sample.labels.value("queue")), sample.value)
        })
        .collect()
}

fn owned(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn the_smallest_queues_are_folded_and_the_included_stay() {
    let settings = settings(RawQueueSettings {
        max_queues: Some(2),
        include: vec!["tiny*".into()],
        ..Default::default()
    });
    let readings = vec![
        reading("a", "", 5.0),
        reading("b", "", 50.0),
        reading("c", "", 30.0),
        reading("d", "", 7.0),
        reading("tiny1", "", 0.0),
    ];
    let mut samples = Vec::new();
    let folded = settings.finish(readings, &mut samples);
    // The included one takes one of the two places.
    assert_eq!(folded, Folded { queues: 3, groups: 0, duplicates: 0 });
    assert_eq!(
        values(&samples, "queue_messages_ready"),
        owned(&[("b", 50.0), ("tiny1", 0.0), ("__other__", 42.0)])
    );
    assert_eq!(
        values(&samples, "queue_lag_seconds"),
        owned(&[("b", 5.0), ("tiny1", 0.0), ("__other__", 3.0)])
    );
    // No objective for what is many queues.
    assert_eq!(values(&samples, "queue_slo_lag_seconds"), owned(&[("b", 60.0), ("tiny1", 60.0)]));
}

#[test]
fn groups_past_the_bound_are_folded_within_their_queue() {
    let mut readings: Vec<QueueReading> =
        (0..MAX_GROUPS + 3).map(|n| reading("s", &format!("g{n:03}"), n as f64)).collect();
    let mut log = QueueReading::new("redis", "0", "s", "");
    log.set(QueueMetric::Retained, 9.0);
    readings.push(log);
    let mut samples = Vec::new();
    let folded = QueueSettings::default().finish(readings, &mut samples);
    assert_eq!(folded.groups, 3);
    let ready = values(&samples, "queue_messages_ready");
    assert_eq!(ready.len(), MAX_GROUPS + 1);
    assert_eq!(ready.last(), Some(&("s/__other__".to_owned(), 3.0)), "0 + 1 + 2");
    assert_eq!(values(&samples, "queue_messages_retained"), owned(&[("s", 9.0)]));
}

#[test]
fn dead_letter_queues_have_no_backlog() {
    let mut log = QueueReading::new("redis", "0", "log.dlq", "");
    log.set(QueueMetric::Retained, 4.0);
    log.info = Some(QueueInfo { kind: "stream", ..QueueInfo::default() });
    let mut flagged = reading("parked", "", 2.0);
    flagged.set(QueueMetric::InFlight, 1.0);
    flagged.is_dead_letter = true;
    let readings = vec![log, reading("log.dlq", "g", 3.0), flagged, reading("mail-dlq", "", 6.0)];
    let mut samples = Vec::new();
    QueueSettings::default().finish(readings, &mut samples);
    assert_eq!(
        values(&samples, "queue_messages_dead"),
        owned(&[("log.dlq", 4.0), ("mail-dlq", 6.0), ("parked", 3.0)])
    );
    let names: std::collections::BTreeSet<&str> = samples.iter().map(|s| s.labels.metric_name()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["queue_info", "queue_messages_dead"]);
}

#[test]
fn objectives_come_from_the_first_entry_that_has_the_value() {
    let slo = |queue: &str, group: Option<&str>, lag: Option<f64>, ready: Option<f64>| RawSlo {
        queue: queue.into(),
        group: group.map(str::to_owned),
        lag_seconds: lag,
        drain_seconds: None,
        ready_messages: ready,
    };
    let settings = settings(RawQueueSettings {
        slo: vec![
            slo("mail", Some("vip"), Some(1.0), None),
            slo("mail", None, Some(5.0), Some(10.0)),
            slo("*", None, Some(300.0), None),
        ],
        ..Default::default()
    });
    let mut samples = Vec::new();
    settings.finish(
        vec![reading("mail", "vip", 1.0), reading("mail", "bulk", 1.0), reading("web", "", 1.0)],
        &mut samples,
    );
    assert_eq!(
        values(&samples, "queue_slo_lag_seconds"),
        owned(&[("mail/bulk", 5.0), ("mail/vip", 1.0), ("web", 300.0)])
    );
    assert_eq!(
        values(&samples, "queue_slo_ready_messages"),
        owned(&[("mail/bulk", 10.0), ("mail/vip", 10.0), ("web", 1000.0)])
    );
    assert_eq!(
        values(&samples, "queue_slo_drain_seconds"),
        owned(&[("mail/bulk", 3600.0), ("mail/vip", 3600.0), ("web", 3600.0)])
    );
}

#[test]
fn excluded_queues_and_repeated_names_are_left_out() {
    let settings = settings(RawQueueSettings { exclude: vec!["tmp:*".into()], ..Default::default() });
    let mut samples = Vec::new();
    let folded = settings
        .finish(vec![reading("tmp:1", "", 1.0), reading("a", "", 2.0), reading("a", "", 3.0)], &mut samples);
    assert_eq!(folded.duplicates, 1);
    assert_eq!(values(&samples, "queue_messages_ready"), owned(&[("a", 2.0)]));
}

#[test]
fn wrong_options_name_their_place() {
    let error = |raw: RawQueueSettings| raw.build(&ConfigPath::root().key("o")).unwrap_err().to_string();
    assert_eq!(
        error(RawQueueSettings { max_queues: Some(0), ..Default::default() }),
        "o.max_queues: must be between 1 and 100000"
    );
    let raw = RawQueueSettings { include: vec!["a".into(), "[".into()], ..Default::default() };
    assert_eq!(error(raw), r#"o.include[1]: pattern "[" leaves a [ open"#);
    let raw = RawQueueSettings {
        slo: vec![RawSlo { queue: "*".into(), lag_seconds: Some(-1.0), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(error(raw), "o.slo[0].lag_seconds: must be a number of at least 0");
    let raw = RawQueueSettings {
        slo: vec![RawSlo { queue: "*".into(), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(error(raw), "o.slo[0]: sets none of lag_seconds, drain_seconds, ready_messages");
}
