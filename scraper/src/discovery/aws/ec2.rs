//! Role `ec2`: a target for each instance that has an address.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use model::Labels;

use super::Gathered;
use super::api::{AwsApi, PAGES_MAX, param};
use super::config::Ec2Filter;
use super::xml::Element;
use crate::discovery::TargetGroup;
use crate::discovery::client::join_host_port;
use crate::discovery::refresh::{Refresh, RefreshError, TARGETS_MAX};

const PREFIX: &str = "__meta_ec2_";
/// Most network interfaces of an instance; larger positions are those of no instance there is.
const INTERFACES_MAX: usize = 256;

/// Finds instances.
pub(super) struct Instances {
    api: AwsApi,
    port: u16,
    filters: Vec<Ec2Filter>,
    /// Ids of availability zones by name, once they are known: an account's zones do not change.
    zones: Option<BTreeMap<String, String>>,
}

impl Refresh for Instances {
    fn refresh(&mut self) -> BoxFuture<'_, Result<Vec<TargetGroup>, RefreshError>> {
        Box::pin(self.ask())
    }
}

impl Instances {
    pub(super) fn new(api: AwsApi, port: u16, filters: Vec<Ec2Filter>) -> Self {
        Self { api, port, filters, zones: None }
    }

    async fn ask(&mut self) -> Result<Vec<TargetGroup>, RefreshError> {
        let region = self.api.region().await?.to_owned();
        if self.zones.is_none() {
            match self.api.action("DescribeAvailabilityZones", Vec::new()).await {
                Ok(answer) => self.zones = Some(zones(&answer)),
                // The role may lack that permission: then only the labels are missing.
                Err(error) => tracing::debug!(%error, "unable to describe availability zones"),
            }
        }
        let mut targets = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut params = self.filter_params();
            params.extend(next.take().map(|token| param("NextToken", token)));
            let answer = self
                .api
                .action("DescribeInstances", params)
                .await
                .map_err(|error| error.during("could not describe instances"))?;
            for reservation in answer.list("reservationSet") {
                let owner = reservation.get("ownerId");
                let instances = reservation.list("instancesSet");
                targets.extend(instances.filter_map(|instance| self.target(instance, owner, &region)));
            }
            if targets.len() > TARGETS_MAX {
                break;
            }
            next = answer.get("nextToken").filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(vec![TargetGroup { source: region, targets, labels: Labels::empty() }]);
            }
        }
        Err(RefreshError::TooMany { what: "instances", found: targets.len(), limit: TARGETS_MAX })
    }

    fn filter_params(&self) -> Vec<(String, String)> {
        let mut params = Vec::new();
        for (number, filter) in (1..).zip(&self.filters) {
            params.push(param(format!("Filter.{number}.Name"), &filter.name));
            for (index, value) in (1..).zip(&filter.values) {
                params.push(param(format!("Filter.{number}.Value.{index}"), value));
            }
        }
        params
    }

    fn target(&self, instance: &Element, owner: Option<&str>, region: &str) -> Option<Labels> {
        let ipv6 = Ipv6::of(instance);
        let private = instance.get("privateIpAddress").filter(|ip| !ip.is_empty());
        let address = private.or(ipv6.default.as_deref())?;
        let mut labels = Gathered::new(PREFIX);
        labels
            .address(join_host_port(address, self.port))
            .set("region", region)
            .set_some("instance_id", instance.get("instanceId"))
            .set_some("owner_id", owner)
            .set_some("default_ipv6_address", ipv6.default.as_deref())
            .set_some("private_ip", private)
            .set_some("private_dns_name", instance.get("privateDnsName"))
            .set_some("platform", instance.get("platform"))
            .set_some("ami", instance.get("imageId"))
            .set_some("instance_state", instance.get("instanceState/name"))
            .set_some("instance_type", instance.get("instanceType"))
            .set_some("instance_lifecycle", instance.get("instanceLifecycle"))
            .set_some("architecture", instance.get("architecture"))
            .set_some("primary_ipv6_addresses", listed(&ipv6.primary))
            .set_some("ipv6_addresses", listed(&ipv6.all));
        if let Some(public) = instance.get("ipAddress") {
            labels.set("public_ip", public).set_some("public_dns_name", instance.get("dnsName"));
        }
        if let Some(zone) = instance.get("placement/availabilityZone") {
            let id = self.zones.as_ref().and_then(|zones| zones.get(zone));
            labels.set("availability_zone", zone).set_some("availability_zone_id", id);
        }
        if let Some(vpc) = instance.get("vpcId") {
            let mut subnets: Vec<String> = Vec::new();
            for subnet in instance.list("networkInterfaceSet").filter_map(|nic| nic.get("subnetId")) {
                if !subnets.iter().any(|known| known == subnet) {
                    subnets.push(subnet.to_owned());
                }
            }
            labels
                .set("vpc_id", vpc)
                .set_some("primary_subnet_id", instance.get("subnetId"))
                .set("subnet_id", format!(",{},", subnets.join(",")));
        }
        let tags = instance.list("tagSet").filter_map(|tag| Some((tag.get("key")?, tag.get("value")?)));
        Some(labels.tags("tag_", tags).build())
    }
}

fn zones(answer: &Element) -> BTreeMap<String, String> {
    let zone = |zone: &Element| Some((zone.get("zoneName")?.to_owned(), zone.get("zoneId")?.to_owned()));
    answer.list("availabilityZoneInfo").filter_map(zone).collect()
}

/// `,a,b,`: so that a value can be matched with its separators.
fn listed(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| format!(",{},", values.join(",")))
}

/// The IPv6 addresses of an instance in a VPC.
#[derive(Debug, Default)]
struct Ipv6 {
    /// At the position of their interface; empty where an interface has none.
    primary: Vec<String>,
    all: Vec<String>,
    default: Option<String>,
}

impl Ipv6 {
    fn of(instance: &Element) -> Self {
        let mut found = Self::default();
        if instance.get("vpcId").is_none() {
            return found;
        }
        for interface in instance.list("networkInterfaceSet") {
            if interface.get("subnetId").is_none() {
                continue;
            }
            for address in interface.list("ipv6AddressesSet") {
                let Some(ip) = address.get("ipv6Address") else { continue };
                found.all.push(ip.to_owned());
                let position = interface.get("attachment/deviceIndex").and_then(|index| index.parse().ok());
                let position = position.filter(|position: &usize| *position < INTERFACES_MAX);
                if let (Some("true"), Some(position)) = (address.get("isPrimaryIpv6"), position) {
                    if found.primary.len() <= position {
                        found.primary.resize(position + 1, String::new());
                    }
                    found.primary[position] = ip.to_owned();
                }
            }
        }
        found.default = found.primary.iter().chain(&found.all).find(|ip| !ip.is_empty()).cloned();
        found
    }
}
