//! One SMTP conversation: connection, TLS from the start or by STARTTLS, authentication, one mail.
//!
//! The commands around the mail are lettre's ([`AsyncSmtpConnection`]). TLS is ours, so that mail has the same
//! `tls_config` as HTTP: for STARTTLS the few lines before it are spoken here, and lettre takes over the encrypted
//! stream behind a greeting made up for it. Authentication is ours too: lettre has no CRAM-MD5 and no authorisation
//! identity for PLAIN.
//!
//! Nothing that a server may not see goes out before encryption when TLS is required; what a server says before
//! encryption is not believed after it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::Envelope;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use md5::{Digest as _, Md5};
use model::Secret;
use net::tls::TlsConfig;
use rustls::pki_types::ServerName;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// More than any sane server says in one conversation.
const READ_BYTES_MAX: usize = 1 << 20;
/// Longest line of a reply before STARTTLS.
const LINE_BYTES_MAX: u64 = 4096;
/// Most lines of a reply before STARTTLS.
const LINES_MAX: usize = 200;

/// Where and how to deliver.
#[derive(Debug)]
pub struct SmtpServer<'a> {
    /// Name or address.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// What we call ourselves.
    pub hello: &'a str,
    /// TLS from the first byte.
    pub implicit_tls: bool,
    /// Refuse to go on without STARTTLS.
    pub require_tls: bool,
    /// TLS settings.
    pub tls: &'a TlsConfig,
}

/// Who we are; used when the server offers authentication.
#[derive(Debug)]
pub struct SmtpLogin {
    /// User.
    pub username: String,
    /// Password for PLAIN and LOGIN.
    pub password: Option<Secret>,
    /// Secret for CRAM-MD5.
    pub secret: Option<Secret>,
    /// Authorisation identity for PLAIN.
    pub identity: String,
}

/// What went wrong where. No text holds a credential.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct SmtpError {
    /// What was being done.
    pub step: &'static str,
    /// The system's or the server's answer.
    pub reason: String,
}

fn failed(step: &'static str) -> impl Fn(&dyn fmt::Display) -> SmtpError {
    move |reason| SmtpError { step, reason: reason.to_string() }
}

/// Delivers one mail.
///
/// # Errors
/// At the first step that fails; whether the mail was taken is then unknown only if that step is `deliver mail`.
pub async fn deliver(
    server: &SmtpServer<'_>,
    login: Option<&SmtpLogin>,
    envelope: &Envelope,
    mail: &[u8],
) -> Result<(), SmtpError> {
    let stream = connect(server).await?;
    let (encrypted, peer) = (stream.is_encrypted(), stream.peer);
    let hello = ClientId::Domain(server.hello.to_owned());
    let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello)
        .await
        .map_err(|error| failed("start conversation")(&error))?;
    if let Some(login) = login.filter(|login| !login.username.is_empty()) {
        let may_send_password = encrypted || peer.ip().is_loopback();
        authenticate(&mut connection, server.hello, login, may_send_password).await?;
    }
    connection.send(envelope, mail).await.map_err(|error| failed("deliver mail")(&error))?;
    // The mail is taken: how the server says good-bye changes nothing.
    let _ = connection.quit().await;
    Ok(())
}

// ---- connection ----

async fn connect(server: &SmtpServer<'_>) -> Result<MailStream, SmtpError> {
    let tcp = TcpStream::connect((server.host, server.port))
        .await
        .map_err(|error| failed("establish connection to server")(&error))?;
    let peer = tcp.peer_addr().map_err(|error| failed("establish connection to server")(&error))?;
    if server.implicit_tls {
        let tls = handshake(server, tcp).await?;
        return Ok(MailStream::new(Transport::Tls(Box::new(tls)), b"", peer));
    }
    if !server.require_tls {
        return Ok(MailStream::new(Transport::Plain(tcp), b"", peer));
    }
    let tcp = ask_for_tls(server, tcp).await?;
    let tls = handshake(server, tcp).await?;
    // The greeting was read before encryption; lettre waits for one.
    Ok(MailStream::new(Transport::Tls(Box::new(tls)), b"220 encrypted\r\n", peer))
}

async fn handshake(server: &SmtpServer<'_>, tcp: TcpStream) -> Result<TlsStream<TcpStream>, SmtpError> {
    let settings = server.tls.clone();
    // Certificates may be files.
    let config = tokio::task::spawn_blocking(move || settings.client_config())
        .await
        .map_err(|error| failed("read tls_config")(&error))?
        .map_err(|error| failed("read tls_config")(&error))?;
    let name = server.tls.server_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(server.host);
    let name = ServerName::try_from(name.to_owned()).map_err(|error| failed("verify server name")(&error))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| failed("negotiate TLS")(&error))
}

/// The conversation up to the server's "go ahead" for STARTTLS.
async fn ask_for_tls(server: &SmtpServer<'_>, tcp: TcpStream) -> Result<TcpStream, SmtpError> {
    let mut stream = BufReader::new(tcp);
    read_reply(&mut stream, "220", "read greeting").await?;
    write_line(&mut stream, &format!("EHLO {}", server.hello)).await?;
    let extensions = read_reply(&mut stream, "250", "send EHLO command").await?;
    if !extensions.iter().any(|line| line.trim().eq_ignore_ascii_case("STARTTLS")) {
        return Err(SmtpError {
            step: "start TLS",
            reason: format!(
                "'require_tls' is true (default) but \"{}:{}\" does not advertise the STARTTLS extension",
                server.host, server.port
            ),
        });
    }
    write_line(&mut stream, "STARTTLS").await?;
    read_reply(&mut stream, "220", "send STARTTLS command").await?;
    if !stream.buffer().is_empty() {
        // Somebody in between speaks for the server.
        return Err(SmtpError {
            step: "start TLS",
            reason: "the server sent plain text behind its answer to STARTTLS".to_owned(),
        });
    }
    Ok(stream.into_inner())
}

async fn write_line(stream: &mut BufReader<TcpStream>, line: &str) -> Result<(), SmtpError> {
    let line = format!("{line}\r\n");
    stream.write_all(line.as_bytes()).await.map_err(|error| failed("send command")(&error))
}

/// The texts of a reply's lines, if it has the code `expected`.
async fn read_reply(
    stream: &mut BufReader<TcpStream>,
    expected: &str,
    step: &'static str,
) -> Result<Vec<String>, SmtpError> {
    let mut texts = Vec::new();
    while texts.len() < LINES_MAX {
        let mut line = Vec::new();
        let mut limited = (&mut *stream).take(LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut line).await.map_err(|error| failed(step)(&error))?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\r', '\n']);
        let reply = line.split_at_checked(3).filter(|(code, _)| code.bytes().all(|b| b.is_ascii_digit()));
        let Some((code, text)) = reply else {
            return Err(SmtpError { step, reason: format!("no SMTP reply: {line:?}") });
        };
        if code != expected {
            return Err(SmtpError { step, reason: line.to_owned() });
        }
        texts.push(text.get(1..).unwrap_or_default().to_owned());
        if !text.starts_with('-') {
            return Ok(texts);
        }
    }
    Err(SmtpError { step, reason: format!("reply of more than {LINES_MAX} lines") })
}

// ---- authentication ----

async fn authenticate(
    connection: &mut AsyncSmtpConnection,
    hello: &str,
    login: &SmtpLogin,
    may_send_password: bool,
) -> Result<(), SmtpError> {
    // lettre keeps only the mechanisms that it knows, so the list is asked for again.
    let extensions = command(connection, "send EHLO command", &format!("EHLO {hello}")).await?;
    let offered = extensions.message().find_map(|line| {
        let (keyword, mechanisms) = line.split_once([' ', '='])?;
        keyword.eq_ignore_ascii_case("AUTH").then(|| mechanisms.to_ascii_uppercase())
    });
    // A server without authentication takes the mail or refuses it at the sender's address.
    let Some(offered) = offered else { return Ok(()) };
    let mut missing = Vec::new();
    for mechanism in offered.split_whitespace() {
        match (mechanism, &login.password, &login.secret) {
            ("CRAM-MD5", _, Some(secret)) => return cram_md5(connection, login, secret).await,
            ("CRAM-MD5", _, None) => missing.push("missing secret for CRAM-MD5 auth mechanism"),
            ("PLAIN", Some(_), _) if !may_send_password => {
                return Err(SmtpError { step: "auth PLAIN", reason: "unencrypted connection".to_owned() });
            }
            ("PLAIN", Some(password), _) => return plain(connection, login, password).await,
            ("PLAIN", None, _) => missing.push("missing password for PLAIN auth mechanism"),
            ("LOGIN", Some(password), _) => return login_auth(connection, login, password).await,
            ("LOGIN", None, _) => missing.push("missing password for LOGIN auth mechanism"),
            _ => {}
        }
    }
    let reason =
        if missing.is_empty() { format!("unknown auth mechanism: {offered}") } else { missing.join("; ") };
    Err(SmtpError { step: "find auth mechanism", reason })
}

/// Sends a line; lettre turns negative replies into errors, and those quote only the server.
async fn command(
    connection: &mut AsyncSmtpConnection,
    step: &'static str,
    line: &str,
) -> Result<Response, SmtpError> {
    connection.command(format!("{line}\r\n")).await.map_err(|error| failed(step)(&error))
}

async fn plain(
    connection: &mut AsyncSmtpConnection,
    login: &SmtpLogin,
    password: &Secret,
) -> Result<(), SmtpError> {
    let answer = format!("{}\0{}\0{}", login.identity, login.username, password.expose());
    let reply = command(connection, "auth PLAIN", &format!("AUTH PLAIN {}", STANDARD.encode(answer))).await?;
    accepted("auth PLAIN", &reply)
}

async fn login_auth(
    connection: &mut AsyncSmtpConnection,
    login: &SmtpLogin,
    password: &Secret,
) -> Result<(), SmtpError> {
    command(connection, "auth LOGIN", "AUTH LOGIN").await?;
    command(connection, "auth LOGIN", &STANDARD.encode(&login.username)).await?;
    let reply = command(connection, "auth LOGIN", &STANDARD.encode(password.expose())).await?;
    accepted("auth LOGIN", &reply)
}

async fn cram_md5(
    connection: &mut AsyncSmtpConnection,
    login: &SmtpLogin,
    secret: &Secret,
) -> Result<(), SmtpError> {
    let reply = command(connection, "auth CRAM-MD5", "AUTH CRAM-MD5").await?;
    let challenge = reply.first_word().and_then(|word| STANDARD.decode(word).ok());
    let Some(challenge) = challenge else {
        return Err(SmtpError { step: "auth CRAM-MD5", reason: "the challenge is no base64".to_owned() });
    };
    let digest = hmac_md5(secret.expose().as_bytes(), &challenge);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = STANDARD.encode(format!("{} {digest}", login.username));
    let reply = command(connection, "auth CRAM-MD5", &answer).await?;
    accepted("auth CRAM-MD5", &reply)
}

fn accepted(step: &'static str, reply: &Response) -> Result<(), SmtpError> {
    if reply.has_code(235) {
        return Ok(());
    }
    Err(SmtpError { step, reason: format!("unexpected reply {}", reply.code()) })
}

/// RFC 2104 with MD5.
fn hmac_md5(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..16].copy_from_slice(&Md5::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Md5::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Md5::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

// ---- stream ----

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What lettre speaks through: plain or encrypted, with a beginning made up, bounded in what it takes in.
struct MailStream {
    transport: Transport,
    prefix: &'static [u8],
    read_left: usize,
    peer: SocketAddr,
}

impl MailStream {
    fn new(transport: Transport, prefix: &'static [u8], peer: SocketAddr) -> Self {
        Self { transport, prefix, read_left: READ_BYTES_MAX, peer }
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }
}

impl fmt::Debug for MailStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncTokioStream for MailStream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl AsyncRead for MailStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(buf.remaining());
            let (now, later) = self.prefix.split_at(count);
            buf.put_slice(now);
            self.prefix = later;
            return Poll::Ready(Ok(()));
        }
        if self.read_left == 0 {
            return Poll::Ready(Err(io::Error::other("the server talks too much")));
        }
        let before = buf.filled().len();
        let result = match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        };
        self.read_left = self.read_left.saturating_sub(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for MailStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_2202() {
        let hex = |bytes: [u8; 16]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(hmac_md5(&[0x0b; 16], b"Hi There")), "9294727a3638bb1c13f48ef8158bfc9d");
        assert_eq!(
            hex(hmac_md5(b"Jefe", b"what do ya want for nothing?")),
            "750c783e6ab0b503eaa86e310a5db738"
        );
        let long = hmac_md5(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(long), "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd");
    }
}
