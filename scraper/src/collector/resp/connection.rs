//! Pipelines of commands over any byte stream, with a deadline and a byte budget.
//!
//! A pipeline that was cut (deadline, budget, broken stream) gives the replies that came; the connection is then out
//! of step with the server and [`Connection::is_usable`] says so.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::decode::{DecodeError, Decoder, Limits};
use super::{Command, Reply};

/// Commands sent before replies are read. Enough to hide the round trip, few enough that the server's answers to a
/// batch stay small.
const BATCH_COMMANDS: usize = 128;
/// A batch ends early once it has this many bytes, so that both sides' socket buffers always hold it.
const BATCH_BYTES: usize = 32 << 10;
/// Bytes asked of the stream at once.
const READ_BYTES: usize = 16 << 10;

/// Why a pipeline was cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RespError {
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("connection closed by the server")]
    Closed,
    /// What came is not RESP2 or passes a bound.
    #[error("invalid answer: {0}")]
    Decode(#[from] DecodeError),
    /// Time is up.
    #[error("deadline exceeded")]
    Deadline,
    /// More bytes came than one collection may cost.
    #[error("answers exceed {limit} bytes")]
    Budget {
        /// The bound.
        limit: u64,
    },
    /// An earlier pipeline was cut.
    #[error("connection is out of step")]
    OutOfStep,
}

/// What a connection has cost the server so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Commands sent.
    pub commands: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// The outcome of a pipeline.
#[derive(Debug)]
pub struct Pipelined {
    /// The replies that came, in order of the commands; all of them when `error` is `None`.
    pub replies: Vec<Reply>,
    /// Why replies are missing.
    pub error: Option<RespError>,
}

/// A connection to a server that speaks RESP2.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    decoder: Decoder,
    /// Bytes received; those before `start` are used up.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes that may still be received before the next [`Connection::set_budget`].
    budget: u64,
    budget_limit: u64,
    traffic: Traffic,
    usable: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes over a connected stream.
    pub fn new(stream: S, limits: Limits) -> Self {
        Self {
            stream,
            decoder: Decoder::new(limits),
            buffer: Vec::new(),
            start: 0,
            budget: u64::MAX,
            budget_limit: u64::MAX,
            traffic: Traffic::default(),
            usable: true,
        }
    }

    /// Bounds what may be received from now on.
    pub fn set_budget(&mut self, bytes: u64) {
        self.budget = bytes;
        self.budget_limit = bytes;
    }

    /// What it has cost so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether commands and replies are in step.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Sends `commands` in batches and collects their replies until `deadline`.
    pub async fn pipeline(&mut self, commands: &[Command], deadline: Instant) -> Pipelined {
        let mut replies = Vec::with_capacity(commands.len());
        let error = if self.usable {
            // Out of step until proven otherwise: the future may be dropped at any await.
            self.usable = false;
            match timeout_at(deadline, self.exchange(commands, &mut replies)).await {
                Ok(Ok(())) => {
                    self.usable = true;
                    None
                }
                Ok(Err(error)) => Some(error),
                Err(_) => Some(RespError::Deadline),
            }
        } else {
            Some(RespError::OutOfStep)
        };
        Pipelined { replies, error }
    }

    async fn exchange(&mut self, commands: &[Command], replies: &mut Vec<Reply>) -> Result<(), RespError> {
        let mut rest = commands;
        let mut out = Vec::new();
        while !rest.is_empty() {
            out.clear();
            let mut count = 0;
            for command in rest.iter().take(BATCH_COMMANDS) {
                if count > 0 && out.len() + command.encoded().len() > BATCH_BYTES {
                    break;
                }
                out.extend_from_slice(command.encoded());
                count += 1;
            }
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
            self.traffic.commands += count as u64;
            self.traffic.sent_bytes += out.len() as u64;
            for _ in 0..count {
                replies.push(self.read_reply().await?);
            }
            rest = &rest[count..];
        }
        // A byte too much means that replies belong to other commands than we think.
        if self.start < self.buffer.len() || !self.decoder.is_idle() {
            return Err(RespError::OutOfStep);
        }
        Ok(())
    }

    async fn read_reply(&mut self) -> Result<Reply, RespError> {
        loop {
            let mut input = &self.buffer[self.start..];
            let decoded = self.decoder.decode(&mut input)?;
            self.start = self.buffer.len() - input.len();
            if let Some(reply) = decoded {
                return Ok(reply);
            }
            self.buffer.clear();
            self.start = 0;
            self.buffer.reserve(READ_BYTES);
            let received = self.stream.read_buf(&mut self.buffer).await?;
            if received == 0 {
                return Err(RespError::Closed);
            }
            self.traffic.received_bytes += received as u64;
            self.budget = self
                .budget
                .checked_sub(received as u64)
                .ok_or(RespError::Budget { limit: self.budget_limit })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;

    use super::*;

    fn pair() -> (Connection<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        (Connection::new(ours, Limits::default()), theirs)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn ping(count: usize) -> Vec<Command> {
        vec![Command::new("PING", &[]); count]
    }

    #[tokio::test]
    async fn replies_come_in_order_over_many_batches() {
        let (mut connection, mut server) = pair();
        let peer = tokio::spawn(async move {
            let mut seen = 0usize;
            let mut answered = 0usize;
            let mut buffer = [0u8; 4096];
            while answered < 1000 {
                seen += server.read(&mut buffer).await.unwrap();
                while answered < seen / ping(1)[0].encoded().len() {
                    server.write_all(format!(":{answered}\r\n").as_bytes()).await.unwrap();
                    answered += 1;
                }
            }
        });
        let Pipelined { replies, error } = connection.pipeline(&ping(1000), soon()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(replies.len(), 1000);
        assert!(replies.iter().enumerate().all(|(n, reply)| reply.integer() == Some(n as i64)));
        assert_eq!(connection.traffic().commands, 1000);
        assert!(connection.is_usable());
        peer.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_answer_gives_what_came_and_an_unusable_connection() {
        let (mut connection, mut server) = pair();
        server.write_all(b"+PONG\r\n$10\r\nabc").await.unwrap();
        server.shutdown().await.unwrap();
        let Pipelined { replies, error } = connection.pipeline(&ping(2), soon()).await;
        assert_eq!(replies, [Reply::Status(b"PONG".to_vec())]);
        assert!(matches!(error, Some(RespError::Closed)), "{error:?}");
        assert!(!connection.is_usable());
        let again = connection.pipeline(&ping(1), soon()).await;
        assert!(matches!(again.error, Some(RespError::OutOfStep)), "{:?}", again.error);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_costs_no_more_than_the_deadline() {
        let (mut connection, _server) = pair();
        let start = Instant::now();
        let outcome = connection.pipeline(&ping(1), start + Duration::from_millis(700)).await;
        assert!(matches!(outcome.error, Some(RespError::Deadline)));
        assert_eq!(start.elapsed(), Duration::from_millis(700));
    }

    #[tokio::test]
    async fn a_talkative_peer_is_stopped_by_the_budget_and_extra_replies_are_noticed() {
        let (mut connection, mut server) = pair();
        connection.set_budget(100);
        server.write_all(&[b"$200\r\n", &[b'x'; 200][..], b"\r\n"].concat()).await.unwrap();
        let outcome = connection.pipeline(&ping(1), soon()).await;
        assert!(matches!(outcome.error, Some(RespError::Budget { limit: 100 })));

        let (mut connection, mut server) = pair();
        server.write_all(b"+PONG\r\n+PONG\r\n").await.unwrap();
        let outcome = connection.pipeline(&ping(1), soon()).await;
        assert!(matches!(outcome.error, Some(RespError::OutOfStep)));
    }
}
