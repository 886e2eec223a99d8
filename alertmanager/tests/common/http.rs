//! A small HTTP server that records requests and answers as told.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

/// `(status, header, body)`; status 0 hangs.
pub(crate) type Scripted = (u16, Option<(&'static str, String)>, &'static str);

pub(crate) struct HttpSink {
    pub(crate) port: u16,
    pub(crate) requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    /// Taken from the front; 200 when empty.
    pub(crate) answers: Arc<Mutex<Vec<Scripted>>>,
}

impl HttpSink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers: Arc<Mutex<Vec<Scripted>>> = Arc::default();
        let (sink, script) = (Arc::clone(&requests), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (sink, script) = (Arc::clone(&sink), Arc::clone(&script));
                let service = service_fn(move |request| {
                    let (sink, script) = (Arc::clone(&sink), Arc::clone(&script));
                    async move { Ok::<_, Infallible>(answer(request, &sink, &script).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service),
                );
            }
        });
        Self { port, requests, answers }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    sink: &Mutex<Vec<ReceivedRequest>>,
    script: &Mutex<Vec<Scripted>>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    sink.lock().push(ReceivedRequest {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers.iter().map(header).collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let scripted = {
        let mut script = script.lock();
        if script.is_empty() { (200, None, "") } else { script.remove(0) }
    };
    let (status, header, text) = scripted;
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(text))).unwrap()
}
