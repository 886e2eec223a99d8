//! Real HTTP and SMTP conversations on the loopback interface: what arrives, byte for byte, and what failures say.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up ends")]

mod common;
#[path = "common/http.rs"]
mod http_sink;
#[path = "common/smtp.rs"]
mod smtp_sink;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alertmanager::notify::{
    FlushedAlert, Integration, IntegrationFactory as _, Notification, NotificationReason, NotifyError,
    StandardIntegrations,
};
use alertmanager::random::SeededRandom;
use alertmanager::template::Templates;
use alertmanager::{Alertmanager, Deps, Options};
use common::{BASE_MS, PausedClock, config, incoming};
use http_sink::HttpSink;
use model::Labels;
use smtp_sink::{Setup, SmtpSink};
use tokio::time::Instant;

fn integrations(receiver: &str, global: &str) -> Vec<Box<dyn Integration>> {
    let yaml =
        format!("global: {{{global}}}\nroute: {{receiver: r}}\nreceivers:\n- {{name: r, {receiver}}}\n");
    let config = config(&yaml);
    let factory = StandardIntegrations {
        external_url: Arc::from("http://am.example:9093"),
        random: Arc::new(SeededRandom::new(7)),
    };
    let templates = Arc::new(Templates::new(&config.templates).unwrap());
    config.receivers[0].integrations.iter().map(|one| factory.build(one, &templates).unwrap()).collect()
}

fn flushed(spec: &str, url: &str, resolved: bool) -> FlushedAlert {
    let mut alert = incoming(spec, BASE_MS);
    alert.generator_url = url.to_owned();
    if resolved {
        alert.ends_at = Some(BASE_MS + 61_500);
    }
    FlushedAlert { alert: Arc::new(alert.into_stored(BASE_MS, 300_000).unwrap()), resolved }
}

fn notification(alerts: Vec<FlushedAlert>, reason: NotificationReason) -> Notification {
    Notification {
        receiver: "r".to_owned(),
        group_key: "{}/{team=\"a\"}:{alertname=\"Lag<5\"}".to_owned(),
        group_labels: Labels::from_pairs([("alertname", "Lag<5")]),
        route_labels: BTreeMap::new(),
        alerts,
        reason,
        now: BASE_MS + 65_000,
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

fn two() -> Notification {
    let alerts = vec![
        flushed("Lag<5{instance=a:1,job=q} a.summary=it&that", "http://prom/graph?g0.expr=a&g0.tab=1", false),
        flushed("Lag<5{instance=b:1,job=q} starts=0.25", "", true),
    ];
    notification(alerts, NotificationReason::SomeResolved)
}

// ---- webhook ----

#[tokio::test]
async fn the_webhook_body_is_alertmanagers_byte_for_byte() {
    let sink = HttpSink::start().await;
    let webhook = &integrations(&format!("webhook_configs: [{{url: '{}'}}]", sink.url("/hook")), "")[0];
    webhook.notify(&two()).await.unwrap();
    let requests = sink.requests();
    let request = &requests[0];
    let want = concat!(
        r#"{"receiver":"r","status":"firing","alerts":["#,
        r#"{"status":"firing","labels":{"alertname":"Lag\u003c5","instance":"a:1","job":"q"},"annotations":{"summary":"it\u0026that"},"#,
        r#""startsAt":"2023-11-14T22:13:20Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prom/graph?g0.expr=a\u0026g0.tab=1","fingerprint":"f454b951fe82b41a"},"#,
        r#"{"status":"resolved","labels":{"alertname":"Lag\u003c5","instance":"b:1","job":"q"},"annotations":{},"#,
        r#""startsAt":"2023-11-14T22:13:20.25Z","endsAt":"2023-11-14T22:14:21.5Z","generatorURL":"","fingerprint":"3fbc51c136a68c6d"}],"#,
        r#""notification_reason":"some alerts resolved","groupLabels":{"alertname":"Lag\u003c5"},"commonLabels":{"alertname":"Lag\u003c5","job":"q"},"#,
        r#""commonAnnotations":{},"externalURL":"http://am.example:9093","version":"4","groupKey":"{}/{team=\"a\"}:{alertname=\"Lag\u003c5\"}","truncatedAlerts":0}"#,
        "\n"
    );
    assert_eq!(request.body, want);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook"));
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.header("user-agent").starts_with("Alertmanager/"), "{request:?}");
    assert_eq!(request.header("content-length"), want.len().to_string());
}

#[tokio::test]
async fn max_alerts_cuts_before_common_labels_are_made() {
    let sink = HttpSink::start().await;
    let webhook =
        &integrations(&format!("webhook_configs: [{{url: '{}', max_alerts: 1}}]", sink.url("/")), "")[0];
    webhook.notify(&two()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&sink.requests()[0].body).unwrap();
    assert_eq!(body["truncatedAlerts"], 1);
    assert_eq!(body["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(body["commonLabels"]["instance"], "a:1");
    assert_eq!(body["commonAnnotations"]["summary"], "it&that");
}

#[tokio::test]
async fn urls_are_templates_and_url_files_are_read_each_time() {
    let sink = HttpSink::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url.txt");
    let receiver = format!(
        "webhook_configs: [{{url: '{}/{{{{ .Status }}}}?n={{{{ len .Alerts.Firing }}}}&r={{{{ .Receiver }}}}'}}, {{url_file: '{}'}}]",
        sink.url(""),
        file.display()
    );
    let webhooks = integrations(&receiver, "");
    webhooks[0].notify(&two()).await.unwrap();
    assert_eq!(sink.requests()[0].target, "/firing?n=1&r=r");
    let missing = webhooks[1].notify(&two()).await.unwrap_err();
    assert!(!missing.retry && missing.message.contains("url.txt"), "{missing}");
    for path in ["/one", "/two"] {
        std::fs::write(&file, format!("{}\n", sink.url(path))).unwrap();
        webhooks[1].notify(&two()).await.unwrap();
        assert_eq!(sink.requests().last().unwrap().target, path);
    }
}

#[tokio::test]
async fn failures_say_whether_to_retry_and_hold_no_secret() {
    let sink = HttpSink::start().await;
    let receiver =
        format!("webhook_configs: [{{url: '{}', timeout: 200ms}}]", sink.url("/hook?token=hunter2"));
    let webhook = &integrations(&receiver, "")[0];
    let answer = |status, body| sink.answers.lock().push((status, None, body));
    for (status, retry, reason) in [
        (500, true, "serverError"),
        (503, true, "serverError"),
        (400, false, "clientError"),
        (429, false, "clientError"),
    ] {
        answer(status, "no such thing");
        let error = webhook.notify(&two()).await.unwrap_err();
        assert_eq!((error.retry, error.reason.as_str()), (retry, reason), "{status}");
        assert_eq!(error.message, format!("unexpected status code {status}: no such thing"));
    }
    answer(0, "");
    let started = Instant::now();
    let error = webhook.notify(&two()).await.unwrap_err();
    assert!(error.retry && started.elapsed() < Duration::from_secs(3), "{error}");
    assert!(!error.message.contains("hunter2"), "{error}");
    // Nobody listens there.
    let webhook = &integrations("webhook_configs: [{url: 'http://127.0.0.1:1/hunter2'}]", "")[0];
    let error = webhook.notify(&two()).await.unwrap_err();
    assert!(error.retry && !error.message.contains("hunter2"), "{error}");
    // A template that fails at run time.
    let webhook = &integrations("webhook_configs: [{url: 'http://h/hunter2/{{ .Nope }}'}]", "")[0];
    let error = webhook.notify(&two()).await.unwrap_err();
    assert!(!error.retry && !error.message.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_as_get_and_count_as_success() {
    let sink = HttpSink::start().await;
    sink.answers.lock().push((302, Some(("location", sink.url("/there"))), ""));
    let webhook = &integrations(&format!("webhook_configs: [{{url: '{}'}}]", sink.url("/here")), "")[0];
    webhook.notify(&two()).await.unwrap();
    let requests = sink.requests();
    let seen: Vec<_> =
        requests.iter().map(|r| (r.method.as_str(), r.target.as_str(), r.body.is_empty())).collect();
    assert_eq!(seen, [("POST", "/here", false), ("GET", "/there", true)]);
}

#[tokio::test]
async fn credentials_and_headers_come_from_http_config() {
    let sink = HttpSink::start().await;
    let receiver = format!(
        "webhook_configs: [{{url: '{url}'}}, {{url: '{url}', http_config: {{authorization: {{credentials: abc}}, http_headers: {{X-Two: {{values: [v]}}}}}}}}]",
        url = sink.url("/")
    );
    for webhook in integrations(&receiver, "http_config: {basic_auth: {username: u, password: 'p:w'}}") {
        webhook.notify(&two()).await.unwrap();
    }
    let requests = sink.requests();
    assert_eq!(requests[0].header("authorization"), "Basic dTpwOnc=");
    assert_eq!((requests[1].header("authorization"), requests[1].header("x-two")), ("Bearer abc", "v"));
}

#[tokio::test]
async fn custom_payloads_are_expanded_and_read_again() {
    let sink = HttpSink::start().await;
    let receiver = format!(
        "webhook_configs: [{{url: '{}', payload: {{title: '{{{{ .Status | toUpper }}}}', count: '{{{{ len .Alerts }}}}', fixed: 7, flag: true, \
         list: [one, '{{{{ .CommonLabels.absent }}}}', {{deep: '{{{{ .GroupLabels.alertname }}}}'}}], json: '{{{{ .GroupLabels | toJson }}}}', bad: 'a: b: c'}}}}]",
        sink.url("/")
    );
    integrations(&receiver, "")[0].notify(&two()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&sink.requests()[0].body).unwrap();
    let want = serde_json::json!({
        "title": "FIRING", "count": 2, "fixed": 7, "flag": true, "list": ["one", null, {"deep": "Lag<5"}],
        "json": {"alertname": "Lag<5"}, "bad": "a: b: c",
    });
    assert_eq!(body, want);
}

// ---- email ----

fn email(sink: &SmtpSink, more: &str) -> Box<dyn Integration> {
    let receiver = format!(
        "email_configs: [{{to: 'Ops <ops@x.example>, b@x.example', from: am@x.example, smarthost: 'localhost:{}'{more}}}]",
        sink.port
    );
    integrations(&receiver, "").remove(0)
}

fn header<'a>(data: &'a str, name: &str) -> &'a str {
    let found = data
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {data}"))
}

#[tokio::test]
async fn a_plain_mail_has_headers_text_and_html() {
    let sink = SmtpSink::start(Setup::default()).await;
    let mail = email(
        &sink,
        ", require_tls: false, hello: am.example, text: 'hi {{ .GroupLabels.alertname }}', headers: {x-note: '{{ .Status }}', x-uml: 'Ü'}",
    );
    mail.notify(&two()).await.unwrap();
    let mails = sink.mails();
    let mail = &mails[0];
    assert!(!mail.encrypted && mail.auth.is_none());
    assert_eq!(mail.hello, "am.example");
    assert!(mail.from.starts_with("FROM:<am@x.example>"), "{}", mail.from);
    assert_eq!(mail.to, ["TO:<ops@x.example>", "TO:<b@x.example>"]);
    let data = &mail.data;
    assert_eq!(header(data, "Subject"), "[FIRING:1] Lag<5 (q)");
    assert_eq!(header(data, "To"), "Ops <ops@x.example>, b@x.example");
    assert_eq!(header(data, "From"), "am@x.example");
    assert_eq!(header(data, "X-Note"), "firing");
    assert!(header(data, "X-Uml").starts_with("=?utf-8?"), "{data}");
    assert_eq!(header(data, "Date"), "Tue, 14 Nov 2023 22:14:25 +0000");
    assert!(header(data, "Message-Id").starts_with("<1700000065000."), "{data}");
    assert!(data.contains("multipart/alternative"), "{data}");
    let (text, html) = (data.find("hi Lag<5").unwrap(), data.find("<!DOCTYPE html").unwrap());
    assert!(text < html, "the plain part comes first");
    assert!(
        data.contains("text/plain; charset=utf-8") && data.contains("text/html; charset=utf-8"),
        "{data}"
    );
    assert!(data.contains("[1] Firing") && data.contains("[1] Resolved"), "{data}");
}

#[tokio::test]
async fn starttls_encrypts_before_anything_else_and_authenticates() {
    for (offered, login, want) in [
        ("PLAIN LOGIN", "auth_identity: id, auth_password: pw", "PLAIN id u pw"),
        ("LOGIN", "auth_password: pw", "LOGIN u pw"),
        // RFC 2195's own challenge, secret and digest.
        ("CRAM-MD5 PLAIN", "auth_secret: tanstaaftanstaaf", "CRAM-MD5 u b913a602c7eda7a495b4e6e7334d3890"),
    ] {
        let sink = SmtpSink::start(Setup { starttls: true, auth: offered, ..Setup::default() }).await;
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, &sink.ca_pem).unwrap();
        let more = format!(", auth_username: u, {login}, tls_config: {{ca_file: '{}'}}", ca.display());
        email(&sink, &more).notify(&two()).await.unwrap_or_else(|error| panic!("{offered}: {error}"));
        let mails = sink.mails();
        assert!(mails[0].encrypted, "{offered}");
        assert_eq!(mails[0].auth.as_deref(), Some(want));
    }
}

#[tokio::test]
async fn implicit_tls_works_and_unknown_certificates_are_refused() {
    let sink = SmtpSink::start(Setup { implicit: true, ..Setup::default() }).await;
    let refused = email(&sink, ", force_implicit_tls: true").notify(&two()).await.unwrap_err();
    assert!(refused.retry && refused.message.starts_with("negotiate TLS: "), "{refused}");
    email(&sink, ", force_implicit_tls: true, tls_config: {insecure_skip_verify: true}")
        .notify(&two())
        .await
        .unwrap();
    assert!(sink.mails()[0].encrypted);
}

#[tokio::test]
async fn require_tls_refuses_servers_without_it_and_is_the_default() {
    let sink = SmtpSink::start(Setup::default()).await;
    let error = email(&sink, "").notify(&two()).await.unwrap_err();
    assert!(error.message.contains("does not advertise the STARTTLS extension"), "{error}");
    assert!(sink.mails().is_empty());
    // Without it nothing is encrypted, also where the server offers it: that is Alertmanager's meaning.
    let sink = SmtpSink::start(Setup { starttls: true, ..Setup::default() }).await;
    email(&sink, ", require_tls: false").notify(&two()).await.unwrap();
    assert!(!sink.mails()[0].encrypted);
}

#[tokio::test]
async fn refused_passwords_and_busy_servers_are_clear_errors_without_secrets() {
    let sink = SmtpSink::start(Setup { auth: "PLAIN", refuse: 1, ..Setup::default() }).await;
    let wrong = email(&sink, ", require_tls: false, auth_username: hunter1, auth_password: wrong");
    let error = wrong.notify(&two()).await.unwrap_err();
    assert!(error.retry && error.message.contains("authentication failed"), "{error}");
    assert!(!error.message.contains("hunter1") && !error.message.contains("d3Jvbmc"), "{error}");
    let none = email(&sink, ", require_tls: false, auth_username: u").notify(&two()).await.unwrap_err();
    assert!(none.message.contains("missing password for PLAIN auth mechanism"), "{none}");
    let right = email(&sink, ", require_tls: false, auth_username: u, auth_password: right");
    let busy = right.notify(&two()).await.unwrap_err();
    assert!(busy.retry && busy.message.contains("try again later"), "{busy}");
    right.notify(&two()).await.unwrap();
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn label_values_cannot_inject_headers_and_wrong_addresses_are_errors() {
    let sink = SmtpSink::start(Setup::default()).await;
    let mut alert = incoming("A", BASE_MS);
    alert.labels.insert("x".to_owned(), "1\r\nBcc: evil@x.example".to_owned());
    let alert = FlushedAlert { alert: Arc::new(alert.into_stored(BASE_MS, 1000).unwrap()), resolved: false };
    let evil = notification(vec![alert], NotificationReason::First);
    email(&sink, ", require_tls: false, html: ''").notify(&evil).await.unwrap();
    let data = &sink.mails()[0].data;
    assert!(!data.lines().any(|line| line.starts_with("Bcc")), "{data}");
    assert!(!data.contains("<!DOCTYPE"), "no HTML part was asked for");
    for (more, message) in [
        ("to: 'no address'", "parse \"to\" addresses"),
        ("from: 'a@x.example, b@x.example'", "must be exactly one from address (got: 2)"),
    ] {
        let receiver = format!(
            "email_configs: [{{{}, smarthost: 'localhost:{}'}}]",
            if more.starts_with("to") {
                format!("{more}, from: a@x.example")
            } else {
                format!("to: a@x.example, {more}")
            },
            sink.port
        );
        let error = integrations(&receiver, "").remove(0).notify(&two()).await.unwrap_err();
        assert!(!error.retry && error.message.contains(message), "{error}");
    }
}

#[tokio::test]
async fn threads_of_mails_share_a_root() {
    let sink = SmtpSink::start(Setup::default()).await;
    let daily = email(&sink, ", require_tls: false, threading: {enabled: true}");
    daily.notify(&two()).await.unwrap();
    daily.notify(&two()).await.unwrap();
    email(&sink, ", require_tls: false, threading: {enabled: true, thread_by_date: none}")
        .notify(&two())
        .await
        .unwrap();
    let mails = sink.mails();
    let root = |index: usize| header(&mails[index].data, "References").to_owned();
    assert_eq!(root(0), root(1));
    assert!(root(0).ends_with("-2023-11-14@alertmanager>"), "{}", root(0));
    assert!(root(2).ends_with("-@alertmanager>"), "{}", root(2));
    assert_eq!(header(&mails[0].data, "In-Reply-To"), root(0));
    assert_ne!(header(&mails[0].data, "Message-Id"), header(&mails[1].data, "Message-Id"));
}

// ---- all together, in real time ----

#[tokio::test]
async fn firing_and_resolved_reach_both_receivers() {
    let (http, smtp) =
        (HttpSink::start().await, SmtpSink::start(Setup { refuse: 1, ..Setup::default() }).await);
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!(
        "route: {{receiver: r, group_by: [alertname], group_wait: 20ms, group_interval: 300ms}}\n\
         receivers:\n- name: r\n  webhook_configs: [{{url: '{}'}}]\n  email_configs: [{{to: a@x.example, from: b@x.example, smarthost: 'localhost:{}', require_tls: false, send_resolved: true}}]\n",
        http.url("/hook"),
        smtp.port
    );
    http.answers.lock().push((500, None, "busy"));
    let clock = Arc::new(PausedClock::new());
    let deps = Deps {
        clock: Arc::clone(&clock) as Arc<dyn model::Clock>,
        random: Arc::new(SeededRandom::new(3)),
        registry: prometheus::Registry::new(),
        state_dir: Some(dir.path().to_owned()),
        external_url: "http://am.example/".to_owned(),
        cluster: None,
        integrations: None,
        options: Options::default(),
    };
    let am = Alertmanager::start(config(&yaml), deps).await.unwrap();
    let now = || model::Clock::now_ms(&*clock);
    am.put(vec![incoming("A{queue=q}", now())]);
    until(|| http.requests().len() == 2 && smtp.mails().len() == 1).await;
    am.put(vec![incoming("A{queue=q} starts=none ends=0", now())]);
    until(|| http.requests().len() == 3 && smtp.mails().len() == 2).await;
    let statuses: Vec<String> = http
        .requests()
        .iter()
        .map(|r| {
            serde_json::from_str::<serde_json::Value>(&r.body).unwrap()["status"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(statuses, ["firing", "firing", "resolved"], "the 500 was retried");
    assert_eq!(header(&smtp.mails()[1].data, "Subject"), "[RESOLVED] A (q)");
    assert!(am.stop().await);
    assert!(Path::new(&dir.path().join("state.json.lz4")).exists());
}

async fn until(done: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("it happens within ten seconds");
}

#[test]
fn errors_are_plain_texts() {
    assert_eq!(NotifyError::retryable("x").to_string(), "x");
}

// ---- the reactor stays free ----

/// Blocks its thread until another task of the same, single-threaded, reactor has run.
#[derive(Debug)]
struct Gate {
    opened: parking_lot::Mutex<std::sync::mpsc::Receiver<()>>,
    was_stuck: std::sync::atomic::AtomicBool,
}

impl Gate {
    fn new() -> (std::sync::mpsc::SyncSender<()>, Arc<Self>) {
        let (open, opened) = std::sync::mpsc::sync_channel(1);
        (open, Arc::new(Self { opened: parking_lot::Mutex::new(opened), was_stuck: false.into() }))
    }

    fn pass(&self) {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        if self.opened.lock().recv_timeout(Duration::from_secs(2)) == Err(Timeout) {
            self.was_stuck.store(true, std::sync::atomic::Ordering::Release);
        }
    }

    fn was_stuck(&self) -> bool {
        self.was_stuck.load(std::sync::atomic::Ordering::Acquire)
    }
}

impl alertmanager::random::Random for Gate {
    fn next_u64(&self) -> u64 {
        self.pass();
        7
    }
}

impl alertmanager::notify::IntegrationFactory for Gate {
    fn build(
        &self,
        _: &alertmanager::config::IntegrationConfig,
        _: &Arc<Templates>,
    ) -> Result<Box<dyn Integration>, String> {
        self.pass();
        Err("built".to_owned())
    }
}

#[tokio::test(flavor = "current_thread")]
async fn rendering_does_not_block_the_reactor() {
    let yaml = "route: {receiver: r}\nreceivers:\n- {name: r, email_configs: [{to: a@x.example, from: b@x.example, \
                smarthost: 'localhost:1', require_tls: false}]}\n";
    let config = config(yaml);
    let (open, gate) = Gate::new();
    let random = Arc::clone(&gate) as Arc<dyn alertmanager::random::Random>;
    let factory = StandardIntegrations { external_url: Arc::from(""), random };
    let templates = Arc::new(Templates::new(&config.templates).unwrap());
    let mail = factory.build(&config.receivers[0].integrations[0], &templates).unwrap();
    let message = two();
    // Nobody listens: that it is tried says that it was rendered.
    let (sent, ()) = tokio::join!(mail.notify(&message), async move { drop(open) });
    assert!(sent.unwrap_err().retry && !gate.was_stuck());
}

#[tokio::test(flavor = "current_thread")]
async fn building_a_configuration_does_not_block_the_reactor() {
    let (open, gate) = Gate::new();
    let deps = Deps {
        clock: Arc::new(PausedClock::new()),
        random: Arc::new(SeededRandom::new(1)),
        registry: prometheus::Registry::new(),
        state_dir: None,
        external_url: String::new(),
        cluster: None,
        integrations: Some(Arc::clone(&gate) as Arc<dyn alertmanager::notify::IntegrationFactory>),
        options: Options::default(),
    };
    let yaml = "route: {receiver: r}\nreceivers: [{name: r, webhook_configs: [{url: 'http://h/'}]}]";
    let (started, ()) = tokio::join!(Alertmanager::start(config(yaml), deps), async move { drop(open) });
    assert!(started.unwrap_err().to_string().contains("built") && !gate.was_stuck());
}

/// A file that is no secret is refused, and a pipe does not hold a thread for ever.
#[tokio::test]
async fn files_of_secrets_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    let webhook = &integrations(&format!("webhook_configs: [{{url_file: '{}'}}]", file.display()), "")[0];
    std::fs::write(&file, vec![b'a'; 65 << 10]).unwrap();
    let error = webhook.notify(&two()).await.unwrap_err();
    assert!(error.message.contains("larger than 65536 bytes"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&file).unwrap();
    let error = webhook.notify(&two()).await.unwrap_err();
    assert!(error.message.contains("not a plain file"), "{error}");
}
