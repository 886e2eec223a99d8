//! Entries of `ec2_sd_configs` and `aws_sd_configs`, as written and as valid.

use std::path::Path;
use std::time::Duration;

use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Secret};
use net::http::RawHttpClientConfig;
use serde::Deserialize;
use url::Url;

use super::api::{Account, AwsApi, EC2, ELASTICACHE, KAFKA};
use super::credentials::Wanted;
use super::ec2::Instances;
use super::elasticache::Caches;
use super::environment::Environment;
use super::msk::Brokers;
use crate::discovery::client::{raw_sd_config, refresh_interval};
use crate::discovery::refresh::Refresher;
use crate::discovery::{Discoverer, DiscoveryConfig, DiscoveryContext, is_equal};

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(60);
const PORT: u16 = 80;
/// Requests under way at once, where the entry does not say.
const CONCURRENCY: i64 = 10;
/// Most requests under way at once.
const CONCURRENCY_MAX: usize = 100;

raw_sd_config! {
    /// An entry of `ec2_sd_configs` as written.
    pub struct RawEc2SdConfig {
        pub region: Option<String>,
        pub endpoint: Option<String>,
        pub access_key: Option<String>,
        pub secret_key: Option<Secret>,
        pub profile: Option<String>,
        pub role_arn: Option<String>,
        pub external_id: Option<String>,
        pub refresh_interval: Option<PromDuration>,
        pub port: Option<u16>,
        #[serde(default)]
        pub filters: Vec<Ec2Filter>,
    }
}

raw_sd_config! {
    /// An entry of `aws_sd_configs` as written.
    pub struct RawAwsSdConfig {
        #[serde(default)]
        pub role: String,
        pub region: Option<String>,
        pub endpoint: Option<String>,
        pub access_key: Option<String>,
        pub secret_key: Option<Secret>,
        pub profile: Option<String>,
        pub role_arn: Option<String>,
        pub external_id: Option<String>,
        pub refresh_interval: Option<PromDuration>,
        pub request_concurrency: Option<i64>,
        pub port: Option<u16>,
        #[serde(default)]
        pub filters: Vec<Ec2Filter>,
        #[serde(default)]
        pub clusters: Vec<String>,
    }
}

/// One of `filters`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Ec2Filter {
    /// What is looked at, in AWS' words.
    pub name: String,
    /// Any of these will do.
    pub values: Vec<String>,
}

/// What is discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ec2,
    Msk,
    Elasticache,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Msk => "msk",
            Self::Elasticache => "elasticache",
        }
    }
}

/// What both kinds of entries come to.
#[derive(Clone, Debug, PartialEq)]
struct Valid {
    role: Role,
    account: Account,
    refresh_interval: Duration,
    port: u16,
    filters: Vec<Ec2Filter>,
    clusters: Vec<String>,
    concurrency: usize,
}

/// A valid entry of `ec2_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ec2SdConfig(Valid);

/// A valid entry of `aws_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsSdConfig(Valid);

/// What an entry says about its account.
struct RawAccount<'a> {
    region: &'a Option<String>,
    endpoint: &'a Option<String>,
    access_key: &'a Option<String>,
    secret_key: &'a Option<Secret>,
    profile: &'a Option<String>,
    role_arn: &'a Option<String>,
    external_id: &'a Option<String>,
    http: RawHttpClientConfig,
}

impl RawAccount<'_> {
    fn build(self, path: &ConfigPath, dir: &Path, environment: Environment) -> Result<Account, ConfigError> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let endpoint = set(self.endpoint).map(|text| {
            // As in AWS' SDKs, a host alone will do.
            let whole = if text.contains("://") { text } else { format!("https://{text}") };
            Url::parse(&whole)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| ConfigError::new(&path.key("endpoint"), "is not a valid URL"))
        });
        let region = set(self.region);
        if let Some(region) = &region
            && !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        {
            return Err(ConfigError::new(&path.key("region"), format!("{region:?} is not an AWS region")));
        }
        Ok(Account {
            region,
            endpoint: endpoint.transpose()?,
            wanted: Wanted {
                access_key: set(self.access_key),
                secret_key: self.secret_key.clone().filter(|key| !key.is_empty()),
                profile: set(self.profile),
                role_arn: set(self.role_arn),
                external_id: set(self.external_id),
            },
            http: self.http.build(path, dir)?,
            environment,
        })
    }
}

/// Fields of the same names in both kinds of entries.
macro_rules! account {
    ($raw:ident) => {
        RawAccount {
            region: &$raw.region,
            endpoint: &$raw.endpoint,
            access_key: &$raw.access_key,
            secret_key: &$raw.secret_key,
            profile: &$raw.profile,
            role_arn: &$raw.role_arn,
            external_id: &$raw.external_id,
            http: $raw.http_client(),
        }
    };
}

impl RawEc2SdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// At the key that is wrong.
    pub fn build(&self, path: &ConfigPath, dir: &Path) -> Result<Ec2SdConfig, ConfigError> {
        self.build_in(path, dir, Environment::of_this_process())
    }

    /// [`RawEc2SdConfig::build`] in a given environment.
    pub(super) fn build_in(
        &self,
        path: &ConfigPath,
        dir: &Path,
        environment: Environment,
    ) -> Result<Ec2SdConfig, ConfigError> {
        Ok(Ec2SdConfig(Valid {
            role: Role::Ec2,
            account: account!(self).build(path, dir, environment)?,
            refresh_interval: refresh_interval(self.refresh_interval.unwrap_or(REFRESH_INTERVAL), path)?,
            port: self.port.unwrap_or(PORT),
            filters: filters(&self.filters, path)?,
            clusters: Vec::new(),
            concurrency: 1,
        }))
    }
}

impl RawAwsSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// At the key that is wrong.
    pub fn build(&self, path: &ConfigPath, dir: &Path) -> Result<AwsSdConfig, ConfigError> {
        self.build_in(path, dir, Environment::of_this_process())
    }

    /// [`RawAwsSdConfig::build`] in a given environment.
    pub(super) fn build_in(
        &self,
        path: &ConfigPath,
        dir: &Path,
        environment: Environment,
    ) -> Result<AwsSdConfig, ConfigError> {
        let wrong = |text: String| Err(ConfigError::new(&path.key("role"), text));
        let role = match self.role.as_str() {
            "ec2" => Role::Ec2,
            "msk" => Role::Msk,
            "elasticache" => Role::Elasticache,
            known @ ("ecs" | "lightsail" | "rds") => {
                return wrong(format!("AWS SD role {known} is not supported yet"));
            }
            other => return wrong(format!("unknown AWS SD role {other:?}")),
        };
        let concurrency = self.request_concurrency.unwrap_or(CONCURRENCY);
        let Some(concurrency) = usize::try_from(concurrency).ok().filter(|number| *number > 0) else {
            return Err(ConfigError::new(
                &path.key("request_concurrency"),
                format!("{}_sd: request_concurrency must be positive, got {concurrency}", role.word()),
            ));
        };
        // 0 is "not given", as in Prometheus.
        let interval = self.refresh_interval.filter(|interval| !interval.0.is_zero());
        Ok(AwsSdConfig(Valid {
            role,
            account: account!(self).build(path, dir, environment)?,
            refresh_interval: interval.unwrap_or(REFRESH_INTERVAL).0,
            port: self.port.filter(|port| *port > 0).unwrap_or(PORT),
            filters: filters(&self.filters, path)?,
            clusters: self.clusters.clone(),
            concurrency: concurrency.min(CONCURRENCY_MAX),
        }))
    }
}

fn filters(filters: &[Ec2Filter], path: &ConfigPath) -> Result<Vec<Ec2Filter>, ConfigError> {
    for (index, filter) in filters.iter().enumerate() {
        if filter.values.is_empty() {
            return Err(ConfigError::new(
                &path.key("filters").index(index),
                "EC2 SD configuration filter values cannot be empty",
            ));
        }
    }
    Ok(filters.to_vec())
}

impl Valid {
    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let (word, interval) = (self.role.word(), self.refresh_interval);
        let api = |service| AwsApi::new(service, &self.account, context);
        match self.role {
            Role::Ec2 => {
                let source = Instances::new(api(EC2), self.port, self.filters.clone());
                Box::new(Refresher::new(word, interval, context, source))
            }
            Role::Msk => {
                let source = Brokers {
                    api: api(KAFKA),
                    port: self.port,
                    clusters: self.clusters.clone(),
                    concurrency: self.concurrency,
                };
                Box::new(Refresher::new(word, interval, context, source))
            }
            Role::Elasticache => {
                let source = Caches {
                    api: api(ELASTICACHE),
                    clusters: self.clusters.clone(),
                    concurrency: self.concurrency,
                };
                Box::new(Refresher::new(word, interval, context, source))
            }
        }
    }

    fn identity(&self) -> String {
        let region = self.account.region.as_deref().unwrap_or_default();
        format!("{} {region} {:?} {:?}", self.role.word(), self.filters, self.clusters)
    }
}

impl DiscoveryConfig for Ec2SdConfig {
    fn kind(&self) -> &'static str {
        "ec2"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        self.0.discoverer(context)
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        self.0.identity()
    }
}

impl DiscoveryConfig for AwsSdConfig {
    fn kind(&self) -> &'static str {
        "aws"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        self.0.discoverer(context)
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        self.0.identity()
    }
}
