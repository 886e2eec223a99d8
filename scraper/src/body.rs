//! The body of a target's last page, for people who look for a mistake.
//!
//! Nothing is kept unless somebody asks: who asks gets the body of the next scrape, and for [`KEEP_MS`] after that the last one
//! at once. What is kept is bounded in bytes a target and in targets. Answers whose headers carry credentials are not kept.

use std::sync::Arc;

use model::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that are kept of a body.
const BYTES_MAX: usize = 1 << 20;
/// How long bodies of a target are kept after somebody asked.
const KEEP_MS: i64 = 5 * 60 * 1000;
/// Most targets whose bodies are kept at a time.
pub(crate) const TARGETS_MAX: usize = 16;

/// The body of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBody {
    /// When the scrape began.
    pub t: Timestamp,
    /// `Content-Type` of the answer.
    pub content_type: String,
    /// The body, uncompressed; its beginning when it is long.
    pub bytes: Vec<u8>,
    /// Length of the whole body.
    pub size: usize,
}

/// Why there is no body to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoBody {
    /// There is no such job.
    #[error("scrape pool {0:?} not found")]
    Pool(String),
    /// The job has no such target.
    #[error("scrape pool {0:?} has no active target {1:?}")]
    Target(String, String),
    /// A collector reads the target.
    #[error("the targets of scrape pool {0:?} have no pages: a collector reads them")]
    Collector(String),
    /// The answer was not for other eyes.
    #[error("the target's answer carries credentials in its headers: its body is not kept")]
    Credentials,
    /// The scrape brought no page.
    #[error("the last scrape brought no page: {0}")]
    Failed(String),
    /// The next scrape has not come yet.
    #[error("the target has not been scraped since somebody asked: ask again later")]
    NotYet,
    /// Too many targets are looked at.
    #[error("bodies of {TARGETS_MAX} targets are kept already, for five minutes after they were asked for")]
    TooMany,
}

type Outcome = Result<Arc<KeptBody>, NoBody>;

#[derive(Debug, Default)]
struct Watch {
    wanted_until: Option<Timestamp>,
    last: Option<Outcome>,
}

/// Keeps the last body of one target while somebody wants it.
#[derive(Debug, Default)]
pub(crate) struct BodyWatch {
    watch: Mutex<Watch>,
    came: Notify,
}

impl BodyWatch {
    /// Whether somebody asked lately.
    pub(crate) fn is_wanted(&self, now: Timestamp) -> bool {
        self.watch.lock().wanted_until.is_some_and(|until| now <= until)
    }

    /// Takes note of what a scrape brought.
    pub(crate) fn note(
        &self,
        now: Timestamp,
        t: Timestamp,
        page: Result<(&str, &[u8]), impl FnOnce() -> NoBody>,
    ) {
        let mut watch = self.watch.lock();
        let Some(until) = watch.wanted_until else { return };
        if now > until {
            *watch = Watch::default();
            return;
        }
        watch.last = Some(match page {
            Ok((content_type, text)) => Ok(Arc::new(KeptBody {
                t,
                content_type: content_type.to_owned(),
                bytes: text[..text.len().min(BYTES_MAX)].to_vec(),
                size: text.len(),
            })),
            Err(why) => Err(why()),
        });
        drop(watch);
        self.came.notify_waiters();
    }

    /// The last body, or that of the next scrape, if it comes before `deadline`.
    pub(crate) async fn get(&self, now: Timestamp, deadline: Instant) -> Outcome {
        loop {
            let came = self.came.notified();
            {
                let mut watch = self.watch.lock();
                if watch.wanted_until.is_some_and(|until| now > until) {
                    watch.last = None;
                }
                watch.wanted_until = Some(now + KEEP_MS);
                if let Some(last) = &watch.last {
                    return last.clone();
                }
            }
            if tokio::time::timeout_at(deadline, came).await.is_err() {
                return Err(NoBody::NotYet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Page<'a> = Result<(&'a str, &'a [u8]), fn() -> NoBody>;

    fn page(text: &[u8]) -> Page<'_> {
        Ok(("text/plain", text))
    }

    #[tokio::test]
    async fn bodies_are_kept_only_while_somebody_wants_them() {
        let watch = Arc::new(BodyWatch::default());
        watch.note(10, 10, page(b"unwanted"));
        assert!(!watch.is_wanted(10));
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(watch.get(10, soon).await, Err(NoBody::NotYet));
        assert!(watch.is_wanted(10));
        let waiting = tokio::spawn({
            let watch = Arc::clone(&watch);
            async move { watch.get(10, Instant::now() + Duration::from_secs(10)).await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        watch.note(11, 11, page(b"a 1\n"));
        assert_eq!(waiting.await.unwrap().unwrap().bytes, b"a 1\n");
        watch.note(12, 12, Err(|| NoBody::Failed("refused".to_owned())));
        assert_eq!(watch.get(12, Instant::now()).await, Err(NoBody::Failed("refused".to_owned())));
        watch.note(13, 13, page(&vec![b'x'; BYTES_MAX + 5]));
        let kept = watch.get(13, Instant::now()).await.unwrap();
        assert_eq!((kept.bytes.len(), kept.size, kept.t), (BYTES_MAX, BYTES_MAX + 5, 13));
        let later = 14 + KEEP_MS;
        watch.note(later, later, page(b"b 1\n"));
        assert!(!watch.is_wanted(later) && watch.watch.lock().last.is_none(), "memory is given back");
        assert_eq!(watch.get(later, Instant::now()).await, Err(NoBody::NotYet));
    }
}
