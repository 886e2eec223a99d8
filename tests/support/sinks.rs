//! Sinks: an HTTP server and an SMTP server that accept everything and write it down.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Bodies posted to it, in order.
#[derive(Clone, Debug)]
pub struct HttpSink {
    pub port: u16,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl HttpSink {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve_http(stream.unwrap(), &log));
            }
        });
        Self { port, bodies }
    }

    /// What was posted, as JSON.
    pub fn posts(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }
}

fn serve_http(stream: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut first = true;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim_end().is_empty() && !first {
                break;
            }
            first = false;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        log.lock().unwrap().push(String::from_utf8(body).unwrap());
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}

/// Mails handed to it, headers and body as sent.
#[derive(Clone, Debug)]
pub struct SmtpSink {
    pub port: u16,
    mails: Arc<Mutex<Vec<String>>>,
}

impl SmtpSink {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&mails);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve_smtp(stream.unwrap(), &log));
            }
        });
        Self { port, mails }
    }

    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

/// RFC 5321 as far as a well-behaved client goes.
fn serve_smtp(stream: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let say =
        |reader: &mut BufReader<TcpStream>, text: &str| reader.get_mut().write_all(text.as_bytes()).ok();
    say(&mut reader, "220 sink ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say(&mut reader, "250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")?,
            "DATA" => {
                say(&mut reader, "354 go ahead\r\n")?;
                let mut mail = String::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).ok()?;
                    if line == ".\r\n" {
                        break;
                    }
                    mail.push_str(&line);
                }
                log.lock().unwrap().push(mail);
                say(&mut reader, "250 kept\r\n")?;
            }
            "QUIT" => return say(&mut reader, "221 bye\r\n"),
            _ => say(&mut reader, "250 ok\r\n")?,
        }
    }
}
