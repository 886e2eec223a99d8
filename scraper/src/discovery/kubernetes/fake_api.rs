//! An API server for tests: lists in pages, watches with history, and the ways in which they fail.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request as received.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) authorization: String,
    pub(super) agent: String,
}

impl Asked {
    pub(super) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct State {
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    /// Version, plural, namespace, line.
    history: Vec<(u64, String, String, String)>,
    version: u64,
    /// Versions before this are forgotten.
    floor: u64,
    asked: Vec<Asked>,
    /// What everybody gets instead of an answer.
    refusal: Option<(u16, String)>,
    /// A namespace nobody may read.
    forbidden: Option<String>,
    /// The only token that is let in.
    token: Option<String>,
    /// Ends all watches when it changes.
    generation: u64,
}

/// The server.
pub(super) struct FakeApi {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    news: watch::Sender<()>,
    task: JoinHandle<()>,
}

/// Objects in a page, whatever the client asks for.
const PAGE: usize = 2;

type Body = BoxBody<Bytes, Infallible>;

impl FakeApi {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { version: 1, ..State::default() }));
        let (news, _) = watch::channel(());
        let (shared, bell) = (Arc::clone(&state), news.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, bell) = (Arc::clone(&shared), bell.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&request, &shared, &bell);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, state, news, task }
    }

    /// Writes an object.
    pub(super) fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = key(plural, &object);
        let kind =
            if state.objects.insert(key.clone(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        let line = json!({"type": kind, "object": object}).to_string();
        state.history.push((version, key.0, key.1, line));
        drop(state);
        self.news.send_replace(());
    }

    pub(super) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.remove(&(plural.into(), namespace.into(), name.into())).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let line = json!({"type": "DELETED", "object": object}).to_string();
        state.history.push((version, plural.into(), namespace.into(), line));
        drop(state);
        self.news.send_replace(());
    }

    /// Tells watches of `plural` this line.
    pub(super) fn say(&self, plural: &str, line: &str) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        state.history.push((version, plural.into(), String::new(), line.into()));
        drop(state);
        self.news.send_replace(());
    }

    /// Ends all watches.
    pub(super) fn end_watches(&self) {
        self.state.lock().generation += 1;
        self.news.send_replace(());
    }

    /// Forgets all that has happened.
    pub(super) fn forget(&self) {
        let mut state = self.state.lock();
        state.version += 1;
        state.floor = state.version;
        state.history.clear();
    }

    pub(super) fn refuse(&self, refusal: Option<(u16, &str)>) {
        self.state.lock().refusal = refusal.map(|(code, reason)| (code, reason.to_owned()));
    }

    pub(super) fn forbid(&self, namespace: &str) {
        self.state.lock().forbidden = Some(namespace.to_owned());
    }

    pub(super) fn admit(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.state.lock().asked.clone()
    }

    /// Requests for lists of `plural` from their start.
    pub(super) fn lists(&self, plural: &str) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|asked| {
                !asked.is_watch() && asked.path.ends_with(plural) && asked.param("continue").is_empty()
            })
            .count()
    }

    pub(super) fn watches(&self, plural: &str) -> usize {
        self.asked().iter().filter(|asked| asked.is_watch() && asked.path.ends_with(plural)).count()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key(plural: &str, object: &Value) -> (String, String, String) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (plural.to_owned(), text("namespace"), text("name"))
}

fn answer(
    request: &Request<Incoming>,
    state: &Arc<Mutex<State>>,
    news: &watch::Sender<()>,
) -> Response<Body> {
    let header =
        |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let asked = Asked {
        path: request.uri().path().to_owned(),
        query: url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect(),
        authorization: header("authorization"),
        agent: header("user-agent"),
    };
    let mut locked = state.lock();
    locked.asked.push(asked.clone());
    if let Some((code, reason)) = &locked.refusal {
        return refused(*code, reason);
    }
    if locked.token.as_ref().is_some_and(|token| asked.authorization != format!("Bearer {token}")) {
        return refused(401, "Unauthorized");
    }
    let parts: Vec<&str> = asked.path.split('/').collect();
    let plural = parts.last().unwrap().to_string();
    let namespace = match parts.iter().position(|part| *part == "namespaces") {
        Some(at) if at + 2 < parts.len() => parts[at + 1].to_owned(),
        _ => String::new(),
    };
    if !namespace.is_empty() && locked.forbidden.as_ref() == Some(&namespace) {
        return refused(403, "Forbidden");
    }
    let is_here = |plural_of: &str, namespace_of: &str| {
        plural_of == plural && (namespace.is_empty() || namespace_of == namespace)
    };
    if asked.is_watch() {
        let from: u64 = asked.param("resourceVersion").parse().unwrap();
        if from < locked.floor {
            return refused(410, "Expired");
        }
        let generation = locked.generation;
        drop(locked);
        return watching(state, news.subscribe(), plural, namespace, from, generation);
    }
    let start: usize = asked.param("continue").parse().unwrap_or(0);
    let all: Vec<&Value> = locked
        .objects
        .iter()
        .filter(|((plural_of, namespace_of, _), _)| is_here(plural_of, namespace_of))
        .map(|(_, object)| object)
        .collect();
    let page: Vec<&Value> = all.iter().skip(start).take(PAGE).copied().collect();
    let next = if start + PAGE < all.len() { (start + PAGE).to_string() } else { String::new() };
    // A server without objects writes null.
    let items = if page.is_empty() { Value::Null } else { json!(page) };
    let body = json!({
        "kind": "List", "items": items,
        "metadata": {"resourceVersion": locked.version.to_string(), "continue": next},
    });
    Response::new(Full::new(Bytes::from(body.to_string())).boxed())
}

fn refused(code: u16, reason: &str) -> Response<Body> {
    let body =
        json!({"kind": "Status", "status": "Failure", "message": "no way", "reason": reason, "code": code});
    Response::builder().status(code).body(Full::new(Bytes::from(body.to_string())).boxed()).unwrap()
}

fn watching(
    state: &Arc<Mutex<State>>,
    news: watch::Receiver<()>,
    plural: String,
    namespace: String,
    from: u64,
    generation: u64,
) -> Response<Body> {
    let state = Arc::clone(state);
    let lines = stream::unfold((news, from), move |(mut news, mut from)| {
        let (state, plural, namespace) = (Arc::clone(&state), plural.clone(), namespace.clone());
        async move {
            loop {
                {
                    let state = state.lock();
                    if state.generation != generation {
                        return None;
                    }
                    let lines: Vec<&str> = state
                        .history
                        .iter()
                        .filter(|(version, plural_of, namespace_of, _)| {
                            *version > from
                                && *plural_of == plural
                                && (namespace.is_empty() || *namespace_of == namespace)
                        })
                        .map(|(_, _, _, line)| line.as_str())
                        .collect();
                    from = state.version;
                    if !lines.is_empty() {
                        let chunk = Bytes::from(lines.join("\n") + "\n");
                        drop(state);
                        return Some((Ok::<_, Infallible>(Frame::data(chunk)), (news, from)));
                    }
                }
                news.changed().await.ok()?;
            }
        }
    });
    Response::new(BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(lines))))))
}

/// A stream that may be looked at from several threads, as boxed bodies must be.
struct SyncStream<S>(Mutex<S>);

impl<S: stream::Stream + Unpin> stream::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        let mut inner = self.0.lock();
        std::pin::Pin::new(&mut *inner).poll_next(context)
    }
}
