//! `eureka_sd_configs`: instances of applications that registered with a Eureka server (Spring Cloud, mostly).
//!
//! The registry is one XML document ([`apps`]); all instances are one target group.

mod apps;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use model::config::PromDuration;
use model::{ConfigError, ConfigPath};
use net::http::HttpClientConfig;
use url::Url;

use super::client::{self, ApiClient, raw_sd_config};
use super::refresh::{Refresh, RefreshError, Refresher};
use super::{Discoverer, DiscoveryConfig, DiscoveryContext, TargetGroup, is_equal};

const REFRESH_INTERVAL: PromDuration = PromDuration::from_secs(30);

raw_sd_config! {
    /// An entry of `eureka_sd_configs` as written.
    pub struct RawEurekaSdConfig {
        pub server: Option<String>,
        pub refresh_interval: Option<PromDuration>,
    }
}

/// A valid entry of `eureka_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct EurekaSdConfig {
    /// Of the list of applications.
    url: Url,
    refresh_interval: Duration,
    http: HttpClientConfig,
}

impl RawEurekaSdConfig {
    /// Checks the entry; relative files are looked for in `dir`.
    ///
    /// # Errors
    /// When the server is no URL, or the HTTP client block is wrong.
    pub fn build(self, path: &ConfigPath, dir: &Path) -> Result<EurekaSdConfig, ConfigError> {
        let http = self.http_client();
        let server = self.server.unwrap_or_default();
        if server.is_empty() {
            return Err(ConfigError::new(path, "eureka_sd: empty or null eureka server"));
        }
        let url = Url::parse(&format!("{server}/apps"))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| ConfigError::new(&path.key("server"), "eureka_sd: invalid eureka server URL"))?;
        Ok(EurekaSdConfig {
            url,
            refresh_interval: client::refresh_interval(
                self.refresh_interval.unwrap_or(REFRESH_INTERVAL),
                path,
            )?,
            http: http.build(path, dir)?,
        })
    }
}

impl DiscoveryConfig for EurekaSdConfig {
    fn kind(&self) -> &'static str {
        "eureka"
    }

    fn discoverer(&self, context: &DiscoveryContext) -> Box<dyn Discoverer> {
        let source = EurekaApps { url: self.url.clone(), client: ApiClient::new(self.http.clone(), context) };
        Box::new(Refresher::new("eureka", self.refresh_interval, context, source))
    }

    fn same_as(&self, other: &dyn DiscoveryConfig) -> bool {
        is_equal(self, other)
    }

    fn identity(&self) -> String {
        client::shown(&self.url)
    }
}

struct EurekaApps {
    url: Url,
    client: ApiClient,
}

impl Refresh for EurekaApps {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(async {
            // Eureka speaks JSON too, in another shape.
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/xml"))]);
            let answer = self.client.get(&self.url, headers, client::REQUEST_TIMEOUT).await?;
            let status = answer.status();
            if !status.is_success() {
                return Err(RefreshError::Other(format!(
                    "non 2xx status '{}' response during eureka service discovery",
                    status.as_u16()
                )));
            }
            let group = apps::group(answer.body())
                .map_err(|reason| RefreshError::Decode { from: client::shown(&self.url), reason })?;
            Ok(vec![group])
        })
    }
}
