//! `docker_sd_configs` and `dockerswarm_sd_configs`: containers of a Docker daemon; nodes, services and tasks of a swarm.

mod api;
mod containers;
mod network;
mod swarm;
#[cfg(test)]
mod tests;

pub use api::DockerFilter;
pub use containers::{DockerSdConfig, RawDockerSdConfig};
pub use swarm::{DockerSwarmSdConfig, RawDockerSwarmSdConfig};

use std::collections::BTreeMap;

use model::{Labels, LabelsBuilder};
use serde::{Deserialize, Deserializer};

use super::client::sanitize_label_name;

/// The daemon writes `null` for empty lists and maps.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Labels being gathered, by name; later ones win.
#[derive(Clone, Debug, Default)]
struct Gathered(LabelsBuilder);

impl Gathered {
    fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.0.set(name, value);
        self
    }

    /// Labels of an object, each under `prefix`.
    fn marks(&mut self, prefix: &str, labels: &BTreeMap<String, String>) -> &mut Self {
        for (name, value) in labels {
            self.0.set(format!("{prefix}{}", sanitize_label_name(name)), value);
        }
        self
    }

    fn all(&mut self, labels: Option<&Labels>) -> &mut Self {
        for (name, value) in labels.into_iter().flat_map(Labels::iter) {
            self.0.set(name, value);
        }
        self
    }

    fn build(&self) -> Labels {
        self.0.build()
    }
}
