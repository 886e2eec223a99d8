use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::{Labels, ManualClock};
use serde_json::json;

use super::environment::Environment;
use super::*;
use crate::discovery::DiscoveryConfig;
use crate::discovery::testing::{Answer, ApiServer, Asked, Running, context, eventually, place};

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];

fn config(yaml: &str, environment: Environment) -> Result<AwsSdConfig, String> {
    let raw: RawAwsSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    raw.build_in(&place().0, place().1, environment).map_err(|error| error.to_string())
}

/// An entry for `server`, with an account in the environment.
fn entry(server: &ApiServer, rest: &str) -> AwsSdConfig {
    let yaml = format!("{{region: eu-west-1, endpoint: '{}', {rest}}}", server.url(""));
    config(&yaml, Environment::of(&KEYS, Path::new("/nonexistent"), &server.url(""))).unwrap()
}

/// Parameters of a form.
fn form(asked: &Asked, name: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(&asked.body);
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// `name=value` of all labels, without `prefix`.
fn shown(labels: &Labels, prefix: &str) -> Vec<String> {
    labels
        .iter()
        .map(|(name, value)| format!("{}={value}", name.strip_prefix(prefix).unwrap_or(name)))
        .collect()
}

fn xml(text: &str) -> Answer {
    Answer::new(200, format!("<?xml version=\"1.0\"?>\n{text}")).with("content-type", "text/xml")
}

fn refused(status: u16, code: &str) -> Answer {
    let text = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>no &amp; no</Message></Error></Errors></Response>"
    );
    Answer::new(status, text)
}

const ZONES: &str = "<R><availabilityZoneInfo><item><zoneName>eu-west-1a</zoneName><zoneId>euw1-az3</zoneId></item>\
                     </availabilityZoneInfo></R>";

fn instance(id: &str, rest: &str) -> String {
    format!(
        "<item><instanceId>{id}</instanceId><imageId>ami-1</imageId><instanceState><code>16</code><name>running</name>\
         </instanceState><instanceType>m5.large</instanceType><placement><availabilityZone>eu-west-1a\
         </availabilityZone></placement>{rest}</item>"
    )
}

fn page(instances: &str, next: &str) -> Answer {
    xml(&format!(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><reservationSet><item>\
         <ownerId>123</ownerId><instancesSet>{instances}</instancesSet></item></reservationSet>{next}\
         </DescribeInstancesResponse>"
    ))
}

fn ec2(asked: &Asked) -> Answer {
    let whole = "<privateDnsName>ip-10</privateDnsName><dnsName>ec2-1</dnsName><privateIpAddress>10.0.0.1</privateIpAddress>\
        <ipAddress>1.2.3.4</ipAddress><subnetId>s1</subnetId><vpcId>v1</vpcId><architecture>x86_64</architecture>\
        <platform>windows</platform><instanceLifecycle>spot</instanceLifecycle>\
        <tagSet><item><key>aws:x/Name</key><value>web</value></item><item><key>empty</key><value/></item></tagSet>\
        <networkInterfaceSet>\
        <item><subnetId>s1</subnetId><attachment><deviceIndex>1</deviceIndex></attachment><ipv6AddressesSet>\
        <item><ipv6Address>fd::1</ipv6Address><isPrimaryIpv6>false</isPrimaryIpv6></item>\
        <item><ipv6Address>fd::2</ipv6Address><isPrimaryIpv6>true</isPrimaryIpv6></item></ipv6AddressesSet></item>\
        <item><subnetId>s2</subnetId></item><item><subnetId>s1</subnetId></item></networkInterfaceSet>";
    let six = "<vpcId>v1</vpcId><networkInterfaceSet><item><subnetId>s1</subnetId><ipv6AddressesSet><item>\
        <ipv6Address>fd::9</ipv6Address></item></ipv6AddressesSet></item></networkInterfaceSet>";
    match (form(asked, "Action").as_str(), form(asked, "NextToken").as_str()) {
        ("DescribeAvailabilityZones", _) => xml(ZONES),
        ("DescribeInstances", "") => page(&instance("i-1", whole), "<nextToken>t=1</nextToken>"),
        ("DescribeInstances", "t=1") => {
            page(&(instance("i-2", six) + &instance("i-gone", "")), "<nextToken/>")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn instances_have_their_labels_on_all_pages() {
    let server = ApiServer::start(ec2).await;
    let rest = "role: ec2, port: 9100, filters: [{name: 'tag:a', values: [x, y]}, {name: b, values: [z]}]";
    let mut running = Running::start(&entry(&server, rest));
    running.next().await;
    assert_eq!(running.groups.keys().collect::<Vec<_>>(), ["eu-west-1"]);
    let targets = running.targets();
    assert_eq!(
        shown(&targets[0], "__meta_ec2_"),
        [
            "__address__=10.0.0.1:9100",
            "ami=ami-1",
            "architecture=x86_64",
            "availability_zone=eu-west-1a",
            "availability_zone_id=euw1-az3",
            "default_ipv6_address=fd::2",
            "instance_id=i-1",
            "instance_lifecycle=spot",
            "instance_state=running",
            "instance_type=m5.large",
            "ipv6_addresses=,fd::1,fd::2,",
            "owner_id=123",
            "platform=windows",
            "primary_ipv6_addresses=,,fd::2,",
            "primary_subnet_id=s1",
            "private_dns_name=ip-10",
            "private_ip=10.0.0.1",
            "public_dns_name=ec2-1",
            "public_ip=1.2.3.4",
            "region=eu-west-1",
            "subnet_id=,s1,s2,",
            "tag_aws_x_Name=web",
            "vpc_id=v1",
        ]
    );
    assert_eq!(targets[1].value("__address__"), "[fd::9]:9100");
    assert_eq!(targets.len(), 2);

    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(form(&asked[1], "Version"), "2016-11-15");
    let filters =
        ["Filter.1.Name", "Filter.1.Value.1", "Filter.1.Value.2", "Filter.2.Name", "Filter.2.Value.1"];
    assert_eq!(filters.map(|name| form(&asked[2], name)), ["tag:a", "x", "y", "b", "z"]);
    assert_eq!((asked[1].path.as_str(), asked[1].method.as_str()), ("/", "POST"));
    let authorization = asked[1].header("authorization");
    let start = "AWS4-HMAC-SHA256 Credential=AKENV/19700101/eu-west-1/ec2/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, Signature=";
    assert!(authorization.starts_with(start), "{authorization}");
    assert_eq!(asked[1].header("host"), server.address.to_string());
    assert_eq!(asked[1].header("x-amz-date"), "19700101T000000Z");
}

#[tokio::test]
async fn refusals_are_repeated_where_that_may_help_and_keep_targets() {
    let round = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&round);
    let server = ApiServer::start(move |asked| {
        if form(asked, "Action") == "DescribeAvailabilityZones" {
            return refused(403, "UnauthorizedOperation");
        }
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => refused(503, "RequestLimitExceeded"),
            1 => Answer::new(500, "oops"),
            2 => page(&instance("i-1", "<privateIpAddress>10.0.0.1</privateIpAddress>"), ""),
            3 => refused(400, "InvalidParameterValue"),
            4 => Answer::new(200, "<DescribeInst"),
            _ => page("", "").late(Duration::from_secs(60)),
        }
    })
    .await;
    let mut running = Running::start(&entry(&server, "role: ec2, refresh_interval: 10ms"));
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.0.1:80"], "the third attempt worked");
    assert!(!running.targets()[0].has("__meta_ec2_availability_zone_id"));
    let failures = running.metrics.refresh_failures.with_label_values(&["ec2", "job"]);
    eventually("two failures", || failures.get() == 2).await;
    eventually("a third attempt", || round.load(Ordering::SeqCst) == 6).await;
    assert!(!running.has_spoken());
}

/// What STS gives.
fn given(action: &str, key: &str) -> Answer {
    xml(&format!(
        "<{action}Response><{action}Result><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
         <SessionToken>tok</SessionToken><Expiration>1970-01-01T01:00:00Z</Expiration></Credentials></{action}Result>\
         </{action}Response>"
    ))
}

/// All of AWS on one host.
fn everything(asked: &Asked) -> Answer {
    let served = json!({"Code": "Success", "AccessKeyId": "AKMETA", "SecretAccessKey": "s", "Token": "t",
                        "Expiration": "1970-01-01T06:00:00Z"});
    match (asked.path.as_str(), form(asked, "Action").as_str()) {
        (_, "AssumeRole") => given("AssumeRole", "AKROLE"),
        (_, "AssumeRoleWithWebIdentity") => given("AssumeRoleWithWebIdentity", "AKWEB"),
        (_, "DescribeAvailabilityZones") => xml(ZONES),
        (_, "DescribeInstances") => page("", ""),
        ("/latest/api/token", _) => Answer::new(200, "imds-token"),
        ("/latest/meta-data/placement/region", _) => Answer::new(200, "us-east-2"),
        ("/latest/meta-data/iam/security-credentials/", _) => Answer::new(200, "my-role\n"),
        ("/latest/meta-data/iam/security-credentials/my-role", _) => Answer::json(served.to_string()),
        ("/container", _) => Answer::json(served.to_string().replace("AKMETA", "AKBOX")),
        _ => Answer::new(404, ""),
    }
}

/// What EC2 was asked as, and all requests.
async fn asked_as(yaml: &str, variables: &[(&str, &str)], home: &Path) -> (String, Vec<Asked>) {
    let server = ApiServer::start(everything).await;
    let yaml = format!("{{role: ec2, endpoint: '{}', {yaml}}}", server.url(""));
    let config = config(&yaml, Environment::of(variables, home, &server.url(""))).unwrap();
    let mut running = Running::start(&config);
    running.next().await;
    let asked = server.asked();
    let call = asked.iter().find(|asked| form(asked, "Action") == "DescribeInstances").unwrap();
    let scope = call.header("authorization").split("Credential=").nth(1).unwrap();
    let parts: Vec<&str> = scope.split('/').collect();
    (format!("{} {} {}", parts[0], parts[2], call.header("x-amz-security-token")), asked)
}

#[tokio::test]
async fn credentials_come_from_where_the_sdk_takes_them() {
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "jwt\n").unwrap();
    let token = token.to_str().unwrap();
    std::fs::write(
        aws.join("config"),
        format!(
            "[default]\nregion = ap-south-1\n[profile keys]\naws_access_key_id = AKFILE\naws_secret_access_key = s\n\
             [profile role]\nrole_arn = arn:r\nsource_profile = keys\nexternal_id = ext\n\
             [profile web]\nrole_arn = arn:w\nweb_identity_token_file = {token}\n\
             [profile sso]\nsso_session = x\n"
        ),
    )
    .unwrap();
    let none = Path::new("/nonexistent");
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", token), ("AWS_ROLE_ARN", "arn:e"), ("AWS_REGION", "r1")];
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/container"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "boxed"),
    ];
    let mut with_session = KEYS.to_vec();
    with_session.push(("AWS_SESSION_TOKEN", "sess"));
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a Path, &'a str);
    let cases: [Case<'_>; 10] = [
        ("region: r, access_key: AKCONF, secret_key: s", &KEYS, none, "AKCONF r "),
        ("region: r, access_key: AKCONF", &KEYS, none, "AKENV r "),
        ("region: r", &with_session, none, "AKENV r sess"),
        ("region: r, profile: keys", &KEYS, home.path(), "AKFILE r "),
        ("profile: role, region: r", &[], home.path(), "AKROLE r tok"),
        ("region: r", &[("AWS_PROFILE", "web")], home.path(), "AKWEB r tok"),
        ("port: 1", &web, none, "AKWEB r1 tok"),
        ("region: r", &container, none, "AKBOX r t"),
        ("port: 1", &[], none, "AKMETA us-east-2 t"),
        ("port: 1, role_arn: 'arn:x', external_id: ext", &[], home.path(), "AKROLE ap-south-1 tok"),
    ];
    for (yaml, variables, home, expected) in cases {
        let (found, asked) = asked_as(yaml, variables, home).await;
        assert_eq!(found, expected, "{yaml} {variables:?}");
        let sts = asked.iter().find(|asked| form(asked, "Action") == "AssumeRole");
        if let Some(sts) = sts {
            assert_eq!(
                (form(sts, "ExternalId").as_str(), form(sts, "DurationSeconds").as_str()),
                ("ext", "900")
            );
            assert!(sts.header("authorization").contains("/sts/aws4_request"));
        }
        if let Some(sts) = asked.iter().find(|asked| form(asked, "Action") == "AssumeRoleWithWebIdentity") {
            assert_eq!((form(sts, "WebIdentityToken").as_str(), sts.header("authorization")), ("jwt", ""));
        }
        if let Some(ask) = asked.iter().find(|asked| asked.path == "/container") {
            assert_eq!(ask.header("authorization"), "boxed");
        }
        if let Some(ask) = asked.iter().find(|asked| asked.path.starts_with("/latest/meta-data")) {
            assert_eq!(ask.header("x-aws-ec2-metadata-token"), "imds-token");
        }
    }
    // What cannot be had is a failure that says so.
    let server = ApiServer::start(everything).await;
    for (yaml, variables) in [
        ("profile: sso", vec![]),
        ("profile: none", vec![]),
        ("port: 1", vec![("AWS_EC2_METADATA_DISABLED", "true")]),
    ] {
        let yaml = format!("{{role: ec2, region: r, endpoint: '{}', {yaml}}}", server.url(""));
        let home = if variables.is_empty() { home.path() } else { none };
        let config = config(&yaml, Environment::of(&variables, home, &server.url(""))).unwrap();
        let running = Running::start(&config);
        let failures = running.metrics.refresh_failures.with_label_values(&["ec2", "job"]);
        eventually("a failure", || failures.get() == 1).await;
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn credentials_are_exchanged_before_they_end_and_when_refused() {
    let refuse = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&refuse);
    let server = ApiServer::start(move |asked| {
        let is_list = form(asked, "Action") == "DescribeInstances";
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
            if is_list { n.checked_sub(1) } else { None }
        });
        if taken.is_ok() { refused(400, "RequestExpired") } else { everything(asked) }
    })
    .await;
    let exchanges = || server.asked().iter().filter(|asked| form(asked, "Action") == "AssumeRole").count();
    let lists = || server.asked().iter().filter(|asked| form(asked, "Action") == "DescribeInstances").count();
    let clock = Arc::new(ManualClock::new(0));
    let mut context = context();
    context.clock = clock.clone();
    let _running =
        Running::start_with(&entry(&server, "role: ec2, role_arn: r, refresh_interval: 5ms"), &context);
    eventually("some refreshes", || lists() > 3).await;
    assert_eq!(exchanges(), 1, "they are kept");
    clock.set(54 * 60 * 1000);
    let before = lists();
    eventually("more refreshes", || lists() > before + 3).await;
    assert_eq!(exchanges(), 1);
    clock.set(56 * 60 * 1000);
    eventually("an exchange", || exchanges() >= 2).await;
    clock.set(0);
    let before = exchanges();
    let listed = lists();
    eventually("more refreshes", || lists() > listed + 3).await;
    let settled = exchanges();
    assert!(settled <= before + 1, "{settled} {before}");
    refuse.store(1, Ordering::SeqCst);
    eventually("another exchange", || exchanges() > settled).await;
}

fn kafka(asked: &Asked) -> Answer {
    let cluster = |name: &str, kind: &str| {
        json!({"clusterArn": format!("arn:aws:kafka:r:1:cluster/{name}/u"), "clusterName": name, "clusterType": kind,
               "state": "ACTIVE", "currentVersion": "K1", "tags": {"team/x": "a"},
               "provisioned": {
                "currentBrokerSoftwareInfo": {"kafkaVersion": "3.6.0", "configurationArn": "ca", "configurationRevision": 2},
                "openMonitoring": {"prometheus": {"jmxExporter": {"enabledInBroker": true},
                                                  "nodeExporter": {"enabledInBroker": false}}}}})
    };
    let broker = json!({"nodeARN": "na", "nodeType": "BROKER", "addedToClusterTime": "2024-01-01T00:00:00Z",
        "instanceType": "m5", "brokerNodeInfo": {"attachedENIId": "eni", "brokerId": 1.0, "clientSubnet": "s",
        "clientVpcIpAddress": "10.0.0.1", "endpoints": ["b-1.x", "b-1.y"]}});
    let controller = json!({"nodeARN": "nc", "controllerNodeInfo": {"endpoints": ["c-1.x"]}});
    let body = match (asked.path.as_str(), asked.param("nextToken")) {
        ("/api/v2/clusters", "") => {
            json!({"clusterInfoList": [cluster("a", "PROVISIONED")], "nextToken": "n/1="})
        }
        ("/api/v2/clusters", "n/1=") => json!({"clusterInfoList": [cluster("b", "PROVISIONED")]}),
        ("/api/v2/clusters/arn%3Aaws%3Akafka%3Ar%3A1%3Acluster%2Fa%2Fu", _) => {
            json!({"clusterInfo": cluster("a", "PROVISIONED")})
        }
        ("/api/v2/clusters/less", _) => json!({"clusterInfo": cluster("less", "SERVERLESS")}),
        ("/v1/clusters/arn%3Aaws%3Akafka%3Ar%3A1%3Acluster%2Fa%2Fu/nodes", "") => {
            json!({"nodeInfoList": [broker], "nextToken": "2"})
        }
        ("/v1/clusters/arn%3Aaws%3Akafka%3Ar%3A1%3Acluster%2Fa%2Fu/nodes", "2") => {
            json!({"nodeInfoList": [controller, {"zookeeperNodeInfo": {}}]})
        }
        ("/v1/clusters/arn%3Aaws%3Akafka%3Ar%3A1%3Acluster%2Fb%2Fu/nodes", _) => json!({"nodeInfoList": []}),
        _ => {
            let body = json!({"message": "not you"}).to_string();
            return Answer::new(404, body).with("x-amzn-errortype", "NotFoundException:http://x");
        }
    };
    Answer::json(body.to_string())
}

#[tokio::test]
async fn brokers_and_controllers_of_kafka_have_their_labels() {
    let server = ApiServer::start(kafka).await;
    let mut running = Running::start(&entry(&server, "role: msk, port: 11001"));
    running.next().await;
    assert_eq!(running.addresses(), ["b-1.x:11001", "b-1.y:11001", "c-1.x:11001"]);
    let targets = running.targets();
    assert_eq!(
        shown(&targets[1], "__meta_msk_"),
        [
            "__address__=b-1.y:11001",
            "broker_client_subnet=s",
            "broker_client_vpc_ip=10.0.0.1",
            "broker_endpoint_index=1",
            "broker_id=1",
            "broker_node_exporter_enabled=false",
            "cluster_arn=arn:aws:kafka:r:1:cluster/a/u",
            "cluster_configuration_arn=ca",
            "cluster_configuration_revision=2",
            "cluster_jmx_exporter_enabled=true",
            "cluster_kafka_version=3.6.0",
            "cluster_name=a",
            "cluster_state=ACTIVE",
            "cluster_tag_team_x=a",
            "cluster_type=PROVISIONED",
            "cluster_version=K1",
            "node_added_time=2024-01-01T00:00:00Z",
            "node_arn=na",
            "node_attached_eni=eni",
            "node_instance_type=m5",
            "node_type=BROKER",
        ]
    );
    assert_eq!(targets[2].value("__meta_msk_node_type"), "CONTROLLER");
    assert_eq!(targets[2].value("__meta_msk_controller_endpoint_index"), "0");
    let first = &server.asked()[0];
    assert_eq!((first.param("clusterTypeFilter"), first.param("maxResults")), ("PROVISIONED", "100"));
    assert!(
        first
            .header("authorization")
            .contains("/eu-west-1/kafka/aws4_request, SignedHeaders=host;x-amz-date,")
    );

    let clusters = "clusters: ['arn:aws:kafka:r:1:cluster/a/u', less]";
    let mut running =
        Running::start(&entry(&server, &format!("role: msk, {clusters}, request_concurrency: 1")));
    running.next().await;
    assert_eq!(running.addresses().len(), 3, "the serverless one is left out");
    let running = Running::start(&entry(&server, "role: msk, clusters: [unknown]"));
    let failures = running.metrics.refresh_failures.with_label_values(&["msk", "job"]);
    eventually("a failure", || failures.get() == 1).await;
}

fn cache(asked: &Asked) -> Answer {
    let node = |id: &str| {
        format!(
            "<CacheNode><CacheNodeId>{id}</CacheNodeId><CacheNodeStatus>available</CacheNodeStatus><CacheNodeCreateTime>\
             2024-05-06T07:08:09.123Z</CacheNodeCreateTime><CustomerAvailabilityZone>az</CustomerAvailabilityZone>\
             <Endpoint><Address>n{id}.x</Address><Port>6379</Port></Endpoint></CacheNode>"
        )
    };
    let clusters = |list: &str, marker: &str| {
        xml(&format!(
            "<DescribeCacheClustersResponse><DescribeCacheClustersResult><CacheClusters>{list}</CacheClusters>{marker}\
             </DescribeCacheClustersResult></DescribeCacheClustersResponse>"
        ))
    };
    let action = form(asked, "Action");
    match (
        action.as_str(),
        form(asked, "ShowCacheClustersNotInReplicationGroups").as_str(),
        form(asked, "Marker").as_str(),
    ) {
        ("DescribeServerlessCaches", ..) => xml(
            "<R><DescribeServerlessCachesResult><ServerlessCaches><member><ARN>arn:s</ARN><ServerlessCacheName>sc\
             </ServerlessCacheName><Status>available</Status><Engine>valkey</Engine><CreateTime>2024-05-06T07:08:09Z\
             </CreateTime><SecurityGroupIds><SecurityGroupId>sg1</SecurityGroupId></SecurityGroupIds><SubnetIds>\
             <SubnetId>a</SubnetId><SubnetId>b</SubnetId></SubnetIds><Endpoint><Address>sc.x</Address><Port>6379</Port>\
             </Endpoint><ReaderEndpoint><Address>rd.x</Address><Port>6380</Port></ReaderEndpoint><CacheUsageLimits>\
             <DataStorage><Maximum>10</Maximum><Unit>GB</Unit></DataStorage></CacheUsageLimits></member>\
             </ServerlessCaches></DescribeServerlessCachesResult></R>",
        ),
        ("DescribeCacheClusters", "false", "") => clusters("", "<Marker>m</Marker>"),
        ("DescribeCacheClusters", "false", "m") => clusters(
            &format!(
                "<CacheCluster><ARN>arn:c</ARN><CacheClusterId>cc</CacheClusterId><CacheClusterStatus>available\
                 </CacheClusterStatus><Engine>redis</Engine><NumCacheNodes>2</NumCacheNodes><SecurityGroups><member>\
                 <SecurityGroupId>sg</SecurityGroupId><Status>active</Status></member></SecurityGroups>\
                 <LogDeliveryConfigurations><LogDeliveryConfiguration><LogType>slow-log</LogType><DestinationDetails>\
                 <CloudWatchLogsDetails><LogGroup>lg</LogGroup></CloudWatchLogsDetails></DestinationDetails>\
                 </LogDeliveryConfiguration></LogDeliveryConfigurations><PendingModifiedValues><CacheNodeIdsToRemove>\
                 <CacheNodeId>0003</CacheNodeId><CacheNodeId>0004</CacheNodeId></CacheNodeIdsToRemove>\
                 </PendingModifiedValues><CacheNodes>{}{}</CacheNodes></CacheCluster>",
                node("0001"),
                node("0002")
            ),
            "",
        ),
        ("DescribeCacheClusters", "true", _) => clusters("", ""),
        ("ListTagsForResource", ..) => {
            assert!(form(asked, "ResourceName").starts_with("arn:"));
            xml(
                "<R><ListTagsForResourceResult><TagList><Tag><Key>my/tag</Key><Value>v</Value></Tag></TagList>\
                 </ListTagsForResourceResult></R>",
            )
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn caches_have_their_labels() {
    let server = ApiServer::start(cache).await;
    let mut running = Running::start(&entry(&server, "role: elasticache"));
    running.next().await;
    assert_eq!(running.addresses(), ["sc.x:6379", "n0001.x:6379", "n0002.x:6379"]);
    let targets = running.targets();
    assert_eq!(
        shown(&targets[0], "__meta_elasticache_"),
        [
            "__address__=sc.x:6379",
            "deployment_option=serverless",
            "serverless_cache_arn=arn:s",
            "serverless_cache_cache_usage_limit_data_storage_maximum=10",
            "serverless_cache_cache_usage_limit_data_storage_unit=GB",
            "serverless_cache_create_time=2024-05-06T07:08:09Z",
            "serverless_cache_endpoint_address=sc.x",
            "serverless_cache_endpoint_port=6379",
            "serverless_cache_endpoint_reader_address=rd.x",
            "serverless_cache_endpoint_reader_port=6380",
            "serverless_cache_engine=valkey",
            "serverless_cache_name=sc",
            "serverless_cache_security_group_id_0=sg1",
            "serverless_cache_status=available",
            "serverless_cache_subnet_id_0=a",
            "serverless_cache_subnet_id_1=b",
            "serverless_cache_tag_my_tag=v",
        ]
    );
    assert_eq!(
        shown(&targets[2], "__meta_elasticache_"),
        [
            "__address__=n0002.x:6379",
            "cache_cluster_arn=arn:c",
            "cache_cluster_cache_cluster_id=cc",
            "cache_cluster_cache_cluster_status=available",
            "cache_cluster_engine=redis",
            "cache_cluster_log_delivery_configuration_log_group_0=lg",
            "cache_cluster_log_delivery_configuration_log_type_0=slow-log",
            "cache_cluster_node_availability_zone=az",
            "cache_cluster_node_create_time=2024-05-06T07:08:09Z",
            "cache_cluster_node_endpoint_address=n0002.x",
            "cache_cluster_node_endpoint_port=6379",
            "cache_cluster_node_id=0002",
            "cache_cluster_node_status=available",
            "cache_cluster_num_cache_nodes=2",
            "cache_cluster_pending_modified_values_cache_node_ids_to_remove=0003,0004",
            "cache_cluster_security_group_membership_id_0=sg",
            "cache_cluster_security_group_membership_status_0=active",
            "cache_cluster_tag_my_tag=v",
            "deployment_option=node",
        ]
    );
    let rest = "role: elasticache, clusters: ['arn:aws:elasticache:r:1:serverlesscache:one', bad]";
    let mut running = Running::start(&entry(&server, rest));
    running.next().await;
    let asked = server.asked();
    let last = asked.iter().rev().find(|asked| form(asked, "Action") == "DescribeServerlessCaches").unwrap();
    assert_eq!(form(last, "ServerlessCacheName"), "one");
}

#[test]
fn mistakes_are_refused() {
    let environment = || Environment::of(&[], Path::new(""), "");
    for (yaml, expected) in [
        ("{role: s3}", "sd[0].role: unknown AWS SD role \"s3\""),
        ("{}", "unknown AWS SD role \"\""),
        ("{role: ecs}", "AWS SD role ecs is not supported yet"),
        (
            "{role: ec2, filters: [{name: a}]}",
            "filters[0]: EC2 SD configuration filter values cannot be empty",
        ),
        (
            "{role: elasticache, request_concurrency: 0}",
            "elasticache_sd: request_concurrency must be positive, got 0",
        ),
        ("{role: msk, endpoint: 'ftp://x'}", "sd[0].endpoint: is not a valid URL"),
        ("{role: msk, region: 'a/b'}", "sd[0].region: \"a/b\" is not an AWS region"),
        ("{role: msk, zone: a}", "unknown field `zone`"),
    ] {
        let error = config(yaml, environment()).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
    let raw: RawEc2SdConfig =
        serde_yaml::from_str("{region: a, secret_key: hunter2, access_key: b}").unwrap();
    let ec2 = |raw: &RawEc2SdConfig| raw.build_in(&place().0, place().1, environment()).unwrap();
    assert!(!format!("{:?} {}", ec2(&raw), ec2(&raw).identity()).contains("hunter2"));
    let other: RawEc2SdConfig =
        serde_yaml::from_str("{region: a, secret_key: hunter3, access_key: b}").unwrap();
    assert!(ec2(&raw).same_as(&ec2(&raw)) && !ec2(&raw).same_as(&ec2(&other)));
}
