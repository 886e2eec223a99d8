//! Asking DNS servers: one name, one type, no cache.
//!
//! Three outcomes, as in Prometheus: one of the candidate names exists (its records, possibly none of this type); all
//! servers that were asked say that none of them exists (no records); or somebody who might know did not answer, and
//! nobody can tell (an error).
//!
//! Our own client over `hickory-proto`'s messages: a resolver with caches and connection pools would bring twenty more
//! crates for what is one datagram a name. Against forged answers there are a port and an id of their own for each
//! question, and the question must come back with the answer. Queries go out over UDP with EDNS (1232 bytes, which no path
//! fragments), again without EDNS when a server does not know it, and over TCP when the answer was cut.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::resolv_conf::ResolvConf;

/// Largest answer over UDP we ask for.
const UDP_PAYLOAD: u16 = 1232;
/// Largest datagram we take: some servers send more than asked for.
const DATAGRAM_MAX: usize = 4096;
/// Datagrams that are no answer to our question before we give up.
const STRAYS_MAX: usize = 16;

/// The records of `name`, or of the first name made of it by the search list that exists.
pub(super) async fn lookup(
    name: &str,
    record_type: RecordType,
    conf: &ResolvConf,
    server_timeout: Duration,
) -> Result<Vec<RData>, String> {
    let mut last_error = None;
    for candidate in conf.candidates(name) {
        match ask_any(&candidate, record_type, conf, server_timeout).await {
            Ok(Some(records)) => return Ok(records),
            Ok(None) => {}
            Err(error) => last_error = Some(error),
        }
    }
    match last_error {
        None => Ok(Vec::new()),
        Some(error) => Err(format!(
            "could not resolve {name:?}: all servers responded with errors to at least one search domain: {error}"
        )),
    }
}

/// Asks server after server; `None`: the name does not exist.
async fn ask_any(
    name: &str,
    record_type: RecordType,
    conf: &ResolvConf,
    server_timeout: Duration,
) -> Result<Option<Vec<RData>>, String> {
    let question = Name::from_ascii(name).map_err(|error| format!("{name}: {error}"))?;
    let mut last = "no name servers".to_owned();
    for server in &conf.servers {
        let asking = ask(*server, &question, record_type, server_timeout);
        let answer = asking.await.map_err(|error| format!("{server}: {error}"));
        match answer.map(|answer| (answer.metadata.response_code, answer)) {
            Ok((ResponseCode::NoError, answer)) => {
                return Ok(Some(answer.answers.into_iter().map(|record| record.data).collect()));
            }
            Ok((ResponseCode::NXDomain, _)) => return Ok(None),
            Ok((code, _)) => last = format!("{server}: {code}"),
            Err(error) => last = error,
        }
        tracing::debug!(name, error = %last, "DNS server gave no viable answer");
    }
    Err(format!("{name}: no servers returned a viable answer, the last one: {last}"))
}

async fn ask(
    server: SocketAddr,
    name: &Name,
    record_type: RecordType,
    server_timeout: Duration,
) -> Result<Message, String> {
    let timed = async |asking| {
        tokio::time::timeout(server_timeout, asking).await.unwrap_or_else(|_| Err("i/o timeout".to_owned()))
    };
    let query = question(name, record_type, true);
    let mut answer = timed(over_udp(server, &query)).await?;
    if let Received::Whole(message) = &answer
        && matches!(message.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp)
    {
        // A server from before EDNS.
        answer = timed(over_udp(server, &question(name, record_type, false))).await?;
    }
    match answer {
        Received::Whole(message) => Ok(*message),
        Received::Cut => {
            let query = question(name, record_type, false);
            match tokio::time::timeout(server_timeout, over_tcp(server, &query)).await {
                Ok(result) => result,
                Err(_) => Err("i/o timeout over TCP".to_owned()),
            }
        }
    }
}

fn question(name: &Name, record_type: RecordType, edns: bool) -> Message {
    // With a random id.
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), record_type));
    if edns {
        let mut extension = Edns::new();
        extension.set_max_payload(UDP_PAYLOAD);
        message.set_edns(extension);
    }
    message
}

enum Received {
    Whole(Box<Message>),
    /// There is more than fits into a datagram.
    Cut,
}

async fn over_udp(server: SocketAddr, query: &Message) -> Result<Received, String> {
    let text = |error: std::io::Error| error.to_string();
    let bytes = query.to_vec().map_err(|error| error.to_string())?;
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await.map_err(text)?;
    // Connected: the system drops what others send.
    socket.connect(server).await.map_err(text)?;
    socket.send(&bytes).await.map_err(text)?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    for _ in 0..STRAYS_MAX {
        let size = socket.recv(&mut buffer).await.map_err(text)?;
        let datagram = buffer.get(..size).unwrap_or_default();
        if !answers(datagram, query) {
            continue;
        }
        // Cut answers need not be readable to the end.
        if datagram.get(2).is_some_and(|flags| flags & 0x02 != 0) {
            return Ok(Received::Cut);
        }
        return decode(datagram, query).map(|message| Received::Whole(Box::new(message)));
    }
    Err("too many answers to other questions".to_owned())
}

async fn over_tcp(server: SocketAddr, query: &Message) -> Result<Message, String> {
    let text = |error: std::io::Error| error.to_string();
    let bytes = query.to_vec().map_err(|error| error.to_string())?;
    let length = u16::try_from(bytes.len()).map_err(|_| "question too long".to_owned())?;
    let mut stream = TcpStream::connect(server).await.map_err(text)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).await.map_err(text)?;
    let length = stream.read_u16().await.map_err(text)?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.map_err(text)?;
    if !answers(&answer, query) {
        return Err("answer to another question".to_owned());
    }
    let message = decode(&answer, query)?;
    if message.metadata.truncation {
        return Err("got truncated message on TCP (64kiB limit exceeded?)".to_owned());
    }
    Ok(message)
}

/// Whether a message bears the id of `query`.
fn answers(bytes: &[u8], query: &Message) -> bool {
    bytes.get(..2) == Some(query.metadata.id.to_be_bytes().as_slice())
}

fn decode(bytes: &[u8], query: &Message) -> Result<Message, String> {
    let message = Message::from_vec(bytes).map_err(|error| format!("broken answer: {error}"))?;
    if message.metadata.message_type != MessageType::Response {
        return Err("broken answer: a question".to_owned());
    }
    // Servers that refuse a question may leave it out.
    let is_refusal = message.queries.is_empty() && message.metadata.response_code != ResponseCode::NoError;
    if message.queries != query.queries && !is_refusal {
        return Err("answer to another question".to_owned());
    }
    Ok(message)
}
