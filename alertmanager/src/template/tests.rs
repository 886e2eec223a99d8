//! The default templates against what the real Alertmanager 0.33.1 makes of the same notification.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Labels;
use model::template::Env;
use tokio::time::Instant;

use super::data::Data;
use super::*;
use crate::alert::IncomingAlert;
use crate::notify::{FlushedAlert, Notification, NotificationReason};

fn flushed(labels: &[(&str, &str)], annotations: &[(&str, &str)], url: &str, resolved: bool) -> FlushedAlert {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    };
    let incoming = IncomingAlert {
        labels: owned(labels),
        annotations: owned(annotations),
        starts_at: Some(1_700_000_000_000),
        ends_at: Some(1_700_000_060_000),
        generator_url: url.to_owned(),
    };
    let alert = incoming.into_stored(1_700_000_000_000, 0).unwrap();
    FlushedAlert { alert: Arc::new(alert), resolved }
}

fn notification(alerts: Vec<FlushedAlert>) -> Notification {
    Notification {
        receiver: "team.a".to_owned(),
        group_key: "{}:{}".to_owned(),
        group_labels: Labels::from_pairs([("alertname", "A <&>")]),
        route_labels: BTreeMap::from([("tier".to_owned(), "{{ .Status }}-1".to_owned())]),
        alerts,
        reason: NotificationReason::First,
        now: 1_700_000_000_000,
        deadline: Instant::now(),
    }
}

/// The alerts with which the real Alertmanager was asked.
fn first(resolved: bool) -> FlushedAlert {
    let labels = [("alertname", "A <&>"), ("instance", "i0"), ("job", "j"), ("x", "<b>")];
    flushed(&labels, &[("summary", "it & q")], "", resolved)
}

fn second(resolved: bool) -> FlushedAlert {
    let labels = [("alertname", "A <&>"), ("instance", "i1"), ("job", "j"), ("x", "<b>")];
    let annotations = [("e", ""), ("summary", "it & \"q\" é\u{2028}")];
    flushed(&labels, &annotations, "http://g/?a=1&b=2", resolved)
}

fn render(alerts: Vec<FlushedAlert>, template: &str, html: bool) -> String {
    let templates = Templates::new(&[]).unwrap();
    let notification = notification(alerts);
    let data = Data::of(&notification, &notification.alerts, "http://am.example:9093", &templates).to_value();
    let env = Env::at(notification.now);
    if html { templates.html(template, &data, &env) } else { templates.text(template, &data, &env) }.unwrap()
}

#[test]
fn names_of_alertmanager_give_its_results() {
    let text =
        |alerts, template: &str| render(alerts, &format!("{{{{ template \"{template}\" . }}}}"), false);
    let both = || vec![first(false), second(true)];
    assert_eq!(text(both(), "__subject"), "[FIRING:1] A <&> (j <b>)");
    assert_eq!(text(both(), "email.default.subject"), "[FIRING:1] A <&> (j <b>)");
    assert_eq!(text(vec![second(true)], "__subject"), "[RESOLVED] A <&> (i1 j <b>)");
    assert_eq!(text(both(), "__alertmanager"), "Alertmanager");
    assert_eq!(text(both(), "__alertmanagerURL"), "http://am.example:9093/#/alerts?receiver=team%5C.a");
    assert_eq!(text(both(), "__description"), "");
    let list = render(both(), r#"{{ template "__text_alert_list" .Alerts.Firing }}"#, false);
    assert_eq!(
        list,
        "Labels:\n - alertname = A <&>\n - instance = i0\n - job = j\n - x = <b>\n\
         Annotations:\n - summary = it & q\nSource: \n"
    );
    let markdown = render(both(), r#"{{ template "__text_alert_list_markdown" .Alerts.Resolved }}"#, false);
    assert_eq!(
        markdown,
        "\nLabels:\n  - alertname = A <&>\n  - instance = i1\n  - job = j\n  - x = <b>\n\n\
         Annotations:\n  - e = \n  - summary = it & \"q\" é\u{2028}\n\nSource: http://g/?a=1&b=2\n\n"
    );
}

#[test]
fn a_group_whose_labels_are_all_has_no_parentheses() {
    let subject = render(
        vec![flushed(&[("alertname", "A <&>")], &[], "", false)],
        "{{ template \"__subject\" . }}",
        false,
    );
    assert_eq!(subject, "[FIRING:1] A <&> ");
}

#[test]
fn the_html_mail_is_that_of_alertmanager() {
    let cases = [
        ("firing", vec![first(false), second(false)], include_str!("testdata/email-firing.html")),
        ("mixed", vec![first(false), second(true)], include_str!("testdata/email-mixed.html")),
        ("resolved", vec![first(true)], include_str!("testdata/email-resolved.html")),
    ];
    for (name, alerts, want) in cases {
        let got = render(alerts, r#"{{ template "email.default.html" . }}"#, true);
        for (line, (got, want)) in got.lines().zip(want.lines()).enumerate() {
            assert_eq!(got, want, "{name}, line {}", line + 1);
        }
        assert_eq!(got.len(), want.len(), "{name}");
    }
}

#[test]
fn data_methods_and_functions_work_in_user_templates() {
    let cases = [
        ("{{ .Alerts.Firing | len }}/{{ .Alerts.Resolved | len }}/{{ len .Alerts }}", "1/1/2"),
        (
            "{{ range .CommonLabels.SortedPairs }}{{ .Name }}:{{ .Value }};{{ end }}",
            "alertname:A <&>;job:j;x:<b>;",
        ),
        ("{{ (.CommonLabels.Remove (stringSlice \"x\" \"job\")).Names | join \",\" }}", "alertname"),
        ("{{ .GroupLabels.alertname | toLower }} {{ .CommonLabels.absent }}|", "a <&> |"),
        ("{{ (index .Alerts 0).StartsAt.Format \"2006-01-02 15:04\" }}", "2023-11-14 22:13"),
        ("{{ (index .Alerts 0).EndsAt.IsZero }} {{ (index .Alerts 1).EndsAt.Unix }}", "true 1700000060"),
        (
            "{{ .RouteLabels.tier }} {{ .NotificationReason }} {{ .Receiver }}",
            "firing-1 first notification team\\.a",
        ),
        (
            "{{ range .Alerts }}{{ .Status }} {{ .Fingerprint }} {{ end }}",
            "firing d4ade2840f41e892 resolved eeb4d84b0576974f ",
        ),
    ];
    for (template, want) in cases {
        assert_eq!(render(vec![first(false), second(true)], template, false), want, "{template}");
    }
}

#[test]
fn user_files_override_defaults_and_mistakes_name_their_file() {
    let file = |text: &str| TemplateFile { name: "my.tmpl".to_owned(), text: text.to_owned() };
    let templates = Templates::new(&[file(r#"{{ define "__subject" }}mine{{ end }}"#)]).unwrap();
    let data = Data::of(&notification(vec![first(false)]), &[], "", &templates).to_value();
    let subject = templates.text(r#"{{ template "email.default.subject" . }}"#, &data, &Env::at(0)).unwrap();
    assert_eq!(subject, "mine");
    let error = Templates::new(&[file("{{ define \"x\" }}\n{{ if }}{{ end }}")]).unwrap_err();
    assert!(error.contains("my.tmpl:2"), "{error}");
    assert!(templates.check("{{ .Status", false).is_err());
    assert!(templates.check("{{ nosuch . }}", false).is_err());
}
