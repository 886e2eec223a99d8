//! Networks, for the labels of those who are in them.

use std::collections::BTreeMap;

use model::Labels;
use serde::Deserialize;

use super::super::refresh::RefreshError;
use super::api::DockerApi;
use super::{Gathered, nullable};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Network {
    id: String,
    name: String,
    scope: String,
    internal: bool,
    ingress: bool,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

/// Labels of all networks, by id; `prefix` is that of the kind of discovery.
pub(super) async fn network_labels(
    api: &DockerApi,
    prefix: &str,
) -> Result<BTreeMap<String, Labels>, RefreshError> {
    let networks: Vec<Network> = api.get("/networks", "").await?;
    let labels = networks.into_iter().map(|network| {
        let mut labels = Gathered::default();
        labels
            .set(format!("{prefix}network_id"), &network.id)
            .set(format!("{prefix}network_name"), &network.name)
            .set(format!("{prefix}network_scope"), &network.scope)
            .set(format!("{prefix}network_internal"), network.internal.to_string())
            .set(format!("{prefix}network_ingress"), network.ingress.to_string())
            .marks(&format!("{prefix}network_label_"), &network.labels);
        (network.id, labels.build())
    });
    Ok(labels.collect())
}
