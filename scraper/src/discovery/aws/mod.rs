//! `ec2_sd_configs` and `aws_sd_configs`: instances of EC2, brokers of managed Kafka (MSK), nodes of ElastiCache.
//!
//! - `config`: the entries as written and as valid.
//! - `environment`, `credentials`: whose account it is; `sign`: signature version 4; `api`, `xml`: asking AWS.
//! - `ec2`, `msk`, `elasticache`: a role each.

mod api;
mod config;
mod credentials;
mod ec2;
mod elasticache;
mod environment;
mod msk;
mod sign;
#[cfg(test)]
mod tests;
mod xml;

use std::collections::BTreeMap;

use model::{Labels, LabelsBuilder};

use super::client::sanitize_label_name;

pub use config::{AwsSdConfig, Ec2Filter, Ec2SdConfig, RawAwsSdConfig, RawEc2SdConfig};

/// Labels being gathered under a prefix.
#[derive(Clone, Debug)]
struct Gathered {
    prefix: &'static str,
    labels: LabelsBuilder,
}

impl Gathered {
    fn new(prefix: &'static str) -> Self {
        Self { prefix, labels: LabelsBuilder::new() }
    }

    fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.labels.set(format!("{}{name}", self.prefix), value);
        self
    }

    fn set_some(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.set(name, value.to_string());
        }
        self
    }

    fn tags<'a>(&mut self, name: &str, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> &mut Self {
        for (tag, value) in tags {
            self.set(&format!("{name}{}", sanitize_label_name(tag)), value);
        }
        self
    }

    fn address(&mut self, address: impl Into<String>) -> &mut Self {
        self.labels.set("__address__", address);
        self
    }

    fn build(&self) -> Labels {
        self.labels.build()
    }
}

/// Pairs of a map, for [`Gathered::tags`].
fn pairs(tags: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
