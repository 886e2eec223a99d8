//! Large answers on their way: written piece by piece on the pool's threads, a few pieces ahead of the client and no more.
//!
//! A task beside the connection asks the pool for pieces while the client takes them, so that a slow client holds memory
//! (which is counted, and shrinks as it reads) but no thread. Who takes next to nothing for too long is given up: the
//! connection breaks, since an answer that ends early must not look like a whole one.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Frame;
use net::CpuPool;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::compress::{Compressor, Encoding};

/// Text that is written at once; answers that are shorter never come here.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Pieces that wait for the client.
const PIECES_WAITING_MAX: usize = 4;
/// How many of them the client must have taken before more are written: a thread is asked for less often.
const PIECES_MISSING_MIN: usize = 2;
/// What an answer on its way takes beside its data: the pieces that wait, the one being written, and the one being sent.
pub(crate) const IN_FLIGHT_BYTES: usize = (PIECES_WAITING_MAX + 2) * CHUNK_BYTES;
/// How long a client may take for that many pieces (four kilobytes a second).
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes an answer piece by piece.
pub(crate) trait Chunks: Send {
    /// Appends until `out` is `room` bytes long, or a little more; false when there is nothing left.
    fn fill(&mut self, out: &mut String, room: usize) -> bool;
}

/// An answer of which only the beginning is written.
pub(crate) struct Large {
    /// The beginning.
    pub(crate) first: String,
    /// Writes what follows.
    pub(crate) more: Box<dyn Chunks>,
}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Large").field("first", &self.first.len()).finish_non_exhaustive()
    }
}

/// The way of a large answer from its handler to [`stream`]: an extension of the response, whose body is empty so far.
/// (Extensions are to be cloned; this one is taken out once.)
#[derive(Clone, Debug)]
pub(crate) struct Pending(Arc<Mutex<Option<Large>>>);

impl Pending {
    pub(crate) fn new(large: Large) -> Self {
        Self(Arc::new(Mutex::new(Some(large))))
    }

    fn take(&self) -> Option<Large> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What streaming needs to know of the server.
pub(crate) struct Means {
    /// Where pieces are written.
    pub(crate) pool: CpuPool,
    /// How the client wants them.
    pub(crate) encoding: Option<Encoding>,
    /// Counts clients that are given up.
    pub(crate) stalled: IntCounter,
}

/// Gives a response that was left pending its body; `finished` is told the bytes sent when all have been. False: there is
/// none, and the response is complete.
pub(crate) fn stream(
    response: &mut Response<Body>,
    means: impl FnOnce() -> Means,
    finished: impl FnOnce(u64) + Send + 'static,
) -> bool {
    let pending = response.extensions_mut().remove::<Pending>();
    let Some(Large { first, more }) = pending.and_then(|pending| pending.take()) else { return false };
    // The router has measured a body that was empty.
    response.headers_mut().remove(CONTENT_LENGTH);
    let means = means();
    if let Some(encoding) = means.encoding {
        encoding.name_in(response.headers_mut());
    }
    let source = Source { text: first, more: Some(more), compressor: means.encoding.map(Compressor::new) };
    let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        if let Some(sent) = produce(source, &means, &sender).await {
            finished(sent);
        }
    });
    *response.body_mut() = Body::new(Streamed { receiver, ended: false });
    true
}

/// What goes to the client.
enum Piece {
    Data(Bytes),
    /// There is nothing left: without it, the answer is broken off.
    End,
}

/// Writes pieces for as long as they are taken. Says how many bytes there were, if all were sent.
async fn produce(mut source: Source, means: &Means, sender: &mpsc::Sender<Piece>) -> Option<u64> {
    let mut sent = 0;
    loop {
        match tokio::time::timeout(PATIENCE, sender.reserve_many(PIECES_MISSING_MIN)).await {
            Ok(Ok(places)) => drop(places),
            // The client has gone.
            Ok(Err(_)) => return None,
            Err(_) => {
                means.stalled.inc();
                tracing::debug!("a client does not read its answer");
                return None;
            }
        }
        let to = sender.clone();
        let job = move || {
            let outcome = source.send(&to);
            (source, outcome)
        };
        let done = means.pool.run(job).await;
        // A panic is logged by its hook; the client sees a broken connection.
        let (next, outcome) = done.ok()?;
        source = next;
        let (bytes, has_ended) = outcome?;
        sent += bytes;
        if has_ended {
            return Some(sent);
        }
    }
}

/// Where pieces come from.
struct Source {
    /// Written already, and to be sent before anything else.
    text: String,
    more: Option<Box<dyn Chunks>>,
    compressor: Option<Compressor>,
}

impl Source {
    /// Sends pieces while there is room for them. The bytes, and whether that was all; `None` when the client has gone.
    fn send(&mut self, to: &mpsc::Sender<Piece>) -> Option<(u64, bool)> {
        let mut sent = 0;
        loop {
            let Ok(place) = to.try_reserve() else { return (!to.is_closed()).then_some((sent, false)) };
            match self.piece()? {
                Some(data) => {
                    sent += data.len() as u64;
                    place.send(Piece::Data(data));
                }
                None => {
                    place.send(Piece::End);
                    return Some((sent, true));
                }
            }
        }
    }

    /// The next piece, `Some(None)` after the last; `None` when compression fails, which it does not in memory.
    #[expect(clippy::option_option, reason = "the outer one is for `?`")]
    fn piece(&mut self) -> Option<Option<Bytes>> {
        let Some(compressor) = &mut self.compressor else {
            if self.text.is_empty() {
                self.refill();
            }
            let text = std::mem::take(&mut self.text);
            return Some((!text.is_empty()).then(|| text.into()));
        };
        loop {
            compressor.push(self.text.as_bytes()).ok()?;
            self.text.clear();
            if compressor.waiting() >= CHUNK_BYTES / 2 {
                return Some(Some(compressor.take().into()));
            }
            match &mut self.more {
                Some(more) => {
                    if !more.fill(&mut self.text, CHUNK_BYTES) {
                        self.more = None;
                    }
                }
                None => {
                    let last = compressor.finish().ok()?;
                    return Some((!last.is_empty()).then(|| last.into()));
                }
            }
        }
    }

    fn refill(&mut self) {
        let Some(more) = &mut self.more else { return };
        self.text.reserve_exact(CHUNK_BYTES + CHUNK_BYTES / 16);
        if !more.fill(&mut self.text, CHUNK_BYTES) {
            // What it still holds is freed before the last piece is taken.
            self.more = None;
        }
    }
}

/// The body of an answer whose pieces come from elsewhere.
struct Streamed {
    receiver: mpsc::Receiver<Piece>,
    ended: bool,
}

/// The answer was broken off.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off")]
struct BrokenOff;

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.receiver.poll_recv(cx));
        if let Some(Piece::Data(data)) = piece {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        self.ended = true;
        Poll::Ready(match piece {
            Some(_) => None,
            None => Some(Err(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;

    /// Counts up, a line each; says how far it is.
    struct Lines {
        next: usize,
        last: usize,
        written: Arc<AtomicUsize>,
    }

    impl Chunks for Lines {
        fn fill(&mut self, out: &mut String, room: usize) -> bool {
            while out.len() < room && self.next <= self.last {
                out.push_str(&format!("{}\n", self.next));
                self.next += 1;
            }
            self.written.store(self.next, Ordering::Relaxed);
            self.next <= self.last
        }
    }

    fn streamed(
        last: usize,
        encoding: Option<Encoding>,
    ) -> (Response<Body>, Arc<AtomicUsize>, Arc<AtomicUsize>, IntCounter) {
        let (written, finished) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stalled = IntCounter::new("n", "n").unwrap();
        let more = Box::new(Lines { next: 1, last, written: Arc::clone(&written) });
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(CONTENT_LENGTH, 0.into());
        response.extensions_mut().insert(Pending::new(Large { first: "0\n".to_owned(), more }));
        let means = Means { pool: CpuPool::new(1), encoding, stalled: stalled.clone() };
        let end = Arc::clone(&finished);
        let tell = move |bytes: u64| end.store(usize::try_from(bytes).unwrap(), Ordering::Relaxed);
        assert!(stream(&mut response, || means, tell) && !response.headers().contains_key(CONTENT_LENGTH));
        assert!(!stream(&mut response, || unreachable!("it was taken"), |_| {}));
        (response, written, finished, stalled)
    }

    fn lines(last: usize) -> String {
        (0..=last).map(|line| format!("{line}\n")).collect()
    }

    #[tokio::test]
    async fn pieces_are_the_whole() {
        for last in [1, 1000, 200_000] {
            let (response, _, finished, _) = streamed(last, None);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body == lines(last).as_bytes(), "{last}");
            wait_for(|| finished.load(Ordering::Relaxed) == body.len()).await;
        }
    }

    #[tokio::test]
    async fn pieces_are_compressed_as_one() {
        for last in [1, 1000, 200_000] {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                let (response, ..) = streamed(last, Some(encoding));
                assert!(response.headers().contains_key(http::header::CONTENT_ENCODING));
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let mut text = String::new();
                match encoding {
                    Encoding::Gzip => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text),
                    Encoding::Deflate => flate2::read::ZlibDecoder::new(&body[..]).read_to_string(&mut text),
                }
                .unwrap();
                assert!(text == lines(last), "{last} {}", text.len());
                assert!(body.len() < text.len() / 2 + 40, "{last} {} {}", body.len(), text.len());
            }
        }
    }

    async fn wait_for(mut done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it does not happen");
    }

    #[tokio::test]
    async fn no_more_is_written_than_the_client_takes() {
        let (response, written, finished, _) = streamed(10_000_000, None);
        wait_for(|| written.load(Ordering::Relaxed) > 0).await;
        let mut body = response.into_body();
        let mut taken = 0;
        for _ in 0..20 {
            taken += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        // A line has at least two bytes.
        assert!(written.load(Ordering::Relaxed) * 2 < taken + IN_FLIGHT_BYTES * 2);
        drop(body);
        // All is let go: the counter of lines belongs to the writer, and to this test.
        wait_for(|| Arc::strong_count(&written) == 1).await;
        assert_eq!(finished.load(Ordering::Relaxed), 0);
    }

    /// (Paused time runs on by itself whenever nothing else is to do.)
    #[tokio::test(start_paused = true)]
    async fn clients_that_take_nothing_are_given_up_and_see_it() {
        let (response, written, finished, stalled) = streamed(10_000_000, None);
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        wait_for(|| stalled.get() == 0 && Arc::strong_count(&written) == 2).await;
        tokio::time::sleep(PATIENCE * 2).await;
        wait_for(|| stalled.get() == 1 && Arc::strong_count(&written) == 1).await;
        // What waited is there, and then it breaks.
        let rest = body.collect().await;
        assert!(rest.is_err());
        assert_eq!(finished.load(Ordering::Relaxed), 0);
    }

    /// Panics at its second piece.
    struct Fails(usize);

    impl Chunks for Fails {
        fn fill(&mut self, out: &mut String, _: usize) -> bool {
            assert!(self.0 < 1, "expected in this test");
            self.0 += 1;
            out.push('x');
            true
        }
    }

    #[tokio::test]
    async fn what_fails_is_no_whole_answer() {
        let mut response = Response::new(Body::empty());
        let large = Large { first: "0".to_owned(), more: Box::new(Fails(0)) };
        response.extensions_mut().insert(Pending::new(large));
        let stalled = IntCounter::new("n", "n").unwrap();
        let means = Means { pool: CpuPool::new(1), encoding: None, stalled };
        assert!(stream(&mut response, || means, |_| panic!("it has not finished")));
        assert!(response.into_body().collect().await.is_err());
    }
}
