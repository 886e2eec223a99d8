//! Reading: views, selections, and the decoding of one series.

use std::sync::Arc;

use model::annotations::Annotations;
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::TimeRange;
use model::storage::{LabelHints, LabelList, Querier, SelectHints, SeriesColumns, SeriesSet, StorageError};

use crate::columns::Columns;
use crate::db::Shared;
use crate::head::compaction::HeadPart;
use crate::head::view::View;

/// A view of a span of time.
#[derive(Debug)]
pub(crate) struct HeadQuerier {
    shared: Arc<Shared>,
    range: TimeRange,
    view: Arc<View>,
}

impl HeadQuerier {
    pub(crate) fn new(shared: Arc<Shared>, range: TimeRange) -> Self {
        let view = Arc::new(shared.head.views.open());
        Self { shared, range, view }
    }

    /// Whether the view may see anything at all.
    fn sees_something(&self) -> bool {
        self.shared.head.range().is_some_and(|range| range.overlaps(&self.range))
    }

    fn ids(&self, matchers: &[Matcher], range: TimeRange) -> Vec<u32> {
        let mut ids = self.shared.head.catalogue.read().select(matchers);
        self.shared.head.table.filter(&mut ids, |series| series.may_overlap(range));
        ids
    }

    fn clamped(&self, hinted: Option<TimeRange>) -> TimeRange {
        let hinted = hinted.unwrap_or(self.range);
        TimeRange::new(self.range.min.max(hinted.min).max(self.view.floor), self.range.max.min(hinted.max))
    }
}

impl Querier for HeadQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let range = self.clamped(hints.range);
        let mut ids = if range.min <= range.max { self.ids(matchers, range) } else { Vec::new() };
        if hints.sorted {
            self.shared.head.catalogue.read().sort_by_labels(&mut ids);
        }
        if hints.limit > 0 {
            ids.truncate(hints.limit);
        }
        let (shared, view) = (Arc::clone(&self.shared), Arc::clone(&self.view));
        Ok(Box::new(Selection { shared, view, ids, range }))
    }

    fn label_names(&self, matchers: &[Matcher], hints: &LabelHints) -> Result<LabelList, StorageError> {
        if !self.sees_something() {
            return Ok(LabelList::default());
        }
        if matchers.is_empty() {
            let catalogue = self.shared.head.catalogue.read();
            return Ok(list(catalogue.label_names(), hints.limit));
        }
        let ids = self.ids(matchers, self.clamped(None));
        let catalogue = self.shared.head.catalogue.read();
        Ok(list(catalogue.label_names_of(&ids), hints.limit))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelHints,
    ) -> Result<LabelList, StorageError> {
        if !self.sees_something() {
            return Ok(LabelList::default());
        }
        if matchers.is_empty() {
            let catalogue = self.shared.head.catalogue.read();
            return Ok(list(catalogue.label_values(name), hints.limit));
        }
        let ids = self.ids(matchers, self.clamped(None));
        let catalogue = self.shared.head.catalogue.read();
        Ok(list(catalogue.label_values_of(name, &ids), hints.limit))
    }
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>, limit: usize) -> LabelList {
    let most = if limit == 0 { usize::MAX } else { limit };
    let mut items = items.into_iter();
    let taken: Vec<String> = items.by_ref().take(most).map(str::to_owned).collect();
    LabelList { items: taken, truncated: items.next().is_some(), annotations: Annotations::new() }
}

/// Selected series. Reading one copies its compressed bytes under a lock and decodes them outside of it.
#[derive(Debug)]
struct Selection {
    shared: Arc<Shared>,
    view: Arc<View>,
    ids: Vec<u32>,
    range: TimeRange,
}

impl SeriesSet for Selection {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn labels(&self, index: usize) -> Labels {
        let labels = self.shared.head.catalogue.read().labels(self.ids[index]);
        labels.expect("labels are kept while a view is open that may have found the series")
    }

    fn read(&self, index: usize, into: &mut SeriesColumns) -> Result<(), StorageError> {
        into.clear();
        let mut columns = Columns::default();
        let (id, part) = (self.ids[index], HeadPart::All);
        self.shared.head.read(id, &self.view, self.range, part, &mut columns)?;
        columns.normalize();
        columns.hand_over(into);
        Ok(())
    }
}
