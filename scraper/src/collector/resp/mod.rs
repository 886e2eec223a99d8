//! RESP2: the protocol of Redis, its forks and Disque, as little of it as a monitor needs.
//!
//! [`decode`] is a pure, incremental decoder; [`connection`] sends pipelines over any byte stream (a TCP socket, a
//! TLS session, a test's half). There is no RESP3, no publish/subscribe, no cluster redirection and no reconnecting
//! here: who collects decides when to connect again.
//!
//! Invariants: every length that comes from the wire is checked before anything is allocated for it; payloads never
//! appear in `Debug` output; an error reply is a value ([`Reply::Error`]), not a broken connection.

pub mod connection;
pub mod decode;

use std::fmt;

pub use connection::{Connection, Pipelined, RespError, Traffic};
pub use decode::{DecodeError, Decoder, Limits};

/// One answer of the server.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Status(Vec<u8>),
    /// `-ERR …`, without the dash; invalid UTF-8 replaced.
    Error(String),
    /// `:42`
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// A string longer than [`Limits::bulk_keep_bytes`]: read, hashed and dropped.
    Oversized {
        /// Its length in bytes.
        len: u64,
        /// [`payload_hash`] of its bytes.
        hash: u64,
    },
    /// A nil string or a nil array.
    Nil,
    /// A list of answers.
    Array(Vec<Reply>),
    /// A list nested deeper than [`Limits::keep_depth`]: read and dropped, since only payloads nest that deep.
    Dropped,
}

impl Reply {
    /// The bytes of a string or status.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Status(bytes) | Self::Bulk(bytes) => Some(bytes),
            Self::Error(_)
            | Self::Integer(_)
            | Self::Oversized { .. }
            | Self::Nil
            | Self::Array(_)
            | Self::Dropped => None,
        }
    }

    /// The text of a string or status, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// A number, also when it comes as a string (`GET` of a counter).
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => self.text()?.parse().ok(),
        }
    }

    /// The elements of a list.
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// What tells one string from another without keeping it.
    pub fn hash(&self) -> Option<u64> {
        match self {
            Self::Oversized { hash, .. } => Some(*hash),
            _ => self.bytes().map(payload_hash),
        }
    }

    /// The value of `field` in a flat list of names and values, as `XINFO` answers.
    pub fn field(&self, field: &str) -> Option<&Self> {
        let (pairs, _) = self.array()?.as_chunks::<2>();
        pairs.iter().find(|[name, _]| name.bytes() == Some(field.as_bytes())).map(|[_, value]| value)
    }

    /// What kind of answer it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Status(_) => "a status",
            Self::Error(_) => "an error",
            Self::Integer(_) => "an integer",
            Self::Bulk(_) | Self::Oversized { .. } => "a string",
            Self::Nil => "nil",
            Self::Array(_) | Self::Dropped => "a list",
        }
    }
}

/// Prints the shape, never a payload.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(bytes) => write!(f, "Status({} bytes)", bytes.len()),
            Self::Error(text) => write!(f, "Error({text:?})"),
            Self::Integer(number) => write!(f, "Integer({number})"),
            Self::Bulk(bytes) => write!(f, "Bulk({} bytes)", bytes.len()),
            Self::Oversized { len, .. } => write!(f, "Oversized({len} bytes)"),
            Self::Nil => f.write_str("Nil"),
            Self::Array(elements) => f.debug_list().entries(elements).finish(),
            Self::Dropped => f.write_str("Dropped"),
        }
    }
}

/// The hash that stands for a payload (XXH3, never stored).
pub fn payload_hash(payload: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(payload)
}

/// A command, ready to be sent. Prints as its name only: arguments may be secrets.
#[derive(Clone)]
pub struct Command {
    name: &'static str,
    encoded: Vec<u8>,
}

impl Command {
    /// `name` (which may hold a subcommand after a space) with `arguments`.
    pub fn new(name: &'static str, arguments: &[&[u8]]) -> Self {
        let words = name.split(' ').map(str::as_bytes);
        let count = words.clone().count() + arguments.len();
        let size: usize =
            name.len() + arguments.iter().map(|argument| argument.len() + 16).sum::<usize>() + 32;
        let mut encoded = Vec::with_capacity(size);
        push_header(&mut encoded, b'*', count);
        for word in words.chain(arguments.iter().copied()) {
            push_header(&mut encoded, b'$', word.len());
            encoded.extend_from_slice(word);
            encoded.extend_from_slice(b"\r\n");
        }
        Self { name, encoded }
    }

    /// The command's name with its subcommand.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What goes over the wire: a list of strings.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({})", self.name)
    }
}

fn push_header(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lists_of_strings() {
        let command = Command::new("XINFO STREAM", &[b"a\r\nb", b""]);
        assert_eq!(command.encoded(), b"*4\r\n$5\r\nXINFO\r\n$6\r\nSTREAM\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    }

    #[test]
    fn neither_commands_nor_replies_print_what_they_carry() {
        let printed = format!(
            "{:?} {:?}",
            Command::new("AUTH", &[b"hunter2"]),
            Reply::Array(vec![Reply::Bulk(b"hunter2".to_vec()), Reply::Status(b"hunter2".to_vec())])
        );
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn fields_are_found_by_name_only_at_even_places() {
        let reply = Reply::Array(vec![
            Reply::Bulk(b"name".to_vec()),
            Reply::Bulk(b"lag".to_vec()),
            Reply::Bulk(b"lag".to_vec()),
            Reply::Integer(6),
        ]);
        assert_eq!(reply.field("lag").and_then(Reply::integer), Some(6));
        assert_eq!(reply.field("pending"), None);
    }
}
