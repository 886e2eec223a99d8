//! Ways through a proxy to a byte stream: HTTP's `CONNECT`, and SOCKS 5 (RFC 1928, 1929).
//!
//! Nothing is read beyond the proxy's answer: what follows belongs to the target.

use http::{HeaderName, HeaderValue};
use model::Secret;
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::proxy::{Proxy, join_host_port};

/// Most bytes of an answer to `CONNECT`.
const ANSWER_MAX: usize = 16 << 10;

/// Asks an HTTP proxy for a tunnel to `host:port`.
///
/// # Errors
/// The proxy's status, or what else went wrong.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Proxy,
    headers: &[(HeaderName, Secret)],
    (host, port): (&str, u16),
    user_agent: &str,
) -> Result<(), String> {
    let address = join_host_port(host, port);
    let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n").into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    };
    if !headers.iter().any(|(name, _)| *name == http::header::USER_AGENT)
        && let Ok(agent) = HeaderValue::from_str(user_agent)
    {
        line("User-Agent", agent.as_bytes());
    }
    if let Some(value) = proxy.authorization() {
        line("Proxy-Authorization", value.as_bytes());
    }
    for (name, value) in headers {
        line(&super::config::canonical(name), value.expose().as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    let lost = |error: std::io::Error| error.to_string();
    stream.write_all(&request).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;

    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_MAX {
            return Err("the answer to CONNECT is too long".to_owned());
        }
        // Byte by byte: the target may speak at once, and its bytes are not ours.
        answer.push(stream.read_u8().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            _ => error.to_string(),
        })?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)).map(str::trim);
    match status {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(status) if status.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(status.chars().filter(|c| !c.is_control()).take(200).collect())
        }
        _ => Err("malformed HTTP response".to_owned()),
    }
}

/// Asks a SOCKS 5 proxy for a connection to `host:port`. Names are looked up by the proxy.
///
/// # Errors
/// The proxy's reason, or what else went wrong.
pub(super) async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Proxy,
    (host, port): (&str, u16),
) -> Result<(), String> {
    let lost = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        _ => error.to_string(),
    };
    const NO_AUTHENTICATION: u8 = 0;
    const PASSWORD: u8 = 2;
    let greeting: &[u8] = match &proxy.credentials {
        None => &[5, 1, NO_AUTHENTICATION],
        Some(_) => &[5, 2, NO_AUTHENTICATION, PASSWORD],
    };
    stream.write_all(greeting).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await.map_err(lost)?;
    match (chosen, &proxy.credentials) {
        ([5, NO_AUTHENTICATION], _) => {}
        ([5, PASSWORD], Some((user, password))) => {
            let mut message = vec![1];
            for text in [user.expose(), password.expose()] {
                message.push(u8::try_from(text.len()).map_err(|_| "invalid username/password")?);
                message.extend_from_slice(text.as_bytes());
            }
            stream.write_all(&message).await.map_err(lost)?;
            stream.flush().await.map_err(lost)?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.map_err(lost)?;
            if answer[1] != 0 {
                return Err("username/password authentication failed".to_owned());
            }
        }
        ([5, _], _) => return Err("no acceptable authentication methods".to_owned()),
        ([version, _], _) => return Err(format!("unexpected protocol version {version}")),
    }

    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.push(3);
            request.push(u8::try_from(host.len()).map_err(|_| "FQDN too long")?);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    if answer[0] != 5 {
        return Err(format!("unexpected protocol version {}", answer[0]));
    }
    let reason = match answer[1] {
        0 => None,
        1 => Some("general SOCKS server failure"),
        2 => Some("connection not allowed by ruleset"),
        3 => Some("network unreachable"),
        4 => Some("host unreachable"),
        5 => Some("connection refused"),
        6 => Some("TTL expired"),
        7 => Some("command not supported"),
        8 => Some("address type not supported"),
        _ => Some("unknown code"),
    };
    if let Some(reason) = reason {
        return Err(reason.to_owned());
    }
    // The address the proxy speaks from: of no use, but it must be gone.
    let length = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(lost)?),
        other => return Err(format!("unknown address type {other}")),
    };
    let mut bound = [0; 257];
    stream.read_exact(&mut bound[..length + 2]).await.map_err(lost)?;
    Ok(())
}
