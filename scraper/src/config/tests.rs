//! What is accepted, what is refused, and where.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{ConfigPath, ManualClock};

use super::*;
use crate::collector::{CollectorFactory, JobSettings};
use crate::exposition::{Format, PageFormat};

struct Redis;

impl CollectorFactory for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn build(
        &self,
        _job: &JobSettings,
        options: &serde_yaml::Value,
        path: &ConfigPath,
    ) -> Result<Arc<dyn crate::collector::Collector>, model::ConfigError> {
        Err(model::ConfigError::new(path, format!("got {}", serde_yaml::to_string(options).unwrap().trim())))
    }
}

fn build_with(global: &str, job: &str) -> Result<ScrapeConfig, String> {
    let global: RawGlobalConfig = serde_yaml::from_str(global).map_err(|error| error.to_string())?;
    let defaults =
        global.scrape_defaults(&ConfigPath::root().key("global")).map_err(|error| error.to_string())?;
    let raw: RawScrapeConfig = serde_yaml::from_str(job).map_err(|error| error.to_string())?;
    let context = BuildContext {
        dir: Path::new("/etc/nilometer"),
        defaults: &defaults,
        collectors: &[Arc::new(Redis)],
        clock: Arc::new(ManualClock::new(0)),
    };
    raw.build(&ConfigPath::root().key("scrape_configs").index(0), &context).map_err(|error| error.to_string())
}

fn build(job: &str) -> Result<ScrapeConfig, String> {
    build_with("{}", job)
}

#[test]
fn defaults_are_those_of_prometheus() {
    let config = build("job_name: a").unwrap();
    assert_eq!(
        (config.scrape_interval, config.scrape_timeout),
        (Duration::from_secs(60), Duration::from_secs(10))
    );
    assert_eq!((config.metrics_path.as_str(), config.scheme.as_str()), ("/metrics", "http"));
    assert_eq!(config.scrape_protocols, ScrapeProtocol::DEFAULT);
    assert!(config.honor_timestamps && config.enable_compression && !config.honor_labels);
    assert_eq!(config.name_escaping, NameEscaping::AllowUtf8);
    assert_eq!(config.limits, ScrapeLimits::default());
}

#[test]
fn global_settings_hold_unless_the_job_says_otherwise() {
    let global = "{scrape_interval: 5s, sample_limit: 10, body_size_limit: 1MB, metric_name_validation_scheme: legacy, \
                   evaluation_interval: 1m, external_labels: {a: b}}";
    let config = build_with(global, "{job_name: a, sample_limit: 20}").unwrap();
    assert_eq!(
        (config.scrape_interval, config.scrape_timeout),
        (Duration::from_secs(5), Duration::from_secs(5))
    );
    assert_eq!((config.limits.samples, config.limits.body_size), (20, 1 << 20));
    assert_eq!(config.name_escaping, NameEscaping::Underscores);
    let config =
        build_with(global, "{job_name: a, metric_name_validation_scheme: utf8, scrape_interval: 2s}")
            .unwrap();
    assert_eq!(
        (config.name_escaping, config.scrape_timeout),
        (NameEscaping::AllowUtf8, Duration::from_secs(2))
    );
}

#[test]
fn mistakes_are_found_where_they_are() {
    let cases = [
        ("{}", "scrape_configs[0].job_name: job_name is empty"),
        ("{job_name: a, scrape_intervall: 5s}", "unknown field `scrape_intervall`"),
        (
            "{job_name: a, scrape_interval: 5s, scrape_timeout: 6s}",
            "scrape timeout greater than scrape interval",
        ),
        (
            "{job_name: a, scrape_protocols: [Foo]}",
            "scrape_configs[0].scrape_protocols[0]: unknown scrape protocol Foo",
        ),
        ("{job_name: a, scrape_protocols: []}", "scrape_protocols cannot be empty"),
        (
            "{job_name: a, scrape_protocols: [PrometheusText0.0.4, PrometheusText0.0.4]}",
            "duplicated protocol",
        ),
        (
            "{job_name: a, metric_name_validation_scheme: legacy, metric_name_escaping_scheme: allow-utf-8}",
            "utf8 metric names requested",
        ),
        (
            "{job_name: a, static_configs: [{targets: ['ok:1', 'http://x/y']}]}",
            "scrape_configs[0].static_configs[0].targets[1]: \"http://x/y\" is not a valid hostname",
        ),
        ("{job_name: a, static_configs: [{target: ['x']}]}", "unknown field `target`"),
        (
            "{job_name: a, azure_sd_configs: [{role: x}]}",
            "scrape_configs[0].azure_sd_configs: discovery kind azure is not supported yet",
        ),
        (
            "{job_name: a, kubernetes_sd_configs: [{role: pod}, {role: x}]}",
            "scrape_configs[0].kubernetes_sd_configs[1].role: unknown Kubernetes SD role",
        ),
        (
            "{job_name: a, file_sd_configs: [{files: [x.txt]}]}",
            "scrape_configs[0].file_sd_configs[0].files[0]: path name",
        ),
        ("{job_name: a, relabel_configs: [{action: frobnicate}]}", "scrape_configs[0].relabel_configs[0]"),
        ("{job_name: a, scheme: gopher}", "scrape_configs[0].scheme"),
        (
            "{job_name: a, collector: kafka}",
            "scrape_configs[0].collector: unknown collector \"kafka\", known are: redis",
        ),
        (
            "{job_name: a, collector: redis, collector_options: {db: 1}}",
            "scrape_configs[0].collector_options: got db: 1",
        ),
        ("{job_name: a, collector_options: {db: 1}}", "collector_options need a collector"),
        (
            "{job_name: a, basic_auth: {username: u, password: p}, authorization: {credentials: c}}",
            "at most one of",
        ),
        ("{job_name: a, fallback_scrape_protocol: Protobuf}", "unknown scrape protocol Protobuf"),
    ];
    for (job, expected) in cases {
        let error = build(job).unwrap_err();
        assert!(error.contains(expected), "{job}: {error}");
    }
    let error = build_with("{scrape_interval: 5s, scrape_timeout: 6s}", "{job_name: a}").unwrap_err();
    assert_eq!(error, "global.scrape_timeout: global scrape timeout greater than scrape interval");
    assert!(build("{job_name: a, static_configs: [{targets: ['http://x/y']}], relabel_configs: [{regex: x, action: labeldrop}]}").is_ok());
}

#[test]
fn http_settings_of_a_collector_are_refused() {
    // Without this, somebody who asks for TLS would send the password in the open.
    let cases = [
        ("tls_config: {insecure_skip_verify: true}", "tls_config", "plain TCP"),
        ("scheme: https", "scheme", "plain TCP"),
        ("basic_auth: {username: u, password: p}", "basic_auth", "no HTTP"),
        ("authorization: {credentials: c}", "authorization", "no HTTP"),
        ("oauth2: {client_id: c, token_url: 'http://t'}", "oauth2", "no HTTP"),
        ("bearer_token: t", "bearer_token", "no HTTP"),
        ("bearer_token_file: t", "bearer_token_file", "no HTTP"),
        ("http_headers: {X-A: {values: [b]}}", "http_headers", "no HTTP"),
        ("proxy_url: 'http://p:1'", "proxy_url", "no HTTP"),
        ("no_proxy: p", "no_proxy", "no HTTP"),
        ("proxy_from_environment: true", "proxy_from_environment", "no HTTP"),
        ("proxy_connect_header: {A: [b]}", "proxy_connect_header", "no HTTP"),
        ("body_size_limit: 1MB", "body_size_limit", "no HTTP"),
    ];
    for (setting, key, why) in cases {
        let job = format!("{{job_name: a, collector: redis, {setting}}}");
        let error = build(&job).unwrap_err();
        assert_eq!(
            error,
            format!("scrape_configs[0].{key}: the redis collector speaks {why}: {key} has no effect here")
        );
    }
    let harmless = "{job_name: a, collector: redis, scheme: http, proxy_from_environment: false}";
    assert_eq!(build(harmless).unwrap_err(), "scrape_configs[0].collector_options: got null");
    let global = build_with("{body_size_limit: 1MB}", "{job_name: a, collector: redis}").unwrap_err();
    assert_eq!(global, "scrape_configs[0].collector_options: got null", "global settings are for all jobs");
}

#[test]
fn a_job_as_written_shows_no_passwords() {
    let job = "{job_name: a, collector: redis, collector_options: {password: hunter2}, \
                basic_auth: {username: u, password: hunter2}, authorization: {credentials: hunter2}, \
                bearer_token: hunter2, http_headers: {X: {secrets: [hunter2]}}, \
                oauth2: {client_id: c, client_secret: hunter2, token_url: u}, \
                proxy_connect_header: {A: [hunter2]}, tls_config: {key: hunter2}, \
                consul_sd_configs: [{password: hunter2}], http_sd_configs: [{basic_auth: {password: hunter2}}]}";
    let raw: RawScrapeConfig = serde_yaml::from_str(job).unwrap();
    let shown = format!("{raw:?} {raw:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("collector_options: Some(<yaml>)"), "{shown}");
    let other: RawScrapeConfig = serde_yaml::from_str(&job.replace("{password: hunter2},", "{},")).unwrap();
    assert_ne!(raw, other, "a changed option is a changed job");
}

#[test]
fn job_names_are_unique() {
    let path = ConfigPath::root().key("scrape_configs");
    let (a, b) = (path.index(0), path.index(1));
    assert!(check_job_names([("x", &a), ("y", &b)]).is_ok());
    let error = check_job_names([("x", &a), ("x", &b)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "scrape_configs[1].job_name: found multiple scrape configs with job name \"x\""
    );
}

#[test]
fn a_full_job_is_read_and_compared() {
    let job = r#"
job_name: full
scrape_interval: 15s
scrape_timeout: 5s
scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0]
fallback_scrape_protocol: PrometheusText0.0.4
honor_labels: true
honor_timestamps: false
track_timestamps_staleness: true
metrics_path: /m
scheme: https
params: {module: [http_2xx, b], target: ["1"]}
enable_compression: false
body_size_limit: 10MB
sample_limit: 1
target_limit: 2
label_limit: 3
label_name_length_limit: 4
label_value_length_limit: 5
keep_dropped_targets: 6
native_histogram_bucket_limit: 7
native_histogram_min_bucket_factor: 1.1
always_scrape_classic_histograms: true
convert_classic_histograms_to_nhcb: true
scrape_native_histograms: true
extra_scrape_metrics: true
follow_redirects: false
basic_auth: {username: me, password: hunter2}
tls_config: {insecure_skip_verify: true}
static_configs:
  - targets: [a:1, b:2]
    labels: {shard: 0, on: true}
file_sd_configs:
  - files: [targets/*.yml]
    refresh_interval: 1m
relabel_configs:
  - source_labels: [__address__]
    target_label: host
metric_relabel_configs:
  - {regex: tmp, action: labeldrop}
"#;
    let config = build(job).unwrap();
    assert_eq!(config.discovery.len(), 2);
    assert_eq!(config.fallback_format, Some(PageFormat::Text(Format::Text)));
    assert_eq!(config.limits.keep_dropped_targets, 6);
    assert_eq!(config.warnings, Vec::<String>::new());
    let histograms = &config.histograms;
    assert!(histograms.native && histograms.keep_classic && histograms.convert);
    assert_eq!((histograms.buckets_max, histograms.schema_max), (7, 2));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.same_as(&build(job).unwrap()));
    let changed = build(&job.replace("hunter2", "hunter3")).unwrap();
    assert!(!config.same_as(&changed) && config.same_series_as(&changed) && config.same_discovery(&changed));
    let changed = build(&job.replace("regex: tmp", "regex: temp")).unwrap();
    assert!(!config.same_series_as(&changed));
    let changed = build(&job.replace("b:2", "b:3")).unwrap();
    assert!(!config.same_discovery(&changed) && !config.same_as(&changed));
}

#[test]
fn protobuf_is_asked_for_where_native_histograms_are_wanted() {
    let protocols = |global: &str, job: &str| build_with(global, job).unwrap().scrape_protocols;
    let native = "{job_name: a, scrape_native_histograms: true}";
    assert_eq!(protocols("{}", native), ScrapeProtocol::PROTO_FIRST);
    assert_eq!(protocols("{scrape_native_histograms: true}", "{job_name: a}"), ScrapeProtocol::PROTO_FIRST);
    assert_eq!(
        protocols("{scrape_native_histograms: true}", "{job_name: a, scrape_native_histograms: false}"),
        ScrapeProtocol::DEFAULT
    );
    let text = [ScrapeProtocol::Text0_0_4];
    assert_eq!(protocols("{scrape_protocols: [PrometheusText0.0.4]}", native), text);
    let job = "{job_name: a, fallback_scrape_protocol: PrometheusProto}";
    let config = build_with("{always_scrape_classic_histograms: true}", job).unwrap();
    assert_eq!(config.fallback_format, Some(PageFormat::Protobuf));
    assert!(config.histograms.keep_classic && !config.histograms.native);
}

#[test]
fn files_with_jobs_are_found_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.yml", "a.yml", "c.txt"] {
        std::fs::write(dir.path().join(name), "scrape_configs: [{job_name: x}]").unwrap();
    }
    let patterns = ["*.yml".to_owned(), "a.*".to_owned()];
    let files = scrape_config_files(&patterns, dir.path(), &ConfigPath::root()).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.yml", "b.yml"]);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let raw: RawScrapeConfigFile = serde_yaml::from_str(&text).unwrap();
    assert_eq!(raw.scrape_configs.unwrap()[0].job_name, "x");
}

#[test]
fn the_whole_client_block_is_read_and_its_errors_have_places() {
    build(
        "{job_name: a, oauth2: {client_id: c, client_secret: s, token_url: 'http://t', scopes: [x], tls_config: {ca_file: ca}}, \
         proxy_url: 'socks5://u:p@h', no_proxy: '10.0.0.0/8,x', enable_http2: false, http_headers: {X-A: {files: [f]}}}",
    )
    .unwrap();
    build("{job_name: a, proxy_from_environment: true, proxy_connect_header: {A: [b]}}").unwrap();
    for (block, expected) in [
        ("oauth2: {client_id: c}", "scrape_configs[0].oauth2: oauth2 token_url must be configured"),
        ("no_proxy: x", "scrape_configs[0]: if no_proxy is configured, proxy_url must also be configured"),
        (
            "http_headers: {Host: {values: [x]}}",
            "scrape_configs[0].http_headers.Host: setting header \"Host\" is not allowed",
        ),
    ] {
        assert_eq!(build(&format!("{{job_name: a, {block}}}")).unwrap_err(), expected);
    }
}
