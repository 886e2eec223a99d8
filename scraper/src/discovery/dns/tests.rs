//! DNS discovery against small DNS servers on loopback, over UDP and TCP.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::{DnsSdConfig, RawDnsSdConfig};
use crate::discovery::testing::{Running, eventually, place};

/// What a server says to a name and type.
type Zone = Vec<(&'static str, RecordType, Says)>;

#[derive(Clone, Debug)]
enum Says {
    Records(Vec<RData>),
    Code(ResponseCode),
    /// Nothing at all.
    Silence,
    /// Half of it, with the flag that says so; all over TCP.
    CutOverUdp(Vec<RData>),
    /// No extensions understood.
    NoEdns(Vec<RData>),
    /// First two answers somebody else may have sent, then the right one.
    AfterForgeries(Vec<RData>),
    /// Bytes that are no message.
    Garbage,
}

struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    /// Names, types, and whether over TCP.
    asked: Arc<Mutex<Vec<(String, RecordType, bool)>>>,
    tasks: [JoinHandle<()>; 2],
}

impl DnsServer {
    async fn start(zone: Zone) -> Self {
        // The same port for both: UDP first, for anybody may have the TCP port of a free UDP port.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(zone));
        let asked: Arc<Mutex<Vec<(String, RecordType, bool)>>> = Arc::default();
        let turns = Arc::new(AtomicUsize::new(0));
        let answer = {
            let (zone, asked) = (Arc::clone(&zone), Arc::clone(&asked));
            move |bytes: &[u8], tcp: bool| -> Vec<Vec<u8>> {
                let query = Message::from_vec(bytes).unwrap();
                let question = query.queries[0].clone();
                let name = question.name().to_ascii();
                asked.lock().push((name.clone(), question.query_type(), tcp));
                let says = zone
                    .lock()
                    .iter()
                    .find(|(known, kind, _)| *known == name && *kind == question.query_type())
                    .map_or(Says::Code(ResponseCode::NXDomain), |(_, _, says)| says.clone());
                let mut answer = Message::response(query.metadata.id, OpCode::Query);
                answer.add_query(question.clone());
                let owner = question.name().clone();
                let fill = |answer: &mut Message, mut records: Vec<RData>| {
                    if !records.is_empty() {
                        // As load-spreading servers do.
                        let turn = turns.fetch_add(1, Ordering::Relaxed) % records.len();
                        records.rotate_left(turn);
                    }
                    answer.answers =
                        records.into_iter().map(|data| Record::from_rdata(owner.clone(), 60, data)).collect();
                };
                match says {
                    Says::Records(records) => fill(&mut answer, records),
                    Says::Code(code) => answer.metadata.response_code = code,
                    Says::Silence => return vec![],
                    Says::CutOverUdp(mut records) => {
                        if !tcp {
                            records.truncate(1);
                            answer.metadata.truncation = true;
                        }
                        fill(&mut answer, records);
                    }
                    Says::NoEdns(_) if query.edns.is_some() => {
                        answer.metadata.response_code = ResponseCode::FormErr;
                        answer.queries.clear();
                    }
                    Says::NoEdns(records) => fill(&mut answer, records),
                    Says::AfterForgeries(records) => {
                        let forged = RData::A(A::new(6, 6, 6, 6));
                        let mut other = Message::response(query.metadata.id.wrapping_add(1), OpCode::Query);
                        other.add_query(question.clone());
                        other.add_answer(Record::from_rdata(owner.clone(), 60, forged));
                        fill(&mut answer, records);
                        return vec![other.to_vec().unwrap(), vec![1], answer.to_vec().unwrap()];
                    }
                    Says::Garbage => {
                        let mut bytes = query.metadata.id.to_be_bytes().to_vec();
                        bytes.extend([0x80, 0, 0, 9, 0, 9, 1]);
                        return vec![bytes];
                    }
                }
                vec![answer.to_vec().unwrap()]
            }
        };
        let over_udp = {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                loop {
                    let (size, from) = udp.recv_from(&mut buffer).await.unwrap();
                    for datagram in answer(&buffer[..size], false) {
                        let _ = udp.send_to(&datagram, from).await;
                    }
                }
            })
        };
        let over_tcp = {
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = tcp.accept().await.unwrap();
                    let size = stream.read_u16().await.unwrap();
                    let mut query = vec![0; usize::from(size)];
                    stream.read_exact(&mut query).await.unwrap();
                    for message in answer(&query, true) {
                        stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
                        stream.write_all(&message).await.unwrap();
                    }
                }
            })
        };
        Self { address, zone, asked, tasks: [over_udp, over_tcp] }
    }

    fn set(&self, name: &'static str, kind: RecordType, says: Says) {
        let mut zone = self.zone.lock();
        zone.retain(|(known, known_kind, _)| (*known, *known_kind) != (name, kind));
        zone.push((name, kind, says));
    }

    fn names(&self) -> Vec<String> {
        self.asked.lock().iter().map(|(name, _, _)| name.clone()).collect()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn srv(port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(0, 0, port, name(target)))
}

fn build(yaml: &str) -> Result<DnsSdConfig, String> {
    let raw: RawDnsSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    let (path, dir) = place();
    raw.build(&path, dir).map_err(|error| error.to_string())
}

/// A configuration that asks `servers`, and the file that says so.
fn config(yaml: &str, servers: &[&DnsServer], more: &str) -> (DnsSdConfig, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut text: String = servers.iter().map(|server| format!("nameserver {}\n", server.address)).collect();
    text.push_str(more);
    std::fs::write(file.path(), text).unwrap();
    let mut config = build(yaml).unwrap();
    config.resolv_conf = file.path().to_owned();
    config.refresh_interval = Duration::from_millis(20);
    config.server_timeout = Duration::from_millis(200);
    (config, file)
}

#[tokio::test]
async fn service_records_give_hosts_and_ports_and_keep_quiet_when_turned() {
    let server = DnsServer::start(vec![(
        "_web._tcp.example.com.",
        RecordType::SRV,
        Says::Records(vec![
            srv(3306, "db1.example.com."),
            srv(3307, "db2.example.com."),
            srv(3306, "db1.example.com."),
        ]),
    )])
    .await;
    let (config, _file) = config("{names: [_web._tcp.example.com]}", &[&server], "");
    let mut running = Running::start(&config);
    running.next().await;
    let targets: Vec<String> = running.targets().iter().map(ToString::to_string).collect();
    assert_eq!(
        targets,
        [
            r#"{__address__="db1.example.com:3306", __meta_dns_name="_web._tcp.example.com", __meta_dns_srv_record_port="3306", __meta_dns_srv_record_target="db1.example.com."}"#,
            r#"{__address__="db2.example.com:3307", __meta_dns_name="_web._tcp.example.com", __meta_dns_srv_record_port="3307", __meta_dns_srv_record_target="db2.example.com."}"#,
        ]
    );
    assert_eq!(running.groups.keys().next().unwrap(), "_web._tcp.example.com");
    eventually("several answers in other orders", || server.names().len() > 4).await;
    assert!(!running.has_spoken());

    server.set("_web._tcp.example.com.", RecordType::SRV, Says::Code(ResponseCode::NXDomain));
    running.next().await;
    assert!(running.targets().is_empty(), "a name that is known not to exist has no targets");
    assert_eq!(running.metrics.dns_lookup_failures.get(), 0);
    assert!(running.metrics.dns_lookups.get() > 4);
}

#[tokio::test]
async fn other_records_take_the_port_of_the_configuration() {
    let six = AAAA("2001:db8::1".parse().unwrap());
    let server = DnsServer::start(vec![
        (
            "a.example.",
            RecordType::A,
            // An alias on the way, and something nobody asked for.
            Says::Records(vec![
                RData::CNAME(CNAME(name("b.example."))),
                RData::A(A::new(10, 0, 0, 1)),
                RData::TXT(TXT::new(vec!["hello".into()])),
            ]),
        ),
        ("a.example.", RecordType::AAAA, Says::Records(vec![RData::AAAA(six)])),
        ("a.example.", RecordType::MX, Says::Records(vec![RData::MX(MX::new(10, name("mail.example.")))])),
        ("a.example.", RecordType::NS, Says::Records(vec![RData::NS(NS(name("ns1.example.")))])),
    ])
    .await;
    let expected = [
        ("a", r#"{__address__="10.0.0.1:80", __meta_dns_name="a.example"}"#),
        ("AAAA", r#"{__address__="[2001:db8::1]:80", __meta_dns_name="a.example"}"#),
        (
            "mx",
            r#"{__address__="mail.example:80", __meta_dns_mx_record_target="mail.example.", __meta_dns_name="a.example"}"#,
        ),
        (
            "NS",
            r#"{__address__="ns1.example:80", __meta_dns_name="a.example", __meta_dns_ns_record_target="ns1.example."}"#,
        ),
    ];
    for (kind, labels) in expected {
        let (config, _file) =
            config(&format!("{{names: [a.example], type: {kind}, port: 80}}"), &[&server], "");
        let mut running = Running::start(&config);
        running.next().await;
        let targets: Vec<String> = running.targets().iter().map(ToString::to_string).collect();
        assert_eq!(targets, [labels]);
    }
}

#[tokio::test]
async fn the_search_list_is_tried_in_order() {
    let server = DnsServer::start(vec![(
        "web.b.example.",
        RecordType::A,
        Says::Records(vec![RData::A(A::new(10, 0, 0, 1))]),
    )])
    .await;
    let (config, _file) =
        config("{names: [web], type: A, port: 1}", &[&server], "search a.example b.example c.example\n");
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.0.1:1"]);
    assert_eq!(running.targets()[0].value("__meta_dns_name"), "web", "as configured");
    assert_eq!(server.names()[..2], ["web.a.example.", "web.b.example."]);
    assert!(!server.names().contains(&"web.c.example.".to_owned()));
}

#[tokio::test]
async fn long_answers_come_over_tcp_and_old_servers_without_extensions() {
    // More than the 64 KiB of one message would hold are cut on TCP too; this many are not.
    let many: Vec<RData> =
        (0..2000_u16).map(|n| RData::A(A::new(10, 1, (n / 256) as u8, (n % 256) as u8))).collect();
    let server = DnsServer::start(vec![
        ("many.example.", RecordType::A, Says::CutOverUdp(many)),
        ("old.example.", RecordType::A, Says::NoEdns(vec![RData::A(A::new(10, 0, 0, 2))])),
        ("attacked.example.", RecordType::A, Says::AfterForgeries(vec![RData::A(A::new(10, 0, 0, 3))])),
    ])
    .await;
    let (config, _file) =
        config("{names: [many.example, old.example, attacked.example], type: A, port: 1}", &[&server], "");
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(running.groups["many.example"].targets.len(), 2000);
    assert_eq!(running.groups["old.example"].targets[0].value("__address__"), "10.0.0.2:1");
    let attacked = &running.groups["attacked.example"].targets;
    assert_eq!((attacked.len(), attacked[0].value("__address__")), (1, "10.0.0.3:1"));
    let asked = server.asked.lock().clone();
    assert!(asked.contains(&("many.example.".to_owned(), RecordType::A, true)), "{asked:?}");
    assert_eq!(running.metrics.dns_lookup_failures.get(), 0);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_cannot_tell() {
    let records = Says::Records(vec![RData::A(A::new(10, 0, 0, 1))]);
    let good = DnsServer::start(vec![("a.example.", RecordType::A, records)]).await;
    for says in
        [Says::Code(ResponseCode::ServFail), Says::Code(ResponseCode::Refused), Says::Silence, Says::Garbage]
    {
        let bad = DnsServer::start(vec![("a.example.", RecordType::A, says.clone())]).await;
        let (config, _file) = config("{names: [a.example], type: A, port: 1}", &[&bad, &good], "");
        let mut running = Running::start(&config);
        running.next().await;
        assert_eq!(running.addresses(), ["10.0.0.1:1"], "{says:?}");
        assert!(!bad.names().is_empty());
    }
}

#[tokio::test]
async fn names_nobody_can_tell_of_keep_their_targets() {
    let one = |n| Says::Records(vec![RData::A(A::new(10, 0, 0, n))]);
    let server =
        DnsServer::start(vec![("a.example.", RecordType::A, one(1)), ("b.example.", RecordType::A, one(2))])
            .await;
    let (config, file) = config("{names: [a.example, b.example], type: A, port: 1}", &[&server], "");
    let mut running = Running::start(&config);
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.0.1:1", "10.0.0.2:1"]);

    server.set("a.example.", RecordType::A, Says::Code(ResponseCode::ServFail));
    server.set("b.example.", RecordType::A, one(3));
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.0.1:1", "10.0.0.3:1"]);
    assert!(running.metrics.dns_lookup_failures.get() >= 1);
    let refreshes = running.metrics.refresh_failures.with_label_values(&["dns", "job"]);
    assert_eq!(refreshes.get(), 0, "a refresh that learnt something has not failed");
    let troubles = |running: &Running| -> Vec<String> {
        let troubles = running.metrics.troubles("job");
        assert!(troubles.iter().all(|trouble| trouble.kind == "dns"));
        troubles.into_iter().map(|trouble| trouble.error).collect()
    };
    eventually("one name is in trouble", || troubles(&running).len() == 1).await;
    let shown = troubles(&running);
    let words = "cannot look up 1 of 2 names, keeping their last targets: could not resolve \"a.example\": ";
    assert!(shown[0].starts_with(words), "{shown:?}");
    assert!(!shown[0].contains("b.example"), "{shown:?}");

    server.set("b.example.", RecordType::A, Says::Silence);
    eventually("a failed refresh", || refreshes.get() > 0).await;
    eventually("only the refresh's own trouble", || {
        let shown = troubles(&running);
        shown.len() == 1 && shown[0].starts_with("could not resolve")
    })
    .await;
    std::fs::remove_file(file.path()).unwrap();
    let before = refreshes.get();
    eventually("refreshes without resolv.conf", || refreshes.get() > before + 1).await;
    assert!(!running.has_spoken());

    std::fs::write(file.path(), format!("nameserver {}\n", server.address)).unwrap();
    server.set("a.example.", RecordType::A, one(4));
    running.next().await;
    assert_eq!(running.addresses(), ["10.0.0.4:1", "10.0.0.3:1"], "servers are read anew");
    eventually("one name is in trouble", || {
        let shown = troubles(&running);
        shown.len() == 1 && shown[0].contains("could not resolve \"b.example\"")
    })
    .await;
    server.set("b.example.", RecordType::A, one(3));
    eventually("no trouble", || troubles(&running).is_empty()).await;
}

#[test]
fn settings_are_checked_with_the_words_of_prometheus() {
    let config = build("{names: [a]}").unwrap();
    assert_eq!((config.record_type, config.refresh_interval), (RecordType::SRV, Duration::from_secs(30)));
    assert_eq!(config.resolv_conf.to_str(), Some("/etc/resolv.conf"));
    let cases = [
        ("{}", "sd[0]: DNS-SD config must contain at least one SRV record name"),
        ("{names: []}", "sd[0]: DNS-SD config must contain at least one SRV record name"),
        ("{names: [a], type: PTR}", "sd[0].type: invalid DNS-SD records type PTR"),
        (
            "{names: [a], type: A}",
            "sd[0]: a port is required in DNS-SD configs for all record types except SRV",
        ),
        ("{names: [a], port: 70000}", "port: invalid value: integer `70000`, expected u16"),
        (
            "{names: [a], refresh_interval: 0s}",
            "sd[0].refresh_interval: refresh interval must be greater than 0",
        ),
        ("{name: a}", "unknown field `name`"),
    ];
    for (yaml, expected) in cases {
        let error = build(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}
