//! What tests of discoverers share: a small HTTP server that answers as told and remembers what it was asked, and a
//! discoverer that runs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::{ConfigPath, Labels, ManualClock};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{DiscoveryConfig, DiscoveryContext, GroupSender, SdMetrics, TargetGroup, UPDATES_MAX};

/// Longest wait for something that is to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Parameters, decoded; of several values the last.
    pub(crate) query: BTreeMap<String, String>,
    /// As it came.
    pub(crate) query_text: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// An answer, possibly a late one.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    delay: Duration,
}

impl Answer {
    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self::new(200, body).with("content-type", "application/json")
    }

    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), delay: Duration::ZERO }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn late(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A server on loopback.
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl ApiServer {
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler = Arc::new(handler);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                        async move {
                            let asked = received(request).await;
                            log.lock().push(asked.clone());
                            let answer = handler(&asked);
                            tokio::time::sleep(answer.delay).await;
                            let mut response = Response::builder().status(answer.status);
                            for (name, value) in answer.headers {
                                response = response.header(name, value);
                            }
                            Ok::<_, Infallible>(response.body(Full::new(answer.body)).unwrap())
                        }
                    });
                    // Clients go when they like.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, asked, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn received(request: Request<Incoming>) -> Asked {
    let (parts, body) = request.into_parts();
    let query_text = parts.uri.query().unwrap_or_default().to_owned();
    Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: url::form_urlencoded::parse(query_text.as_bytes()).into_owned().collect(),
        query_text,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// What discoverers are started with.
pub(crate) fn context() -> DiscoveryContext {
    DiscoveryContext {
        job_name: "job".into(),
        metrics: Arc::new(SdMetrics::new(&Registry::new()).unwrap()),
        user_agent: "Nilometer/test".into(),
        clock: Arc::new(ManualClock::new(0)),
    }
}

/// A discoverer that runs, and what it has found.
pub(crate) struct Running {
    pub(crate) metrics: Arc<SdMetrics>,
    /// All groups there are, by source.
    pub(crate) groups: BTreeMap<String, TargetGroup>,
    receiver: mpsc::Receiver<(usize, Vec<TargetGroup>)>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(config: &dyn DiscoveryConfig) -> Self {
        Self::start_with(config, &context())
    }

    pub(crate) fn start_with(config: &dyn DiscoveryConfig, context: &DiscoveryContext) -> Self {
        let (sender, receiver) = mpsc::channel(UPDATES_MAX);
        let task = tokio::spawn(config.discoverer(context).run(GroupSender { provider: 0, sender }));
        Self { metrics: Arc::clone(&context.metrics), groups: BTreeMap::new(), receiver, task }
    }

    /// The next update.
    pub(crate) async fn next(&mut self) -> Vec<TargetGroup> {
        self.next_within(PATIENCE).await
    }

    /// The next update, for tests whose clock runs fast.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Vec<TargetGroup> {
        let (_, update) = tokio::time::timeout(patience, self.receiver.recv())
            .await
            .expect("an update was to come")
            .expect("the discoverer was to go on");
        for group in &update {
            if group.targets.is_empty() {
                self.groups.remove(&group.source);
            } else {
                self.groups.insert(group.source.clone(), group.clone());
            }
        }
        update
    }

    /// Takes updates until `done`.
    pub(crate) async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            self.next().await;
        }
    }

    /// Whether an update is waiting.
    pub(crate) fn has_spoken(&self) -> bool {
        !self.receiver.is_empty()
    }

    /// Labels of all targets, those of their groups included, in order of sources.
    pub(crate) fn targets(&self) -> Vec<Labels> {
        let whole = |group: &TargetGroup, own: &Labels| {
            Labels::from_pairs(
                group.labels.iter().filter(|(name, _)| !own.has(name)).chain(own.iter()).collect::<Vec<_>>(),
            )
        };
        self.groups.values().flat_map(|group| group.targets.iter().map(|own| whole(group, own))).collect()
    }

    /// `__address__` of all targets.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.targets().iter().map(|labels| labels.value("__address__").to_owned()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until something holds that no update tells of.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// The place of an entry and the folder of its file, for `build`.
pub(crate) fn place() -> (ConfigPath, &'static Path) {
    (ConfigPath::root().key("sd").index(0), Path::new("/etc/nilometer"))
}
