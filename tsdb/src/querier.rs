//! Reading the head: views and selections. Head and blocks are joined in [`crate::select`].

use std::ops::Range;
use std::sync::Arc;

use model::annotations::Annotations;
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::TimeRange;
use model::storage::{LabelHints, LabelList, StorageError};

use crate::columns::Columns;
use crate::db::Shared;
use crate::head::compaction::HeadPart;
use crate::head::view::View;
use crate::index::pace::{Interrupted, Pace};

/// A view of a span of time of the head.
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

    fn ids(&self, matchers: &[Matcher], range: TimeRange, pace: &Pace<'_>) -> Result<Vec<u32>, Interrupted> {
        let mut ids = self.shared.head.catalogue.read().select_at(pace, matchers)?;
        pace.look()?;
        self.shared.head.table.filter(&mut ids, |series| series.may_overlap(range));
        Ok(ids)
    }

    /// What the view may see of the querier's range.
    fn visible(&self, range: TimeRange) -> TimeRange {
        TimeRange::new(range.min.max(self.view.floor), range.max)
    }

    /// The ids when nobody interrupts it.
    fn all_ids(&self, matchers: &[Matcher]) -> Vec<u32> {
        self.ids(matchers, self.visible(self.range), &Pace::free()).expect("nobody interrupts it")
    }

    /// The series that may have samples within `range`; in order of labels if `sorted`, at most `limit` unless that is 0.
    ///
    /// # Errors
    /// When `pace` says to end.
    pub(crate) fn selection(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        sorted: bool,
        limit: usize,
        pace: &Pace<'_>,
    ) -> Result<HeadSelection, Interrupted> {
        let range = self.visible(range);
        let mut ids = if range.min <= range.max { self.ids(matchers, range, pace)? } else { Vec::new() };
        if sorted {
            pace.look()?;
            self.shared.head.catalogue.read().sort_by_labels(&mut ids);
        }
        if limit > 0 {
            ids.truncate(limit);
        }
        Ok(HeadSelection { shared: Arc::clone(&self.shared), view: Arc::clone(&self.view), ids })
    }

    /// Names of labels on the series that `matchers` accept, sorted.
    pub(crate) fn label_names(&self, matchers: &[Matcher], hints: &LabelHints) -> LabelList {
        if !self.sees_something() {
            return LabelList::default();
        }
        if matchers.is_empty() {
            let catalogue = self.shared.head.catalogue.read();
            return list(catalogue.label_names(), hints.limit);
        }
        let ids = self.all_ids(matchers);
        let catalogue = self.shared.head.catalogue.read();
        list(catalogue.label_names_of(&ids), hints.limit)
    }

    /// Values of a label on the series that `matchers` accept, sorted.
    pub(crate) fn label_values(&self, name: &str, matchers: &[Matcher], hints: &LabelHints) -> LabelList {
        if !self.sees_something() {
            return LabelList::default();
        }
        if matchers.is_empty() {
            let catalogue = self.shared.head.catalogue.read();
            return list(catalogue.label_values(name), hints.limit);
        }
        let ids = self.all_ids(matchers);
        let catalogue = self.shared.head.catalogue.read();
        list(catalogue.label_values_of(name, &ids), hints.limit)
    }
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>, limit: usize) -> LabelList {
    let most = if limit == 0 { usize::MAX } else { limit };
    let mut items = items.into_iter();
    let taken: Vec<String> = items.by_ref().take(most).map(str::to_owned).collect();
    LabelList { items: taken, truncated: items.next().is_some(), annotations: Annotations::new() }
}

/// Selected series of the head. Reading one copies its compressed bytes under a lock and decodes them outside of it.
#[derive(Debug)]
pub(crate) struct HeadSelection {
    shared: Arc<Shared>,
    view: Arc<View>,
    ids: Vec<u32>,
}

impl HeadSelection {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The labels of the series at place `at`.
    pub(crate) fn labels(&self, at: usize) -> Labels {
        let labels = self.shared.head.catalogue.read().labels(self.ids[at]);
        labels.expect("labels are kept while a view is open that may have found the series")
    }

    /// The labels of neighbours.
    pub(crate) fn labels_of(&self, places: Range<usize>) -> Vec<Labels> {
        let catalogue = self.shared.head.catalogue.read();
        let labels = self.ids[places].iter().map(|id| catalogue.labels(*id));
        labels.map(|labels| labels.expect("as above")).collect()
    }

    /// The labels of neighbours, reduced to those named in `only`.
    pub(crate) fn some_labels_of(&self, places: Range<usize>, only: &[String]) -> Vec<Labels> {
        let labels = self.shared.head.catalogue.read().some_labels_of(&self.ids[places], only);
        labels.into_iter().map(|labels| labels.expect("as above")).collect()
    }

    /// Appends the samples within `range` of the series at place `at`; not normalized.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn read(&self, at: usize, range: TimeRange, into: &mut Columns) -> Result<(), StorageError> {
        self.shared.head.read(self.ids[at], &self.view, range, HeadPart::All, into)
    }
}
