//! Eureka discovery against a server with recorded and with broken registries.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::{EurekaSdConfig, RawEurekaSdConfig, apps};
use crate::discovery::DiscoveryConfig;
use crate::discovery::testing::{Answer, ApiServer, Running, eventually, place};

const APPS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE applications>
<applications>
  <versions__delta>1</versions__delta>
  <apps__hashcode>UP_2_</apps__hashcode>
  <!-- two of them -->
  <application>
    <name>CONFIG-SERVICE</name>
    <instance>
      <instanceId>config-service001.test.com:config-service:8080</instanceId>
      <hostName>config-service001.test.com</hostName>
      <app>CONFIG-SERVICE</app>
      <ipAddr>192.133.83.31</ipAddr>
      <status>UP</status>
      <overriddenstatus>UNKNOWN</overriddenstatus>
      <port enabled="true">8080</port>
      <securePort enabled="false">8443</securePort>
      <countryId>1</countryId>
      <dataCenterInfo class="com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo">
        <name>MyOwn</name>
        <metadata><zone.id>a</zone.id></metadata>
      </dataCenterInfo>
      <leaseInfo><renewalIntervalInSecs>30</renewalIntervalInSecs></leaseInfo>
      <metadata>
        <instanceId>config-service001.test.com:config-service:8080</instanceId>
        <team-name>a &amp; b</team-name>
        <empty/>
        <nested><x>1</x></nested>
      </metadata>
      <homePageUrl>http://config-service001.test.com:8080/?a=1&amp;b=&#50;</homePageUrl>
      <statusPageUrl><![CDATA[http://config-service001.test.com:8080/info?a&b]]></statusPageUrl>
      <healthCheckUrl>http://config-service001.test.com:8080/health</healthCheckUrl>
      <vipAddress>config-service</vipAddress>
      <secureVipAddress>config-service-tls</secureVipAddress>
    </instance>
  </application>
  <application>
    <name>META-SERVICE</name>
    <instance><hostName>meta-service002.test.com</hostName></instance>
  </application>
</applications>
"#;

fn build(yaml: &str) -> Result<EurekaSdConfig, String> {
    let raw: RawEurekaSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    let (path, dir) = place();
    raw.build(&path, dir).map_err(|error| error.to_string())
}

#[test]
fn an_instance_has_all_its_labels() {
    let group = apps::group(APPS.as_bytes()).unwrap();
    assert_eq!((group.source.as_str(), group.targets.len()), ("eureka", 2));
    let name = "config-service001.test.com";
    assert_eq!(
        group.targets[0].to_string(),
        format!(r#"{{__address__="{name}:8080", __meta_eureka_app_instance_country_id="1", "#)
            + r#"__meta_eureka_app_instance_datacenterinfo_metadata_zone_id="a", __meta_eureka_app_instance_datacenterinfo_name="MyOwn", "#
            + &format!(r#"__meta_eureka_app_instance_healthcheck_url="http://{name}:8080/health", "#)
            + &format!(r#"__meta_eureka_app_instance_homepage_url="http://{name}:8080/?a=1&b=2", "#)
            + &format!(
                r#"__meta_eureka_app_instance_hostname="{name}", __meta_eureka_app_instance_id="{name}:config-service:8080", "#
            )
            + r#"__meta_eureka_app_instance_ip_addr="192.133.83.31", "#
            + &format!(r#"__meta_eureka_app_instance_metadata_instanceId="{name}:config-service:8080", "#)
            + r#"__meta_eureka_app_instance_metadata_nested="<x>1</x>", __meta_eureka_app_instance_metadata_team_name="a &amp; b", "#
            + r#"__meta_eureka_app_instance_port="8080", __meta_eureka_app_instance_port_enabled="true", "#
            + r#"__meta_eureka_app_instance_secure_port="8443", __meta_eureka_app_instance_secure_port_enabled="false", "#
            + r#"__meta_eureka_app_instance_secure_vip_address="config-service-tls", __meta_eureka_app_instance_status="UP", "#
            + &format!(r#"__meta_eureka_app_instance_statuspage_url="http://{name}:8080/info?a&b", "#)
            + r#"__meta_eureka_app_instance_vip_address="config-service", __meta_eureka_app_name="CONFIG-SERVICE", "#
            + &format!(r#"instance="{name}:config-service:8080"}}"#)
    );
    assert_eq!(
        group.targets[1].to_string(),
        r#"{__address__="meta-service002.test.com:80", __meta_eureka_app_instance_country_id="0", "#
            .to_owned()
            + r#"__meta_eureka_app_instance_hostname="meta-service002.test.com", __meta_eureka_app_name="META-SERVICE"}"#
    );
}

#[test]
fn broken_registries_are_refused() {
    let instance = |inner: &str| format!("<a><application><instance>{inner}</instance></application></a>");
    let deep = "<a>".repeat(100);
    let cases = [
        (String::new(), "unexpected end"),
        ("{}".to_owned(), "unexpected end"),
        ("<applications><application>".to_owned(), "unexpected end"),
        ("<a></b>".to_owned(), "expected"),
        (instance("<port>http</port>"), "\"http\" is no number"),
        (instance("<port enabled=\"yes\">1</port>"), "neither true nor false"),
        (instance("<countryId>1.5</countryId>"), "is no number"),
        (instance("<hostName>&boom;</hostName>"), "unknown entity \"boom\""),
        (deep, "more than 32 elements within each other"),
    ];
    for (xml, expected) in cases {
        let error = apps::group(xml.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{xml}: {error}");
    }
    assert!(apps::group(b"<a>\xff</a>").is_err());
    assert!(apps::group(b"<applications/>").unwrap().targets.is_empty());
}

proptest! {
    #[test]
    fn nothing_panics(cut in 0..APPS.len(), byte: u8, at in 0..APPS.len()) {
        let mut bytes = APPS.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = apps::group(&bytes);
        bytes.truncate(cut);
        let _ = apps::group(&bytes);
    }
}

#[tokio::test]
async fn targets_come_stay_and_go() {
    let answer = Arc::new(Mutex::new(Answer::new(200, APPS)));
    let now = Arc::clone(&answer);
    let server = ApiServer::start(move |_| now.lock().clone()).await;
    let url = server.url("/eureka").replace("http://", "http://me:hunter2@");
    let config = build(&format!("{{server: '{url}', refresh_interval: 10ms}}")).unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(running.addresses(), ["config-service001.test.com:8080", "meta-service002.test.com:80"]);
    let asked = server.asked().remove(0);
    assert_eq!((asked.path.as_str(), asked.header("accept")), ("/eureka/apps", "application/xml"));
    assert_eq!(asked.header("authorization"), "Basic bWU6aHVudGVyMg==");
    assert!(!config.identity().contains("hunter2"));

    let failures = running.metrics.refresh_failures.with_label_values(&["eureka", "job"]);
    let bad = [
        Answer::new(503, APPS),
        Answer::new(200, ""),
        Answer::new(200, &APPS[..500]),
        Answer::json(r#"{"applications": {}}"#),
    ];
    for bad in bad {
        let before = failures.get();
        *answer.lock() = bad;
        eventually("failures", || failures.get() > before + 1).await;
        assert!(!running.has_spoken());
    }
    *answer.lock() = Answer::new(200, APPS);
    let before = server.asked().len();
    eventually("good answers", || server.asked().len() > before + 2).await;
    assert!(!running.has_spoken(), "it flapped back to what it was");
    *answer.lock() = Answer::new(200, "<applications/>");
    running.next().await;
    assert!(running.targets().is_empty());
}

#[test]
fn settings_are_checked_with_the_words_of_prometheus() {
    let config = build("{server: 'http://e:8761/eureka'}").unwrap();
    assert_eq!(config.url.as_str(), "http://e:8761/eureka/apps");
    assert_eq!(config.refresh_interval, Duration::from_secs(30));
    let cases = [
        ("{}", "sd[0]: eureka_sd: empty or null eureka server"),
        ("{server: localhost}", "sd[0].server: eureka_sd: invalid eureka server URL"),
        ("{server: 'http:///eureka', refresh_interval: 0s}", "sd[0]"),
        ("{server: 'http://e', refresh_interval: 0s}", "refresh interval must be greater than 0"),
        ("{servers: []}", "unknown field `servers`"),
    ];
    for (yaml, expected) in cases {
        let error = build(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}
