//! HTTP over a Unix socket: for daemons on this machine (Docker's).

use std::path::Path;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::client::{SendLimits, read_body};
use super::trouble::root_cause;
use crate::error::NetError;

/// Sends `request`, whose URI is a path with its query, to the daemon that listens at `socket`, over a connection of
/// its own. Redirects are not followed; any status is an answer.
///
/// # Errors
/// When no whole answer came within the bounds.
pub async fn send_over_unix(
    socket: &Path,
    request: Request<Bytes>,
    limits: SendLimits,
) -> Result<Response<Bytes>, NetError> {
    tokio::time::timeout(limits.timeout, exchange(socket, request, limits.body_max_bytes))
        .await
        .map_err(|_| NetError::Timeout)?
}

async fn exchange(
    socket: &Path,
    mut request: Request<Bytes>,
    body_max: u64,
) -> Result<Response<Bytes>, NetError> {
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    let stream = UnixStream::connect(socket).await.map_err(|error| NetError::Connect {
        address: socket.display().to_string(),
        reason: format!("connect: {}", without_code(&error)),
    })?;
    let protocol = |error: hyper::Error| NetError::Protocol(root_cause(&error));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
    // Both at once in this task: nothing is left behind when the caller goes away.
    let answer = async {
        let answer = sender.send_request(request.map(Full::new)).await.map_err(protocol)?;
        read_body(answer, body_max).await
    };
    tokio::pin!(answer, connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            // The end of the connection may be the end of the answer's body: that one reports.
            _ = &mut connection, if open => open = false,
        }
    }
}

/// The system's words as Go has them: `no such file or directory`, not `No such file or directory (os error 2)`.
fn without_code(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    const LIMITS: SendLimits = SendLimits { timeout: Duration::from_secs(5), body_max_bytes: 20 };

    async fn ask(answer: &'static [u8]) -> (Result<Response<Bytes>, NetError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("d.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1000];
            let read = stream.read(&mut head).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let request = Request::get("/info?a=b").body(Bytes::new()).unwrap();
        (send_over_unix(&socket, request, LIMITS).await, server.await.unwrap())
    }

    #[tokio::test]
    async fn a_daemon_answers_with_and_without_length() {
        let (answer, head) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(answer.unwrap().into_body(), "hello");
        assert!(head.to_lowercase().starts_with("get /info?a=b http/1.1\r\nhost: localhost\r\n"), "{head}");
        let (answer, _) = ask(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nnone").await;
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.into_body().as_ref()), (404, b"none".as_slice()));
    }

    #[tokio::test]
    async fn too_much_too_little_and_nobody_are_errors() {
        let (answer, _) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n123456789012345678901").await;
        assert!(matches!(answer, Err(NetError::BodyTooLarge { limit: 20 })), "{answer:?}");
        let (answer, _) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123").await;
        assert!(matches!(answer, Err(NetError::UnexpectedEof)), "{answer:?}");
        let request = Request::get("/").body(Bytes::new()).unwrap();
        let error = send_over_unix(Path::new("/nonexistent/d.sock"), request, LIMITS).await.unwrap_err();
        assert_eq!(error.to_string(), "dial tcp /nonexistent/d.sock: connect: no such file or directory");
    }
}
