//! The decoder: bytes in any portions → replies. Pure, no recursion, no allocation on the word of the wire alone.
//!
//! Format: <https://redis.io/docs/latest/develop/reference/protocol-spec/> (RESP2). After an error the stream has no
//! defined place to go on from: the connection must be closed.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use xxhash_rust::xxh3::Xxh3;

use super::Reply;

/// Bounds on one reply.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest status, error or number line.
    pub line_bytes_max: usize,
    /// Longest string that is kept; longer ones are hashed and dropped.
    pub bulk_keep_bytes: usize,
    /// Most elements kept, over all lists of the reply.
    pub elements_max: usize,
    /// Deepest nesting of lists that is read at all.
    pub depth_max: usize,
    /// Deepest nesting of lists that is kept; lists below become [`Reply::Dropped`].
    pub keep_depth: usize,
    /// Most bytes of one reply on the wire, dropped ones included.
    pub reply_bytes_max: u64,
}

impl Default for Limits {
    /// `INFO` is below 20 kB (more only with thousands of databases) and a key list below 2^18 elements in any sane server; stream entries are lists within
    /// a list within a list, so what nests deeper than two is payload.
    fn default() -> Self {
        Self {
            line_bytes_max: 8 << 10,
            bulk_keep_bytes: 256 << 10,
            elements_max: 1 << 18,
            depth_max: 16,
            keep_depth: 2,
            reply_bytes_max: 64 << 20,
        }
    }
}

/// Why bytes are no reply, or one past a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A reply starts with a byte that RESP2 does not know: another protocol speaks here.
    #[error("reply starts with byte 0x{0:02x}, which RESP2 does not know")]
    UnknownKind(u8),
    /// A length or number is none.
    #[error("malformed number")]
    BadNumber,
    /// A line or string does not end with CR LF.
    #[error("missing line end")]
    MissingLineEnd,
    /// A line is too long.
    #[error("line exceeds {limit} bytes")]
    LineTooLong {
        /// The bound.
        limit: usize,
    },
    /// A list is too long.
    #[error("reply exceeds {limit} elements")]
    TooManyElements {
        /// The bound.
        limit: usize,
    },
    /// Lists nest too deep.
    #[error("reply nests deeper than {limit} lists")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// The whole reply is too large.
    #[error("reply exceeds {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
}

/// Decodes one reply after the other from bytes in any portions.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Lists that are not complete, outermost first.
    lists: Vec<OpenList>,
    state: State,
    /// Elements kept so far in this reply.
    elements: usize,
    /// Bytes of this reply so far.
    bytes: u64,
}

#[derive(Debug)]
struct OpenList {
    /// Elements to come.
    remaining: u64,
    /// Elements so far; `None` when the list is dropped.
    elements: Option<Vec<Reply>>,
}

enum State {
    /// Within a line; holds what has come of it when it was cut.
    Line(Vec<u8>),
    /// Within a string.
    Bulk { remaining: u64, content: Content },
    /// Within the CR LF after a string.
    BulkEnd { seen_cr: bool, content: Content },
}

enum Content {
    Kept(Vec<u8>),
    Hashed { len: u64, hasher: Box<Xxh3> },
    Dropped,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Line(_) => "Line",
            Self::Bulk { .. } => "Bulk",
            Self::BulkEnd { .. } => "BulkEnd",
        })
    }
}

impl Decoder {
    /// A decoder at the start of a reply.
    pub fn new(limits: Limits) -> Self {
        Self { limits, lists: Vec::new(), state: State::Line(Vec::new()), elements: 0, bytes: 0 }
    }

    /// Whether it stands between two replies.
    pub fn is_idle(&self) -> bool {
        self.bytes == 0
    }

    /// Takes bytes from `input`, which is moved on over them, until one reply is complete or `input` is empty.
    ///
    /// # Errors
    /// When the bytes are no reply or pass a bound; the decoder is of no use afterwards.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, DecodeError> {
        while !input.is_empty() {
            let before = input.len();
            let value = self.step(input)?;
            self.bytes += (before - input.len()) as u64;
            if self.bytes > self.limits.reply_bytes_max {
                return Err(DecodeError::TooLarge { limit: self.limits.reply_bytes_max });
            }
            if let Some(reply) = value.and_then(|value| self.complete(value)) {
                self.elements = 0;
                self.bytes = 0;
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Consumes at least one byte; gives a value when one is complete (a list's start is none, unless it is empty).
    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, DecodeError> {
        match &mut self.state {
            State::Line(partial) => {
                let end = memchr::memchr(b'\n', input);
                let (taken, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
                *input = rest;
                if partial.len() + taken.len() > self.limits.line_bytes_max {
                    return Err(DecodeError::LineTooLong { limit: self.limits.line_bytes_max });
                }
                if end.is_none() {
                    // An unknown kind is told at once: a peer that speaks another protocol may never end its line.
                    let first = partial.first().or(taken.first()).copied().unwrap_or_default();
                    if !b"+-:$*".contains(&first) {
                        return Err(DecodeError::UnknownKind(first));
                    }
                    partial.extend_from_slice(taken);
                    return Ok(None);
                }
                if partial.is_empty() {
                    return self.line(taken);
                }
                let mut line = std::mem::take(partial);
                line.extend_from_slice(taken);
                self.line(&line)
            }
            State::Bulk { remaining, content } => {
                let count = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                let (taken, rest) = input.split_at(count);
                *input = rest;
                match content {
                    Content::Kept(bytes) => bytes.extend_from_slice(taken),
                    Content::Hashed { hasher, .. } => hasher.update(taken),
                    Content::Dropped => {}
                }
                *remaining -= count as u64;
                if *remaining == 0 {
                    let content = std::mem::replace(content, Content::Dropped);
                    self.state = State::BulkEnd { seen_cr: false, content };
                }
                Ok(None)
            }
            State::BulkEnd { seen_cr, content } => {
                let (first, rest) = input.split_first().ok_or(DecodeError::MissingLineEnd)?;
                *input = rest;
                match (first, *seen_cr) {
                    (b'\r', false) => {
                        *seen_cr = true;
                        Ok(None)
                    }
                    (b'\n', true) => {
                        let reply = match std::mem::replace(content, Content::Dropped) {
                            Content::Kept(bytes) => Reply::Bulk(bytes),
                            Content::Hashed { len, hasher } => {
                                Reply::Oversized { len, hash: hasher.digest() }
                            }
                            Content::Dropped => Reply::Dropped,
                        };
                        self.state = State::Line(Vec::new());
                        Ok(Some(reply))
                    }
                    _ => Err(DecodeError::MissingLineEnd),
                }
            }
        }
    }

    /// Reads a whole line, LF included.
    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, DecodeError> {
        let (kind, rest) = line.split_first().ok_or(DecodeError::MissingLineEnd)?;
        if !b"+-:$*".contains(kind) {
            return Err(DecodeError::UnknownKind(*kind));
        }
        let text = rest.strip_suffix(b"\r\n").ok_or(DecodeError::MissingLineEnd)?;
        match kind {
            b'+' => Ok(Some(Reply::Status(text.to_vec()))),
            b'-' => Ok(Some(Reply::Error(String::from_utf8_lossy(text).into_owned()))),
            b':' => number(text).map(|number| Some(Reply::Integer(number))),
            b'$' => self.bulk_header(number(text)?),
            _ => self.list_header(number(text)?),
        }
    }

    fn bulk_header(&mut self, len: i64) -> Result<Option<Reply>, DecodeError> {
        if len == -1 {
            return Ok(Some(Reply::Nil));
        }
        let len = u64::try_from(len).map_err(|_| DecodeError::BadNumber)?;
        if len > self.limits.reply_bytes_max {
            return Err(DecodeError::TooLarge { limit: self.limits.reply_bytes_max });
        }
        let content = if self.is_dropping() {
            Content::Dropped
        } else if len > self.limits.bulk_keep_bytes as u64 {
            Content::Hashed { len, hasher: Box::new(Xxh3::new()) }
        } else {
            // Bounded by `bulk_keep_bytes`.
            Content::Kept(Vec::with_capacity(usize::try_from(len).unwrap_or_default()))
        };
        self.state = if len == 0 {
            State::BulkEnd { seen_cr: false, content }
        } else {
            State::Bulk { remaining: len, content }
        };
        Ok(None)
    }

    fn list_header(&mut self, len: i64) -> Result<Option<Reply>, DecodeError> {
        if len == -1 {
            return Ok(Some(Reply::Nil));
        }
        let len = u64::try_from(len).map_err(|_| DecodeError::BadNumber)?;
        if self.lists.len() >= self.limits.depth_max {
            return Err(DecodeError::TooDeep { limit: self.limits.depth_max });
        }
        let dropped = self.is_dropping() || self.lists.len() >= self.limits.keep_depth;
        if !dropped && len > (self.limits.elements_max - self.elements) as u64 {
            return Err(DecodeError::TooManyElements { limit: self.limits.elements_max });
        }
        if len == 0 {
            return Ok(Some(if dropped { Reply::Dropped } else { Reply::Array(Vec::new()) }));
        }
        let elements = (!dropped).then(|| {
            self.elements += usize::try_from(len).unwrap_or_default();
            // Growth pays for what really comes; the announced length is only a hint.
            Vec::with_capacity(usize::try_from(len.min(64)).unwrap_or_default())
        });
        self.lists.push(OpenList { remaining: len, elements });
        Ok(None)
    }

    fn is_dropping(&self) -> bool {
        self.lists.last().is_some_and(|list| list.elements.is_none())
    }

    /// Hands a value to the innermost open list; gives the reply when that was the last one missing.
    fn complete(&mut self, mut value: Reply) -> Option<Reply> {
        while let Some(list) = self.lists.last_mut() {
            if let Some(elements) = &mut list.elements {
                elements.push(value);
            }
            list.remaining -= 1;
            if list.remaining > 0 {
                return None;
            }
            value = self.lists.pop().and_then(|list| list.elements).map_or(Reply::Dropped, Reply::Array);
        }
        Some(value)
    }
}

fn number(text: &[u8]) -> Result<i64, DecodeError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(DecodeError::BadNumber)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
#[path = "decode_tests.rs"]
mod tests;
