//! A selection in storage ends when its query does, and the error says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use model::storage::{LabelHints, LabelList, Querier, Queryable, SelectHints, SeriesSet, StorageError};
use model::{Matcher, TimeRange};
use query::exec::{Engine, EngineOptions, QueryErrorKind, QueryOptions};

/// Searches until it is told to end.
#[derive(Clone, Default)]
struct Endless(Arc<AtomicUsize>);

impl Queryable for Endless {
    fn querier(&self, _: TimeRange) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Querier for Endless {
    fn select(&self, _: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let interrupt = hints.interrupt.as_ref().expect("a query can be stopped");
        while !interrupt.is_due() {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }
        Err(StorageError::Cancelled)
    }

    fn label_names(&self, _: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        Ok(LabelList::default())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: &LabelHints) -> Result<LabelList, StorageError> {
        Ok(LabelList::default())
    }
}

#[test]
fn selections_end_with_their_query() {
    let engine = Engine::new(EngineOptions::default());
    let query = engine.parse("sum(rate(x[5m]))").unwrap();
    let storage = Endless::default();
    let timeout = Some(Duration::from_millis(20));
    let options = QueryOptions { timeout, ..QueryOptions::default() };
    let error = engine.instant(&storage, &query, 0, &options).unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::Timeout);
    assert!(storage.0.load(Ordering::Relaxed) > 0);
    let cancel = Arc::new(AtomicBool::new(false));
    let options = QueryOptions { cancel: Some(Arc::clone(&cancel)), ..QueryOptions::default() };
    let (looked, before) = (Arc::clone(&storage.0), storage.0.load(Ordering::Relaxed));
    let stopper = std::thread::spawn(move || {
        while looked.load(Ordering::Relaxed) < before + 10 {
            std::thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
    });
    let error = engine.instant(&storage, &query, 0, &options).unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::Canceled);
    stopper.join().unwrap();
}
