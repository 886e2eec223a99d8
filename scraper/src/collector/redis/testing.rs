//! What the tests of the Redis collector share: recorded answers, probes played against a function, a real server.

use std::collections::HashMap;
use std::net::TcpListener;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use model::{ConfigPath, Labels, ManualClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::probe::{Intake, Probe};
use super::{Memory, RedisFactory, STAGES};
use crate::collector::account::{Account, Doubts};
use crate::collector::resp::{Command, Connection, Decoder, Limits, Reply};
use crate::collector::schema::{QueueMetric, QueueReading};
use crate::collector::{
    CollectError, CollectTarget, CollectorFactory, CollectorSession, JobSettings, Scrape, ScrapedSample,
};

/// Decodes the first reply of `bytes` as the collector would.
pub(crate) fn decode(bytes: &[u8]) -> Reply {
    Decoder::new(Limits::default()).decode(&mut &bytes[..]).unwrap().expect("a whole reply")
}

/// The words of a command.
pub(crate) fn words(command: &Command) -> Vec<String> {
    let reply = decode(command.encoded());
    let text = |word: &Reply| String::from_utf8_lossy(word.bytes().unwrap()).into_owned();
    reply.array().unwrap().iter().map(text).collect()
}

/// The recorded answers by command.
pub(crate) fn recorded() -> HashMap<String, Reply> {
    let text = include_str!("../../../testdata/redis/streams_lists.txt");
    text.split("\n> ")
        .skip(1)
        .map(|part| {
            let (command, answer) = part.split_once('\n').unwrap();
            let wire = format!("{}\r\n", answer.trim_end().replace('\n', "\r\n"));
            (command.to_owned(), decode(wire.as_bytes()))
        })
        .collect()
}

/// A probe's readings with the doubts about them.
pub(crate) struct Played {
    pub(crate) readings: Vec<QueueReading>,
    pub(crate) doubts: Doubts,
    pub(crate) account: Account,
    pub(crate) commands: Vec<String>,
}

impl Played {
    pub(crate) fn reading(&self, queue: &str, group: &str) -> &QueueReading {
        self.readings
            .iter()
            .find(|reading| reading.queue == queue && reading.group == group)
            .unwrap_or_else(|| panic!("no reading of {queue:?} {group:?}"))
    }

    pub(crate) fn get(&self, queue: &str, group: &str, metric: QueueMetric) -> Option<f64> {
        self.reading(queue, group).get(metric)
    }
}

/// Plays a probe against `answer`; `None` cuts the connection there.
pub(crate) fn play(
    probe: impl Probe + 'static,
    memory: &mut Memory,
    now_ms: i64,
    mut answer: impl FnMut(&str) -> Option<Reply>,
) -> Played {
    let mut probe: Box<dyn Probe> = Box::new(probe);
    let mut doubts = Doubts::default();
    let mut account = Account::new(&STAGES);
    let mut intake = Intake { doubts: &mut doubts, account: &mut account, now_ms };
    let mut sent = Vec::new();
    loop {
        let commands = probe.next(true);
        if commands.is_empty() {
            break;
        }
        let mut replies = Vec::new();
        for command in &commands {
            let command = words(command).join(" ");
            let reply = answer(&command);
            sent.push(command);
            match reply {
                Some(reply) => replies.push(reply),
                None => break,
            }
        }
        probe.absorb(&replies, &mut intake);
        if replies.len() < commands.len() {
            break;
        }
    }
    let readings = probe.finish(memory, &mut intake);
    Played { readings, doubts, account, commands: sent }
}

pub(crate) fn bulk(text: impl AsRef<[u8]>) -> Reply {
    Reply::Bulk(text.as_ref().to_vec())
}

pub(crate) fn int(number: i64) -> Reply {
    Reply::Integer(number)
}

pub(crate) fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

pub(crate) fn list(elements: impl IntoIterator<Item = Reply>) -> Reply {
    Reply::Array(elements.into_iter().collect())
}

/// A session as the scrape loop would have it.
pub(crate) fn session(address: &str, options: &str) -> Box<dyn CollectorSession> {
    session_at(address, options, Arc::new(ManualClock::new(0)))
}

pub(crate) fn session_at(address: &str, options: &str, clock: Arc<ManualClock>) -> Box<dyn CollectorSession> {
    let job = JobSettings {
        job_name: "redis".into(),
        scrape_interval: Duration::from_secs(15),
        scrape_timeout: Duration::from_secs(10),
        base_dir: std::env::temp_dir(),
        clock,
    };
    let options: serde_yaml::Value = serde_yaml::from_str(options).unwrap();
    let collector = RedisFactory.build(&job, &options, &ConfigPath::root()).unwrap();
    collector.connect(&CollectTarget {
        address: address.to_owned(),
        labels: Labels::empty(),
        discovered: Labels::empty(),
        interval: job.scrape_interval,
        timeout: job.scrape_timeout,
    })
}

pub(crate) async fn collect(session: &mut Box<dyn CollectorSession>) -> Result<Scrape, CollectError> {
    session.collect(Instant::now() + Duration::from_secs(10)).await
}

/// The value of the one sample of `metric` whose labels hold all of `labels`.
pub(crate) fn value(samples: &[ScrapedSample], metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = samples.iter().filter(|sample| {
        sample.labels.metric_name() == metric
            && labels.iter().all(|(name, value)| sample.labels.value(name) == *value)
    });
    let first = found.next()?.value;
    assert!(found.next().is_none(), "{metric} {labels:?} is not unique");
    Some(first)
}

/// A `redis-server` of our own.
pub(crate) struct RealRedis {
    process: Child,
    port: u16,
    arguments: Vec<String>,
    dir: tempfile::TempDir,
}

impl RealRedis {
    /// Starts one; `None`, with a loud note, where the binary is not installed and this is not CI.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        if Process::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is not installed, and this is CI");
            eprintln!("SKIPPED: redis-server is not installed (Debian package redis-server)");
            return None;
        }
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = spawn(port, dir.path(), &arguments);
        let redis = Self { process, port, arguments, dir };
        redis.wait().await;
        Some(redis)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the process hard.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port, empty.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(self.port, self.dir.path(), &self.arguments);
        self.wait().await;
    }

    async fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.address()).await.is_err() {
            assert!(Instant::now() < end, "redis-server did not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends commands, given as words separated by single spaces.
    pub(crate) async fn run(&self, commands: &[&str]) -> Vec<Reply> {
        let commands: Vec<Vec<&[u8]>> =
            commands.iter().map(|command| command.split(' ').map(str::as_bytes).collect()).collect();
        self.send(&commands).await
    }

    /// Sends commands as binary words.
    pub(crate) async fn send(&self, commands: &[Vec<&[u8]>]) -> Vec<Reply> {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let mut connection = Connection::new(stream, Limits::default());
        let commands: Vec<Command> = commands.iter().map(|words| raw(words)).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        let outcome = connection.pipeline(&commands, deadline).await;
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        outcome.replies
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16, dir: &std::path::Path, arguments: &[String]) -> Child {
    Process::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A command of any words; names of commands are static, so those that tests need are listed.
fn raw(words: &[&[u8]]) -> Command {
    let name: &'static str = match std::str::from_utf8(words[0]).unwrap() {
        "XADD" => "XADD",
        "XGROUP" => "XGROUP",
        "XREADGROUP" => "XREADGROUP",
        "XACK" => "XACK",
        "XDEL" => "XDEL",
        "LPUSH" => "LPUSH",
        "RPUSH" => "RPUSH",
        "LPOP" => "LPOP",
        "RPOP" => "RPOP",
        "SET" => "SET",
        "DEL" => "DEL",
        "ACL" => "ACL",
        "CLUSTER" => "CLUSTER",
        "CONFIG" => "CONFIG",
        "SELECT" => "SELECT",
        "DEBUG" => "DEBUG",
        "REPLICAOF" => "REPLICAOF",
        other => panic!("add {other} here"),
    };
    Command::new(name, &words[1..])
}

/// Accepts connections and answers each with what `script` says, byte for byte, whatever is asked; then closes after
/// `hold`.
pub(crate) async fn scripted(script: Vec<&'static [u8]>, hold: Duration) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for answer in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0u8; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer).await;
            tokio::time::sleep(hold).await;
        }
    });
    address
}
