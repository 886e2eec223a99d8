//! A scrape job as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::Secret;
use model::config::{ByteSize, PromDuration};
use model::relabel::RawRelabelConfig;
use net::http::{RawAuthorization, RawBasicAuth, RawHttpClientConfig, RawHttpHeader, RawOauth2};
use net::tls::RawTlsConfig;
use serde::Deserialize;

use super::Opaque;
pub use crate::discovery::RawTargetGroup;
use crate::discovery::{
    RawAwsSdConfig, RawConsulSdConfig, RawDnsSdConfig, RawDockerSdConfig, RawDockerSwarmSdConfig,
    RawEc2SdConfig, RawEurekaSdConfig, RawFileSdConfig, RawHttpSdConfig, RawKubernetesSdConfig,
    RawNomadSdConfig,
};

/// An entry of `scrape_configs`. Keys are Prometheus', and our `collector` and `collector_options`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is the configuration key of its name")]
pub struct RawScrapeConfig {
    #[serde(default)]
    pub job_name: String,
    pub scrape_interval: Option<PromDuration>,
    pub scrape_timeout: Option<PromDuration>,
    pub scrape_protocols: Option<Vec<String>>,
    pub fallback_scrape_protocol: Option<String>,
    pub scrape_native_histograms: Option<bool>,
    pub always_scrape_classic_histograms: Option<bool>,
    pub convert_classic_histograms_to_nhcb: Option<bool>,
    pub extra_scrape_metrics: Option<bool>,
    pub honor_labels: Option<bool>,
    pub honor_timestamps: Option<bool>,
    pub track_timestamps_staleness: Option<bool>,
    pub metrics_path: Option<String>,
    pub scheme: Option<String>,
    pub params: Option<BTreeMap<String, Vec<String>>>,
    pub enable_compression: Option<bool>,
    pub scrape_failure_log_file: Option<PathBuf>,
    pub metric_name_validation_scheme: Option<String>,
    pub metric_name_escaping_scheme: Option<String>,
    pub body_size_limit: Option<ByteSize>,
    pub sample_limit: Option<u64>,
    pub target_limit: Option<u64>,
    pub label_limit: Option<u64>,
    pub label_name_length_limit: Option<u64>,
    pub label_value_length_limit: Option<u64>,
    pub keep_dropped_targets: Option<u64>,
    pub native_histogram_bucket_limit: Option<u64>,
    pub native_histogram_min_bucket_factor: Option<f64>,
    #[serde(default)]
    pub relabel_configs: Option<Vec<RawRelabelConfig>>,
    #[serde(default)]
    pub metric_relabel_configs: Option<Vec<RawRelabelConfig>>,

    // The HTTP client block, listed here because flattening would lose unknown keys and places.
    pub basic_auth: Option<RawBasicAuth>,
    pub authorization: Option<RawAuthorization>,
    pub oauth2: Option<RawOauth2>,
    pub bearer_token: Option<Secret>,
    pub bearer_token_file: Option<PathBuf>,
    pub tls_config: Option<RawTlsConfig>,
    pub proxy_url: Option<Secret>,
    pub no_proxy: Option<String>,
    pub proxy_from_environment: Option<bool>,
    pub proxy_connect_header: Option<BTreeMap<String, Vec<Secret>>>,
    pub follow_redirects: Option<bool>,
    pub enable_http2: Option<bool>,
    pub http_headers: Option<BTreeMap<String, RawHttpHeader>>,

    pub collector: Option<String>,
    pub collector_options: Option<Opaque>,

    pub static_configs: Option<Vec<RawTargetGroup>>,
    pub ec2_sd_configs: Option<Vec<RawEc2SdConfig>>,
    pub aws_sd_configs: Option<Vec<RawAwsSdConfig>>,
    pub consul_sd_configs: Option<Vec<RawConsulSdConfig>>,
    pub dns_sd_configs: Option<Vec<RawDnsSdConfig>>,
    pub eureka_sd_configs: Option<Vec<RawEurekaSdConfig>>,
    pub file_sd_configs: Option<Vec<RawFileSdConfig>>,
    pub http_sd_configs: Option<Vec<RawHttpSdConfig>>,
    pub docker_sd_configs: Option<Vec<RawDockerSdConfig>>,
    pub dockerswarm_sd_configs: Option<Vec<RawDockerSwarmSdConfig>>,
    pub kubernetes_sd_configs: Option<Vec<RawKubernetesSdConfig>>,
    pub nomad_sd_configs: Option<Vec<RawNomadSdConfig>>,

    // Discovery kinds that are known but not built yet.
    pub azure_sd_configs: Option<Opaque>,
    pub digitalocean_sd_configs: Option<Opaque>,
    pub gce_sd_configs: Option<Opaque>,
    pub hetzner_sd_configs: Option<Opaque>,
    pub ionos_sd_configs: Option<Opaque>,
    pub kuma_sd_configs: Option<Opaque>,
    pub lightsail_sd_configs: Option<Opaque>,
    pub linode_sd_configs: Option<Opaque>,
    pub marathon_sd_configs: Option<Opaque>,
    pub nerve_sd_configs: Option<Opaque>,
    pub oci_sd_configs: Option<Opaque>,
    pub openstack_sd_configs: Option<Opaque>,
    pub outscale_sd_configs: Option<Opaque>,
    pub ovhcloud_sd_configs: Option<Opaque>,
    pub puppetdb_sd_configs: Option<Opaque>,
    pub scaleway_sd_configs: Option<Opaque>,
    pub serverset_sd_configs: Option<Opaque>,
    pub stackit_sd_configs: Option<Opaque>,
    pub triton_sd_configs: Option<Opaque>,
    pub uyuni_sd_configs: Option<Opaque>,
    pub vultr_sd_configs: Option<Opaque>,
}

impl RawScrapeConfig {
    /// The HTTP client block.
    pub(super) fn http_client(&self) -> RawHttpClientConfig {
        let defaults = RawHttpClientConfig::default();
        RawHttpClientConfig {
            basic_auth: self.basic_auth.clone(),
            authorization: self.authorization.clone(),
            oauth2: self.oauth2.clone(),
            bearer_token: self.bearer_token.clone(),
            bearer_token_file: self.bearer_token_file.clone(),
            tls_config: self.tls_config.clone(),
            proxy_url: self.proxy_url.clone(),
            no_proxy: self.no_proxy.clone(),
            proxy_from_environment: self.proxy_from_environment.unwrap_or(defaults.proxy_from_environment),
            proxy_connect_header: self.proxy_connect_header.clone(),
            follow_redirects: self.follow_redirects.unwrap_or(defaults.follow_redirects),
            enable_http2: self.enable_http2.unwrap_or(defaults.enable_http2),
            http_headers: self.http_headers.clone().unwrap_or_default(),
        }
    }

    /// Discovery kinds that are asked for and not built yet, by key.
    pub(super) fn unsupported_discovery(&self) -> Option<&'static str> {
        let kinds = [
            ("azure_sd_configs", &self.azure_sd_configs),
            ("digitalocean_sd_configs", &self.digitalocean_sd_configs),
            ("gce_sd_configs", &self.gce_sd_configs),
            ("hetzner_sd_configs", &self.hetzner_sd_configs),
            ("ionos_sd_configs", &self.ionos_sd_configs),
            ("kuma_sd_configs", &self.kuma_sd_configs),
            ("lightsail_sd_configs", &self.lightsail_sd_configs),
            ("linode_sd_configs", &self.linode_sd_configs),
            ("marathon_sd_configs", &self.marathon_sd_configs),
            ("nerve_sd_configs", &self.nerve_sd_configs),
            ("oci_sd_configs", &self.oci_sd_configs),
            ("openstack_sd_configs", &self.openstack_sd_configs),
            ("outscale_sd_configs", &self.outscale_sd_configs),
            ("ovhcloud_sd_configs", &self.ovhcloud_sd_configs),
            ("puppetdb_sd_configs", &self.puppetdb_sd_configs),
            ("scaleway_sd_configs", &self.scaleway_sd_configs),
            ("serverset_sd_configs", &self.serverset_sd_configs),
            ("stackit_sd_configs", &self.stackit_sd_configs),
            ("triton_sd_configs", &self.triton_sd_configs),
            ("uyuni_sd_configs", &self.uyuni_sd_configs),
            ("vultr_sd_configs", &self.vultr_sd_configs),
        ];
        kinds.into_iter().find(|(_, value)| value.is_some()).map(|(key, _)| key)
    }
}
