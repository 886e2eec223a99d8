//! A small SMTP server that records mails: plain, STARTTLS or TLS from the start, with and without authentication.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server is like.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// Offer STARTTLS.
    pub(crate) starttls: bool,
    /// TLS from the first byte.
    pub(crate) implicit: bool,
    /// Mechanisms that are offered.
    pub(crate) auth: &'static str,
    /// Refuse the first so many mails with a temporary error.
    pub(crate) refuse: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReceivedMail {
    pub(crate) encrypted: bool,
    pub(crate) hello: String,
    /// Decoded: `PLAIN identity user password`.
    pub(crate) auth: Option<String>,
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) data: String,
}

pub(crate) struct SmtpSink {
    pub(crate) port: u16,
    pub(crate) mails: Arc<Mutex<Vec<ReceivedMail>>>,
    pub(crate) ca_pem: String,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl SmtpSink {
    pub(crate) async fn start(setup: Setup) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca_pem = certified.cert.pem();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let refused = Arc::new(Mutex::new(setup.refuse));
        let (sink, left) = (Arc::clone(&mails), Arc::clone(&refused));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let session = Session {
                    setup: setup.clone(),
                    acceptor: acceptor.clone(),
                    mails: Arc::clone(&sink),
                    refuse: Arc::clone(&left),
                };
                tokio::spawn(async move { session.run(Box::new(tcp)).await });
            }
        });
        Self { port, mails, ca_pem }
    }

    pub(crate) fn mails(&self) -> Vec<ReceivedMail> {
        self.mails.lock().clone()
    }
}

struct Session {
    setup: Setup,
    acceptor: TlsAcceptor,
    mails: Arc<Mutex<Vec<ReceivedMail>>>,
    refuse: Arc<Mutex<usize>>,
}

impl Session {
    async fn run(self, stream: Box<dyn Stream>) -> Option<()> {
        let mut encrypted = self.setup.implicit;
        let stream: Box<dyn Stream> =
            if encrypted { Box::new(self.acceptor.accept(stream).await.ok()?) } else { stream };
        let mut stream = BufReader::new(stream);
        say(&mut stream, "220 sink ESMTP").await?;
        let (mut hello, mut auth, mut from, mut to) = (String::new(), None, String::new(), Vec::new());
        loop {
            let line = hear(&mut stream).await?;
            let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    hello = rest.to_owned();
                    let mut lines = vec!["sink".to_owned(), "8BITMIME".to_owned()];
                    if self.setup.starttls && !encrypted {
                        lines.push("STARTTLS".to_owned());
                    }
                    if !self.setup.auth.is_empty() {
                        lines.push(format!("AUTH {}", self.setup.auth));
                    }
                    let last = lines.len() - 1;
                    for (index, text) in lines.iter().enumerate() {
                        say(&mut stream, &format!("250{}{text}", if index == last { ' ' } else { '-' }))
                            .await?;
                    }
                }
                "STARTTLS" => {
                    say(&mut stream, "220 go ahead").await?;
                    assert!(stream.buffer().is_empty(), "the client talks before encryption");
                    let tls = self.acceptor.accept(stream.into_inner()).await.ok()?;
                    stream = BufReader::new(Box::new(tls) as Box<dyn Stream>);
                    encrypted = true;
                    hello.clear();
                }
                "AUTH" => {
                    let got = self.authenticate(&mut stream, rest).await?;
                    if got.ends_with(" wrong") {
                        say(&mut stream, "535 authentication failed").await?;
                        continue;
                    }
                    auth = Some(got);
                    say(&mut stream, "235 ok").await?;
                }
                "MAIL" => {
                    from = rest.to_owned();
                    say(&mut stream, "250 ok").await?;
                }
                "RCPT" => {
                    to.push(rest.to_owned());
                    say(&mut stream, "250 ok").await?;
                }
                "DATA" => {
                    say(&mut stream, "354 go").await?;
                    let mut data = String::new();
                    loop {
                        let line = hear(&mut stream).await?;
                        if line == "." {
                            break;
                        }
                        data.push_str(line.strip_prefix('.').unwrap_or(&line));
                        data.push('\n');
                    }
                    let refuse = {
                        let mut left = self.refuse.lock();
                        let refuse = *left > 0;
                        *left = left.saturating_sub(1);
                        refuse
                    };
                    if refuse {
                        say(&mut stream, "451 try again later").await?;
                        continue;
                    }
                    let (from, to) = (std::mem::take(&mut from), std::mem::take(&mut to));
                    let mail =
                        ReceivedMail { encrypted, hello: hello.clone(), auth: auth.clone(), from, to, data };
                    self.mails.lock().push(mail);
                    say(&mut stream, "250 taken").await?;
                }
                "QUIT" => {
                    say(&mut stream, "221 bye").await?;
                    return Some(());
                }
                _ => say(&mut stream, "500 what").await?,
            }
        }
    }

    async fn authenticate(&self, stream: &mut BufReader<Box<dyn Stream>>, rest: &str) -> Option<String> {
        let decode = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        match rest.split_once(' ').unwrap_or((rest, "")) {
            ("PLAIN", initial) => Some(format!("PLAIN {}", decode(initial).replace('\0', " "))),
            ("LOGIN", _) => {
                say(stream, "334 VXNlcm5hbWU6").await?;
                let user = decode(&hear(stream).await?);
                say(stream, "334 UGFzc3dvcmQ6").await?;
                Some(format!("LOGIN {user} {}", decode(&hear(stream).await?)))
            }
            ("CRAM-MD5", _) => {
                say(
                    stream,
                    &format!("334 {}", STANDARD.encode("<1896.697170952@postoffice.reston.mci.net>")),
                )
                .await?;
                Some(format!("CRAM-MD5 {}", decode(&hear(stream).await?)))
            }
            _ => None,
        }
    }
}

async fn say(stream: &mut BufReader<Box<dyn Stream>>, line: &str) -> Option<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

async fn hear(stream: &mut BufReader<Box<dyn Stream>>) -> Option<String> {
    let mut line = String::new();
    let count = stream.read_line(&mut line).await.ok()?;
    (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}
