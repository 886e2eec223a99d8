//! `dns_sd_configs`: targets from DNS names (SRV, A, AAAA, MX, NS).
//!
//! Each name is a target group. A name that no server knows has no targets; a name of which nobody can tell keeps the
//! targets it had ([`lookup`] says which is which). `/etc/resolv.conf` is read for each refresh, as in Prometheus.

mod lookup;
mod resolv_conf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use hickory_proto::rr::{RData, RecordType};
use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Labels};
use serde::Deserialize;

use super::client::{join_host_port, refresh_interval};
use super::refresh::{Refresh, RefreshError, Refresher};
use super::trouble::Trouble;
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, SdMetrics, TargetGroup, is_equal};
use resolv_conf::ResolvConf;

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(30);
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Most names of one entry.
const NAMES_MAX: usize = 10_000;
/// Names that are asked for at the same time.
const LOOKUPS_AT_ONCE: usize = 32;
/// Most failures that are told of one by one to those who look at the job.
const FAILURES_SHOWN: usize = 5;

/// An entry of `dns_sd_configs` as written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawDnsSdConfig {
    /// Names to look up.
    pub names: Option<Vec<String>>,
    /// How often.
    pub refresh_interval: Option<PromDuration>,
    /// Kind of record, `SRV` if not given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Port of targets whose records have none.
    pub port: Option<u16>,
}

/// A valid entry of `dns_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsSdConfig {
    names: Vec<String>,
    refresh_interval: Duration,
    record_type: RecordType,
    port: u16,
    resolv_conf: PathBuf,
    /// How long one server has for one answer (Prometheus' DNS client: 2 s).
    server_timeout: Duration,
}

impl RawDnsSdConfig {
    /// Checks the entry. It names no files, so the folder they would be in does not matter.
    ///
    /// # Errors
    /// When there is no name, the type is not known, or a port is missing.
    pub fn build(self, path: &ConfigPath, _dir: &Path) -> Result<DnsSdConfig, ConfigError> {
        let names = self.names.unwrap_or_default();
        if names.is_empty() {
            return Err(ConfigError::new(path, "DNS-SD config must contain at least one SRV record name"));
        }
        if names.len() > NAMES_MAX {
            return Err(ConfigError::new(
                &path.key("names"),
                format!("{} names, more than {NAMES_MAX}", names.len()),
            ));
        }
        let kind = self.kind.unwrap_or_else(|| "SRV".to_owned());
        let record_type = match kind.to_ascii_uppercase().as_str() {
            "SRV" => RecordType::SRV,
            "A" => RecordType::A,
            "AAAA" => RecordType::AAAA,
            "MX" => RecordType::MX,
            "NS" => RecordType::NS,
            _ => {
                return Err(ConfigError::new(
                    &path.key("type"),
                    format!("invalid DNS-SD records type {kind}"),
                ));
            }
        };
        let port = self.port.unwrap_or(0);
        if record_type != RecordType::SRV && port == 0 {
            return Err(ConfigError::new(
                path,
                "a port is required in DNS-SD configs for all record types except SRV",
            ));
        }
        Ok(DnsSdConfig {
            names,
            refresh_interval: refresh_interval(self.refresh_interval.unwrap_or(REFRESH_INTERVAL), path)?,
            record_type,
            port,
            resolv_conf: PathBuf::from(RESOLV_CONF),
            server_timeout: Duration::from_secs(2),
        })
    }
}

impl DiscoveryConfig for DnsSdConfig {
    fn kind(&self) -> &'static str {
        "dns"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let source = DnsTargets {
            config: self.clone(),
            metrics: Arc::clone(&context.metrics),
            last: BTreeMap::new(),
            partial: context.metrics.trouble(&context.job_name, "dns"),
        };
        Box::new(Refresher::new("dns", self.refresh_interval, context, source))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        format!("{self:?}")
    }
}

struct DnsTargets {
    config: DnsSdConfig,
    metrics: Arc<SdMetrics>,
    /// Groups by name, for names that cannot be looked up for a while.
    last: BTreeMap<String, TargetGroup>,
    /// Names that cannot be looked up while others can: the refresh works, and some of its targets are old.
    partial: Trouble,
}

impl Refresh for DnsTargets {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            let config = &self.config;
            let servers = ResolvConf::read(&config.resolv_conf).await;
            if servers.is_err() {
                let names = config.names.len() as u64;
                self.metrics.dns_lookups.inc_by(names);
                self.metrics.dns_lookup_failures.inc_by(names);
                // This concerns all names, and the refresh itself says so.
                self.partial.ends();
            }
            let servers = servers.map_err(RefreshError::Other)?;
            // Boxed at once: a closure over borrowed names would not be general enough for a boxed future.
            let lookups: Vec<BoxFuture<'_, (&String, Result<TargetGroup, String>)>> = config
                .names
                .iter()
                .map(|name| {
                    let servers = &servers;
                    async move { (name, config.group(name, servers).await) }.boxed()
                })
                .collect();
            let results: Vec<_> = stream::iter(lookups).buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
            let mut failed = BTreeMap::new();
            let mut worked = 0_usize;
            for (name, result) in results {
                self.metrics.dns_lookups.inc();
                match result {
                    Ok(group) => {
                        worked += 1;
                        self.last.insert(name.clone(), group);
                    }
                    Err(error) => {
                        self.metrics.dns_lookup_failures.inc();
                        tracing::warn!(%error, name, "cannot look up DNS targets, keeping the last ones");
                        failed.insert(name, error);
                    }
                }
            }
            if failed.is_empty() {
                self.partial.ends();
            } else if worked > 0 {
                let errors: Vec<&str> = failed.values().take(FAILURES_SHOWN).map(String::as_str).collect();
                self.partial.begins(&format_args!(
                    "cannot look up {} of {} names, keeping their last targets: {}",
                    failed.len(),
                    config.names.len(),
                    errors.join("; ")
                ));
            } else if let Some((_, error)) = failed.pop_first() {
                // The refresh as a whole says so.
                self.partial.ends();
                return Err(RefreshError::Other(error));
            }
            Ok(self.last.values().cloned().collect())
        })
    }
}

impl DnsSdConfig {
    async fn group(&self, name: &str, servers: &ResolvConf) -> Result<TargetGroup, String> {
        let answers = lookup::lookup(name, self.record_type, servers, self.server_timeout).await?;
        let mut targets: Vec<Labels> = answers.iter().filter_map(|data| self.target(name, data)).collect();
        // Servers turn the order of records to spread load: the same set is the same answer.
        targets.sort();
        targets.dedup();
        Ok(TargetGroup { source: name.to_owned(), targets, labels: Labels::empty() })
    }

    fn target(&self, name: &str, data: &RData) -> Option<Labels> {
        let mut srv = (String::new(), String::new());
        let (mut mx, mut ns) = (String::new(), String::new());
        let address = match data {
            RData::SRV(record) => {
                srv = (record.target.to_ascii(), record.port.to_string());
                join_host_port(unrooted(&srv.0), record.port)
            }
            RData::A(record) => join_host_port(&record.0.to_string(), self.port),
            RData::AAAA(record) => join_host_port(&record.0.to_string(), self.port),
            RData::MX(record) => {
                mx = record.exchange.to_ascii();
                join_host_port(unrooted(&mx), self.port)
            }
            RData::NS(record) => {
                ns = record.0.to_ascii();
                join_host_port(unrooted(&ns), self.port)
            }
            // On the way to addresses there may be aliases.
            RData::CNAME(_) => return None,
            other => {
                tracing::warn!(name, kind = %other.record_type(), "record of another type than asked for");
                return None;
            }
        };
        Some(Labels::from_pairs([
            ("__address__", address),
            ("__meta_dns_name", name.to_owned()),
            ("__meta_dns_srv_record_target", srv.0),
            ("__meta_dns_srv_record_port", srv.1),
            ("__meta_dns_mx_record_target", mx),
            ("__meta_dns_ns_record_target", ns),
        ]))
    }
}

/// Without the final dots of a rooted name: as people write it.
fn unrooted(name: &str) -> &str {
    name.trim_end_matches('.')
}
