//! Loopback discovery: which brokers run on this machine at their usual ports.
//!
//! One [`Loopback`] probes them all, at once and then every [`PROBE_INTERVAL`]: it connects to 127.0.0.1, and nothing
//! else, asks one harmless question in the protocol that belongs to the port, and hangs up. Its list
//! ([`Loopback::brokers`]) is for the log and the UI. Jobs take targets from it by [`Loopback::discovery`]: a broker
//! becomes a target when it is first found, and stays one when it stops, so that its absence is seen.
//!
//! Whoever makes it runs [`Loopback::run`] in a task; without that nothing is ever found.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use model::Labels;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};

use crate::discovery::{Discoverer, DiscoveryConfig, DiscoveryContext, GroupSender, TargetGroup};

/// Time between probes of one port.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for a connection: on loopback it is made or refused at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait for the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes read of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// Most ports that are probed.
const PORTS_MAX: usize = 64;
/// The label of a target that tells its kind, before relabelling.
pub const META_KIND: &str = "__meta_loopback_kind";

/// A way a broker can be recognised on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BrokerKind {
    /// Redis, or what speaks its protocol.
    Redis,
    /// Disque.
    Disque,
    /// RabbitMQ's management API.
    RabbitMqManagement,
    /// RabbitMQ's own metrics page.
    RabbitMqMetrics,
    /// Kafka, or what speaks its protocol.
    Kafka,
    /// The monitoring port of NATS.
    Nats,
    /// beanstalkd.
    Beanstalkd,
    /// The HTTP port of nsqd.
    Nsq,
    /// The console of ActiveMQ Classic or Artemis.
    ActiveMq,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokerState {
    /// Not looked yet.
    Unknown,
    /// The broker answers as it should.
    Found,
    /// Nobody listens.
    Absent,
    /// Somebody listens who does not answer as the broker would.
    Unrecognised,
}

impl BrokerState {
    /// In words, for the log and the UI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Unrecognised => "unrecognised",
        }
    }
}

/// A port that is probed, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopbackBroker {
    /// What is expected there.
    pub kind: BrokerKind,
    /// `127.0.0.1:port`
    pub address: SocketAddr,
    /// The result of the last probe.
    pub state: BrokerState,
    /// Whether it has ever been found: then it is a target.
    pub was_found: bool,
    /// Whether this version can monitor it.
    pub supported: bool,
}

/// The built-in job for brokers of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackJob {
    /// `job_name`
    pub job_name: &'static str,
    /// `collector`; `None`: an ordinary page at [`LoopbackJob::metrics_path`].
    pub collector: Option<&'static str>,
    /// `collector_options`, as YAML.
    pub collector_options: &'static str,
    /// `metrics_path`
    pub metrics_path: &'static str,
}

impl BrokerKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Redis,
        Self::Disque,
        Self::RabbitMqManagement,
        Self::RabbitMqMetrics,
        Self::Kafka,
        Self::Nats,
        Self::Beanstalkd,
        Self::Nsq,
        Self::ActiveMq,
    ];

    /// Its name in options, labels and the UI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Disque => "disque",
            Self::RabbitMqManagement => "rabbitmq",
            Self::RabbitMqMetrics => "rabbitmq-metrics",
            Self::Kafka => "kafka",
            Self::Nats => "nats",
            Self::Beanstalkd => "beanstalkd",
            Self::Nsq => "nsq",
            Self::ActiveMq => "activemq",
        }
    }

    /// The usual port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::Disque => 7711,
            Self::RabbitMqManagement => 15672,
            Self::RabbitMqMetrics => 15692,
            Self::Kafka => 9092,
            Self::Nats => 8222,
            Self::Beanstalkd => 11300,
            Self::Nsq => 4151,
            Self::ActiveMq => 8161,
        }
    }

    /// The job that monitors brokers of this kind, if this version can.
    pub fn job(self) -> Option<LoopbackJob> {
        match self {
            Self::Redis => Some(LoopbackJob {
                job_name: "redis",
                collector: Some("redis"),
                // With no configuration at all, what is there must be looked for.
                collector_options: "{scan: {enabled: true}, db: all}",
                metrics_path: "",
            }),
            Self::RabbitMqMetrics => Some(LoopbackJob {
                job_name: "rabbitmq",
                collector: None,
                collector_options: "",
                metrics_path: "/metrics",
            }),
            Self::Disque
            | Self::RabbitMqManagement
            | Self::Kafka
            | Self::Nats
            | Self::Beanstalkd
            | Self::Nsq
            | Self::ActiveMq => None,
        }
    }

    /// What to ask. Every question only reads, and every broker answers it without credentials or says that it wants
    /// some.
    fn question(self) -> Vec<u8> {
        let get = |path: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Nilometer\r\nConnection: close\r\n\r\n"
            )
            .into_bytes()
        };
        match self {
            Self::Redis | Self::Disque => b"*1\r\n$4\r\nPING\r\n".to_vec(),
            Self::RabbitMqManagement => get("/api/overview"),
            Self::RabbitMqMetrics => get("/metrics"),
            Self::Kafka => KAFKA_API_VERSIONS.to_vec(),
            Self::Nats => get("/varz"),
            Self::Beanstalkd => b"stats\r\n".to_vec(),
            Self::Nsq => get("/info"),
            Self::ActiveMq => get("/"),
        }
    }

    /// Whether `answer`, which may go on, is the broker's: `None` while it cannot be told.
    fn recognises(self, answer: &[u8]) -> Option<bool> {
        match self {
            Self::Redis | Self::Disque => {
                // Refusals that only such a server utters. They come within the first line.
                let replies: [&[u8]; 5] = [b"+PONG\r\n", b"-NOAUTH ", b"-NOPERM ", b"-LOADING ", b"-DENIED "];
                starts_with_any(answer, &replies)
            }
            Self::Beanstalkd => starts_with_any(answer, &[b"OK "]).and_then(|is_ok| {
                if !is_ok { Some(false) } else { contains(answer, "current-jobs-ready").then_some(true) }
            }),
            Self::Kafka => {
                // After the size: the correlation id we sent, and no error.
                let [a, b, c, d] = KAFKA_CORRELATION;
                starts_with_any(answer.get(4..)?, &[&[a, b, c, d, 0, 0]])
            }
            Self::RabbitMqManagement => http_with(answer, &["rabbitmq management", "\"rabbitmq_version\""]),
            Self::RabbitMqMetrics => http_with(answer, &["rabbitmq_", "erlang_"]),
            Self::Nats => http_with(answer, &["\"server_id\""]),
            Self::Nsq => http_with(answer, &["\"broadcast_address\""]),
            Self::ActiveMq => http_with(answer, &["activemq", "artemis"]),
        }
    }
}

const KAFKA_CORRELATION: [u8; 4] = *b"NILO";

/// `ApiVersions` v0: size, key 18, version 0, correlation id, no client id.
const KAFKA_API_VERSIONS: [u8; 14] = {
    let [a, b, c, d] = KAFKA_CORRELATION;
    [0, 0, 0, 10, 0, 18, 0, 0, a, b, c, d, 0xff, 0xff]
};

/// `Some(true)` if `answer` begins with one of `prefixes`, `None` while it still may.
fn starts_with_any(answer: &[u8], prefixes: &[&[u8]]) -> Option<bool> {
    if prefixes.iter().any(|prefix| answer.starts_with(prefix)) {
        return Some(true);
    }
    let is_open = prefixes.iter().any(|prefix| prefix.starts_with(answer));
    (!is_open).then_some(false)
}

fn http_with(answer: &[u8], texts: &[&str]) -> Option<bool> {
    match starts_with_any(answer, &[b"HTTP/1.1 ", b"HTTP/1.0 "]) {
        Some(true) => texts.iter().any(|text| contains(answer, text)).then_some(true),
        other => other,
    }
}

/// Whether `text` (lower case) occurs, in whatever case.
fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port to look at instead of a kind's usual one: `redis=6380`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackPort {
    /// What is expected there.
    pub kind: BrokerKind,
    /// Where.
    pub port: u16,
}

impl FromStr for LoopbackPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?}: {what} (expected kind=port such as redis=6380)");
        let (kind, port) = text.split_once('=').ok_or_else(|| wrong("no kind"))?;
        let kind = BrokerKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or_else(|| {
            let names: Vec<&str> = BrokerKind::ALL.iter().map(|kind| kind.as_str()).collect();
            wrong(&format!("unknown kind, known are {}", names.join(", ")))
        })?;
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { kind, port }),
            _ => Err(wrong("not a port")),
        }
    }
}

/// Probes the ports and keeps the list. See the module document.
#[derive(Debug)]
pub struct Loopback {
    brokers: watch::Sender<Vec<LoopbackBroker>>,
    interval: Duration,
}

impl Default for Loopback {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Loopback {
    /// Probes the usual ports; `ports` replace those of their kinds (several of one kind are all probed; past a bound
    /// of 64 ports the rest is left out, with a warning).
    pub fn new(ports: &[LoopbackPort]) -> Self {
        let overridden = |kind: BrokerKind| ports.iter().any(|port| port.kind == kind);
        let usual = BrokerKind::ALL
            .into_iter()
            .filter(|kind| !overridden(*kind))
            .map(|kind| LoopbackPort { kind, port: kind.default_port() });
        Self::only(&usual.chain(ports.iter().copied()).collect::<Vec<_>>())
    }

    /// Probes `ports` and no others.
    pub fn only(ports: &[LoopbackPort]) -> Self {
        if ports.len() > PORTS_MAX {
            tracing::warn!(
                ports = ports.len(),
                limit = PORTS_MAX,
                "too many loopback ports, the rest is left out"
            );
        }
        let brokers = ports
            .iter()
            .take(PORTS_MAX)
            .map(|LoopbackPort { kind, port }| LoopbackBroker {
                kind: *kind,
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
                state: BrokerState::Unknown,
                was_found: false,
                supported: kind.job().is_some(),
            })
            .collect();
        Self { brokers: watch::Sender::new(brokers), interval: PROBE_INTERVAL }
    }

    /// The same with another time between probes.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// What is known now.
    pub fn brokers(&self) -> Vec<LoopbackBroker> {
        self.brokers.borrow().clone()
    }

    /// Probes again and again; never returns. May be dropped at any point.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(self.interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.probe_all().await;
        }
    }

    /// Probes every port once.
    pub async fn probe_all(&self) {
        let ports = self.brokers();
        let states = join_all(ports.iter().map(|broker| probe(broker.kind, broker.address))).await;
        self.brokers.send_if_modified(|brokers| {
            let mut is_modified = false;
            for (broker, state) in brokers.iter_mut().zip(states) {
                if broker.state == state {
                    continue;
                }
                log(broker, state);
                broker.state = state;
                broker.was_found |= state == BrokerState::Found;
                is_modified = true;
            }
            is_modified
        });
    }

    /// The brokers of `kind` as targets of a job.
    pub fn discovery(self: &Arc<Self>, kind: BrokerKind) -> LoopbackDiscovery {
        LoopbackDiscovery { kind, loopback: self.clone() }
    }
}

fn log(broker: &LoopbackBroker, state: BrokerState) {
    let LoopbackBroker { kind, address, supported, .. } = broker;
    match (broker.state, state) {
        (_, BrokerState::Found) => {
            tracing::info!(%kind, %address, supported, "found a broker on loopback");
        }
        _ if state == BrokerState::Unrecognised && broker.was_found => {
            tracing::warn!(%kind, %address, "the broker on loopback does not answer as it did");
        }
        (_, BrokerState::Unrecognised) => {
            tracing::info!(%kind, %address, "something else listens on this broker's port");
        }
        (BrokerState::Found, _) => tracing::warn!(%kind, %address, "the broker on loopback has gone"),
        (_, BrokerState::Absent | BrokerState::Unknown) => {
            tracing::debug!(%kind, %address, state = state.as_str(), "no broker on loopback");
        }
    }
}

/// Asks one port.
async fn probe(kind: BrokerKind, address: SocketAddr) -> BrokerState {
    let Ok(Ok(mut stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await else {
        return BrokerState::Absent;
    };
    let asked = async {
        stream.write_all(&kind.question()).await?;
        let mut answer = Vec::with_capacity(1024);
        loop {
            if let Some(is_recognised) = kind.recognises(&answer) {
                return Ok(is_recognised);
            }
            let room = ANSWER_BYTES_MAX - answer.len();
            if room == 0 || (&mut stream).take(room as u64).read_buf(&mut answer).await? == 0 {
                return Ok::<_, std::io::Error>(false);
            }
        }
    };
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(true)) => BrokerState::Found,
        Ok(Ok(false) | Err(_)) | Err(_) => BrokerState::Unrecognised,
    }
}

/// The brokers of one kind as targets.
#[derive(Clone, Debug)]
pub struct LoopbackDiscovery {
    kind: BrokerKind,
    loopback: Arc<Loopback>,
}

impl LoopbackDiscovery {
    /// The kind of broker it finds.
    pub fn broker(&self) -> BrokerKind {
        self.kind
    }
}

impl DiscoveryConfig for LoopbackDiscovery {
    fn kind(&self) -> &'static str {
        "loopback"
    }

    fn discoverer(&self, _context: &DiscoveryContext) -> Box<dyn Discoverer> {
        Box::new(LoopbackDiscoverer { kind: self.kind, brokers: self.loopback.brokers.subscribe() })
    }

    fn identity(&self) -> String {
        // Two lists with equal ports are still two: the address tells them apart.
        format!("{} {:p}", self.kind, Arc::as_ptr(&self.loopback))
    }
}

struct LoopbackDiscoverer {
    kind: BrokerKind,
    brokers: watch::Receiver<Vec<LoopbackBroker>>,
}

impl LoopbackDiscoverer {
    /// One group for each broker that was ever found.
    fn groups(&mut self) -> Vec<TargetGroup> {
        self.brokers
            .borrow_and_update()
            .iter()
            .filter(|broker| broker.kind == self.kind && broker.was_found)
            .map(|broker| TargetGroup {
                source: format!("loopback/{}/{}", broker.kind, broker.address),
                targets: vec![Labels::from_pairs([("__address__", broker.address.to_string())])],
                labels: Labels::from_pairs([(META_KIND, broker.kind.as_str())]),
            })
            .collect()
    }
}

impl Discoverer for LoopbackDiscoverer {
    fn run(mut self: Box<Self>, sender: GroupSender) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut sent = Vec::new();
            loop {
                let groups = self.groups();
                if groups != sent {
                    if sender.send(groups.clone()).await.is_err() {
                        return;
                    }
                    sent = groups;
                }
                if self.brokers.changed().await.is_err() {
                    // The list has gone; its targets stay as long as the job.
                    std::future::pending::<()>().await;
                }
            }
        })
    }
}

#[cfg(test)]
#[path = "loopback_tests.rs"]
mod tests;
