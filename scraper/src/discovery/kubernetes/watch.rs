//! One list and the watch that keeps it up to date (the "reflector" of client-go): all objects page by page, then each
//! change as the server tells it, from the version of the list on.
//!
//! - A watch that ends is taken up at the last version seen; bookmarks keep that version fresh.
//! - When the server no longer knows the version (410 Gone, or an error that does not go away), everything is listed
//!   anew.
//! - Failures wait longer each time; what was found stays.
//! - A page, a line, and the number of objects have bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HeaderValue};
use http::{Request, StatusCode};
use net::Backoff;
use net::backoff::BackoffPolicy;
use net::http::{AnswerBody, SendLimits};
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use super::super::trouble::Trouble;
use super::access::{Connector, Server};
use super::metrics::KubernetesMetrics;
use super::objects::{EventKind, ListMeta, Object, Resource, Status};

/// Objects asked for at once (as client-go).
const PAGE_OBJECTS: usize = 500;
/// Most bytes of a page: 500 objects of the largest size etcd takes would be more, but no cluster has those.
const PAGE_MAX_BYTES: u64 = 128 << 20;
/// Most bytes of a line of a watch: etcd's largest object in JSON, with room.
const LINE_MAX_BYTES: usize = 16 << 20;
/// Most objects of one list.
pub(super) const OBJECTS_MAX: usize = 250_000;
/// How long a request may take; for a watch, until its head is there.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long watches last before the server ends them, spread (client-go: 5 to 10 minutes).
const WATCH_LENGTH: BackoffPolicy = BackoffPolicy {
    initial: Duration::from_secs(450),
    factor: 1.0,
    max: Duration::from_secs(450),
    jitter: 0.33,
};
/// How much longer than that the end of a watch is waited for.
const WATCH_GRACE: Duration = Duration::from_secs(30);
/// A watch that lasted this long worked. Tests have no patience.
const WATCH_WORKED: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });
/// Failed watches in a row before everything is listed anew.
const WATCH_FAILURES_MAX: u32 = 5;
/// Waits after failures (client-go: 800 ms, doubled up to 30 s); short in tests.
const RETRY: BackoffPolicy = BackoffPolicy {
    initial: Duration::from_millis(if cfg!(test) { 10 } else { 800 }),
    factor: 2.0,
    max: Duration::from_secs(30),
    jitter: 0.5,
};

/// What a reflector tells.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) scope: usize,
    pub(super) resource: Resource,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum Change {
    /// These are all there are.
    Replaced(Vec<Object>),
    /// New or changed.
    Put(Object),
    /// Gone.
    Deleted(Object),
}

/// Lists and watches one resource.
#[derive(Debug)]
pub(super) struct Reflector {
    pub(super) connector: Arc<Connector>,
    pub(super) resource: Resource,
    /// Which of the discoverer's namespaces this is for.
    pub(super) scope: usize,
    /// All of them with an empty name.
    pub(super) namespace: String,
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    pub(super) metrics: KubernetesMetrics,
    /// Begins with a failure; ends when a list came or a watch works.
    pub(super) trouble: Trouble,
    pub(super) out: mpsc::Sender<Message>,
}

/// Why a list or watch ended before its time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Access(String),
    #[error("{0}")]
    Net(#[from] net::NetError),
    #[error("{code} {reason}: {message}")]
    Refused { code: u16, reason: String, message: String },
    #[error("the version asked for is no longer known: {0}")]
    Gone(String),
    #[error("cannot read the answer: {0}")]
    Decode(String),
    #[error("more than {OBJECTS_MAX} objects")]
    TooManyObjects,
    #[error("a change is longer than {LINE_MAX_BYTES} bytes")]
    LineTooLong,
    #[error("nothing came for longer than the watch was to last")]
    Silent,
    /// Nobody wants to know any more.
    #[error("nobody listens")]
    Closed,
}

impl Reflector {
    /// Lists and watches until nobody listens.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(RETRY);
        let mut failures = 0_u64;
        loop {
            let error = match self.list().await {
                Ok((objects, version)) => {
                    if failures > 0 {
                        tracing::info!(resource = self.resource.plural(), failures, "reading works again");
                        failures = 0;
                    }
                    self.trouble.ends();
                    backoff.reset();
                    if self.send(Change::Replaced(objects)).await.is_err() {
                        return;
                    }
                    let end = self.watch_on(version, &mut backoff).await;
                    // A version that is forgotten is in the nature of watches: only the list may be in trouble.
                    if !matches!(end, Failure::Gone(_) | Failure::Closed) {
                        self.is_troubled_by(&end);
                    }
                    end
                }
                Err(error) => {
                    failures += 1;
                    self.is_troubled_by(&error);
                    error
                }
            };
            if matches!(error, Failure::Closed) {
                return;
            }
            self.failed(&error);
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Says so to those who look at the job.
    fn is_troubled_by(&self, error: &Failure) {
        let place = match self.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" of the namespace {namespace}"),
        };
        let plural = self.resource.plural();
        self.trouble
            .begins(&format_args!("cannot read the {plural}{place}, keeping the last targets: {error}"));
    }

    fn failed(&self, error: &Failure) {
        self.metrics.failures.inc();
        if matches!(error, Failure::Refused { code: 401, .. }) {
            self.connector.refused();
        }
        tracing::warn!(
            resource = self.resource.plural(),
            namespace = self.namespace,
            %error,
            "cannot read from the Kubernetes API, keeping the last targets"
        );
    }

    async fn send(&self, change: Change) -> Result<(), Failure> {
        let message = Message { scope: self.scope, resource: self.resource, change };
        self.out.send(message).await.map_err(|_| Failure::Closed)
    }

    /// All objects, and the version they are of.
    async fn list(&self) -> Result<(Vec<Object>, String), Failure> {
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let limit = PAGE_OBJECTS.to_string();
            let mut params = vec![("limit", limit.as_str())];
            if !next.is_empty() {
                params.push(("continue", next.as_str()));
            }
            let server = self.server().await?;
            let request = self.request(&server.url, &params)?;
            let limits = SendLimits { timeout: TIMEOUT, body_max_bytes: PAGE_MAX_BYTES };
            let answer = server.client.send(request, limits).await;
            let answer = self.counted(answer)?;
            if answer.status() != StatusCode::OK {
                return Err(refusal(answer.status(), answer.body()));
            }
            let (meta, page) = self.decoded(answer.into_body()).await?;
            objects.extend(page);
            if objects.len() > OBJECTS_MAX {
                return Err(Failure::TooManyObjects);
            }
            if meta.next.is_empty() {
                return Ok((objects, meta.resource_version));
            }
            next = meta.next;
        }
    }

    async fn decoded(&self, body: Bytes) -> Result<(ListMeta, Vec<Object>), Failure> {
        let resource = self.resource;
        // Many megabytes: off the reactor.
        tokio::task::spawn_blocking(move || resource.list(&body))
            .await
            .map_err(|error| Failure::Decode(error.to_string()))?
            .map_err(|error| Failure::Decode(error.to_string()))
    }

    /// Watches from `version` on until everything must be listed anew; says why.
    async fn watch_on(&self, mut version: String, backoff: &mut Backoff) -> Failure {
        let mut failed_in_row = 0;
        loop {
            let began = Instant::now();
            let end = self.watch(&mut version).await;
            let worked = began.elapsed() >= WATCH_WORKED;
            if worked {
                backoff.reset();
                failed_in_row = 0;
            }
            match end {
                // The server ends watches; soon after their start only when something is wrong.
                Ok(()) if worked => continue,
                Ok(()) => {}
                Err(error @ (Failure::Gone(_) | Failure::Closed | Failure::LineTooLong)) => return error,
                Err(error) => {
                    failed_in_row += 1;
                    if failed_in_row >= WATCH_FAILURES_MAX {
                        return error;
                    }
                    self.is_troubled_by(&error);
                    self.failed(&error);
                }
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// One watch, to its end.
    async fn watch(&self, version: &mut String) -> Result<(), Failure> {
        let length = Backoff::new(WATCH_LENGTH).next_wait();
        let seconds = length.as_secs().to_string();
        let params = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
            ("resourceVersion", version.as_str()),
        ];
        let server = self.server().await?;
        let request = self.request(&server.url, &params)?;
        let answer = self.counted(server.client.open(request, TIMEOUT).await)?;
        let status = answer.status();
        let mut body = answer.into_body();
        if status != StatusCode::OK {
            // The reason is short; whoever sends more is cut off.
            let head = tokio::time::timeout(TIMEOUT, body.chunk()).await.unwrap_or(Ok(None))?;
            return Err(refusal(status, &head.unwrap_or_default()));
        }
        let lines = self.lines(body, length + WATCH_GRACE, version);
        tokio::pin!(lines);
        tokio::select! {
            end = &mut lines => return end,
            // Where nothing changes there is no line for long.
            () = tokio::time::sleep(WATCH_WORKED) => self.trouble.ends(),
        }
        lines.await
    }

    /// Takes in what a watch tells, to its end or until it is silent for `patience`.
    async fn lines(
        &self,
        mut body: AnswerBody,
        patience: Duration,
        version: &mut String,
    ) -> Result<(), Failure> {
        let mut buffer = BytesMut::new();
        let mut is_first = true;
        loop {
            let chunk = tokio::time::timeout(patience, body.chunk());
            let Some(chunk) = chunk.await.map_err(|_| Failure::Silent)?? else { return Ok(()) };
            let mut searched = buffer.len();
            buffer.extend_from_slice(&chunk);
            while let Some(end) = memchr::memchr(b'\n', &buffer[searched..]) {
                let line = buffer.split_to(searched + end + 1);
                searched = 0;
                self.line(line.trim_ascii(), version).await?;
                if std::mem::take(&mut is_first) {
                    self.trouble.ends();
                }
            }
            if buffer.len() > LINE_MAX_BYTES {
                return Err(Failure::LineTooLong);
            }
        }
    }

    async fn line(&self, line: &[u8], version: &mut String) -> Result<(), Failure> {
        if line.is_empty() {
            return Ok(());
        }
        let decode = |error: serde_json::Error| Failure::Decode(error.to_string());
        let kind = serde_json::from_slice::<EventKind>(line).map_err(decode)?.kind;
        if kind == "ERROR" {
            let event: super::objects::Event<Status> = serde_json::from_slice(line).map_err(decode)?;
            return Err(refused(event.object, 500));
        }
        let (object, at) = self.resource.event(line).map_err(decode)?;
        match kind.as_str() {
            "ADDED" | "MODIFIED" => self.send(Change::Put(object)).await?,
            "DELETED" => self.send(Change::Deleted(object)).await?,
            // A bookmark, or something newer than this code: only its version counts.
            _ => {}
        }
        if !at.is_empty() {
            *version = at;
        }
        Ok(())
    }

    async fn server(&self) -> Result<Server, Failure> {
        self.connector.server().await.map_err(Failure::Access)
    }

    fn counted<T>(
        &self,
        answer: Result<http::Response<T>, net::NetError>,
    ) -> Result<http::Response<T>, net::NetError> {
        let code = answer
            .as_ref()
            .map_or_else(|_| "<error>".to_owned(), |answer| answer.status().as_str().to_owned());
        self.metrics.requests.with_label_values(&[&code]).inc();
        answer
    }

    fn request(&self, server: &Url, params: &[(&str, &str)]) -> Result<Request<Bytes>, Failure> {
        let mut url = server.clone();
        let path = format!("{}/{}", server.path().trim_end_matches('/'), self.resource.path(&self.namespace));
        url.set_path(&path);
        {
            let mut query = url.query_pairs_mut();
            query.clear();
            for (selector, text) in
                [("labelSelector", &self.label_selector), ("fieldSelector", &self.field_selector)]
            {
                if !text.is_empty() {
                    query.append_pair(selector, text);
                }
            }
            query.extend_pairs(params);
        }
        let mut request = Request::get(url.as_str())
            .body(Bytes::new())
            .map_err(|error| Failure::Access(format!("invalid url: {error}")))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(request)
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let mut answer: Status = serde_json::from_slice(body).unwrap_or_default();
    if answer.reason.is_empty() {
        answer.reason = status.canonical_reason().unwrap_or("refused").to_owned();
    }
    answer.code = status.as_u16();
    refused(answer, status.as_u16())
}

fn refused(answer: Status, default: u16) -> Failure {
    let code = if answer.code == 0 { default } else { answer.code };
    if code == StatusCode::GONE.as_u16() || answer.reason == "Expired" {
        return Failure::Gone(answer.message);
    }
    Failure::Refused { code, reason: answer.reason, message: answer.message }
}
