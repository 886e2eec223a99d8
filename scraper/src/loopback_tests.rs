//! Tests of the loopback discovery against fakes and a real Redis.

use prometheus::Registry;
use tokio::net::TcpListener;

use super::*;
use crate::collector::redis::testing::{RealRedis, free_port};
use crate::discovery::Providers;
use crate::metrics::SdMetrics;

/// Answers every connection with `answer` and keeps it open; gives the port.
async fn fake(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // In two portions, since nothing promises one.
            let (first, second) = answer.split_at(answer.len() / 2);
            let _ = stream.write_all(first).await;
            let _ = stream.flush().await;
            tokio::task::yield_now().await;
            let _ = stream.write_all(second).await;
            open.push(stream);
        }
    });
    port
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

const ANSWERS: [(BrokerKind, &[u8]); 12] = [
    (BrokerKind::Redis, b"+PONG\r\n"),
    (BrokerKind::Redis, b"-NOAUTH Authentication required.\r\n"),
    (BrokerKind::Disque, b"+PONG\r\n"),
    (
        BrokerKind::RabbitMqManagement,
        b"HTTP/1.1 401 Unauthorized\r\nserver: Cowboy\r\nwww-authenticate: Basic realm=\"RabbitMQ Management\"\r\n\r\n",
    ),
    (BrokerKind::RabbitMqMetrics, b"HTTP/1.1 200 OK\r\n\r\n# TYPE erlang_mnesia_held_locks gauge\n"),
    (BrokerKind::RabbitMqMetrics, b"HTTP/1.1 200 OK\r\n\r\n# TYPE rabbitmq_identity_info untyped\n"),
    (BrokerKind::Kafka, b"\x00\x00\x00\x10NILO\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
    (BrokerKind::Nats, b"HTTP/1.1 200 OK\r\n\r\n{\n  \"server_id\": \"NABC\"\n}"),
    (BrokerKind::Beanstalkd, b"OK 923\r\n---\ncurrent-jobs-urgent: 0\ncurrent-jobs-ready: 0\n"),
    (BrokerKind::Nsq, b"HTTP/1.1 200 OK\r\n\r\n{\"version\":\"1.3.0\",\"broadcast_address\":\"h\"}"),
    (BrokerKind::ActiveMq, b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: basic realm=\"ActiveMQRealm\"\r\n\r\n"),
    (BrokerKind::ActiveMq, b"HTTP/1.1 200 OK\r\n\r\n<title>Apache ActiveMQ Artemis</title>"),
];

#[tokio::test]
async fn each_broker_is_recognised_by_its_own_answer_and_no_other() {
    for (kind, answer) in ANSWERS {
        assert_eq!(probe(kind, address(fake(answer).await)).await, BrokerState::Found, "{kind}");
        for other in BrokerKind::ALL {
            let same =
                [kind, other].iter().all(|kind| matches!(kind, BrokerKind::Redis | BrokerKind::Disque));
            if other != kind && !same {
                assert_ne!(
                    other.recognises(answer),
                    Some(true),
                    "{other} takes the answer of {kind} for its own"
                );
            }
        }
    }
}

#[tokio::test]
async fn strangers_are_unrecognised_and_silence_is_absence() {
    for kind in BrokerKind::ALL {
        for answer in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"+PONK\r\n", b"\x00\x00\x00\x04ABCD\x00\x00"] {
            assert_eq!(kind.recognises(answer), Some(false), "{kind} {answer:?}");
        }
        assert_eq!(probe(kind, address(free_port())).await, BrokerState::Absent);
    }
    let endless: &'static [u8] = Box::leak([b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 40_000][..]].concat().into());
    let state = probe(BrokerKind::Nats, address(fake(endless).await)).await;
    assert_eq!(state, BrokerState::Unrecognised, "reading ends at its bound");
}

#[tokio::test(start_paused = true)]
async fn one_that_accepts_and_says_nothing_is_unrecognised() {
    let port = fake(b"").await;
    assert_eq!(probe(BrokerKind::Redis, address(port)).await, BrokerState::Unrecognised);
}

#[test]
fn ports_are_read_from_options() {
    assert_eq!("redis=6380".parse(), Ok(LoopbackPort { kind: BrokerKind::Redis, port: 6380 }));
    for (text, expected) in [
        ("redis", "no kind"),
        ("rebis=1", "unknown kind, known are redis, disque"),
        ("redis=0", "not a port"),
        ("redis=65536", "not a port"),
    ] {
        let error = text.parse::<LoopbackPort>().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let usual = Loopback::default().brokers();
    assert_eq!(usual.len(), 9);
    assert!(usual.iter().all(|broker| broker.state == BrokerState::Unknown && !broker.was_found));
    let ports = ["redis=1", "redis=2"].map(|text| text.parse().unwrap());
    let brokers = Loopback::new(&ports).brokers();
    let redis: Vec<u16> = brokers
        .iter()
        .filter(|broker| broker.kind == BrokerKind::Redis)
        .map(|broker| broker.address.port())
        .collect();
    assert_eq!((redis, brokers.len()), (vec![1, 2], 10));
    let supported: Vec<&str> =
        usual.iter().filter(|broker| broker.supported).map(|broker| broker.kind.as_str()).collect();
    assert_eq!(supported, ["redis", "rabbitmq-metrics"]);
}

#[tokio::test]
async fn a_broker_appears_when_it_starts_and_stays_when_it_stops() {
    let Some(mut redis) = RealRedis::start(&[]).await else { return };
    let port = redis.address().parse::<SocketAddr>().unwrap().port();
    redis.kill();
    let ports = [
        LoopbackPort { kind: BrokerKind::Redis, port },
        LoopbackPort { kind: BrokerKind::Kafka, port: free_port() },
    ];
    let loopback = Arc::new(Loopback::only(&ports).with_interval(Duration::from_millis(20)));
    let config: Arc<dyn DiscoveryConfig> = Arc::new(loopback.discovery(BrokerKind::Redis));
    let context = DiscoveryContext {
        job_name: "redis".into(),
        metrics: Arc::new(SdMetrics::new(&Registry::new()).unwrap()),
        user_agent: "test".into(),
        clock: Arc::new(model::ManualClock::new(0)),
    };
    let mut providers = Providers::start(vec![config.clone()], &context);
    assert!(providers.serve(&[Arc::new(loopback.discovery(BrokerKind::Redis))]), "a reload changes nothing");
    assert!(!providers.serve(&[Arc::new(loopback.discovery(BrokerKind::Kafka))]));
    let prober = tokio::spawn({
        let loopback = loopback.clone();
        async move { loopback.run().await }
    });
    let until = async |state: BrokerState| {
        while loopback.brokers()[0].state != state {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(BrokerState::Absent).await;
    assert_eq!(providers.groups().target_count(), 0);

    redis.restart().await;
    let groups = providers.next().await;
    let group = groups.iter().next().unwrap();
    assert_eq!(group.targets, [Labels::from_pairs([("__address__", redis.address())])]);
    assert_eq!(group.labels.value(META_KIND), "redis");

    redis.kill();
    until(BrokerState::Absent).await;
    assert_eq!(providers.groups().target_count(), 1, "its absence is to be seen");
    assert!(loopback.brokers()[0].was_found);
    let mut reloaded = Providers::start(vec![config], &context);
    assert_eq!(reloaded.next().await.target_count(), 1, "also for a job that starts only now");
    assert_eq!(loopback.brokers()[1].state, BrokerState::Absent);
    prober.abort();
}
