//! A store that keeps nothing and refuses only what lies too far in the future.

use model::storage::{
    Append, AppendError, AppendOptions, AppendSample, Appender, CommitSummary, LayoutRef, LayoutSlot, Row,
    RowOutcome, SeriesRef, StorageError,
};
use model::{Exemplar, Labels, Metadata, Timestamp};

pub(super) struct NullStore;

impl Append for NullStore {
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender> {
        Box::new(NullAppender { max_time: options.max_time, slots: 0, samples: 0 })
    }
}

struct NullAppender {
    max_time: Option<Timestamp>,
    slots: u32,
    samples: u64,
}

impl Appender for NullAppender {
    fn open_layout(&mut self) -> LayoutRef {
        LayoutRef(1)
    }

    fn extend_layout(&mut self, _: LayoutRef, _: &Labels) -> Result<LayoutSlot, AppendError> {
        // Over all layouts: only one row is ever looked at, and gaps in it are absent values.
        let slot = self.slots;
        self.slots = slot.checked_add(1).ok_or(AppendError::SeriesLimit)?;
        Ok(LayoutSlot(slot))
    }

    fn retire_slot(&mut self, _: LayoutRef, _: LayoutSlot) {}

    fn close_layout(&mut self, _: LayoutRef) {}

    fn append_row(&mut self, row: &Row<'_>) -> RowOutcome {
        self.samples += row.values.len() as u64;
        RowOutcome::default()
    }

    fn append_row_part(&mut self, _: LayoutSlot, row: &Row<'_>) -> RowOutcome {
        self.append_row(row)
    }

    fn append(
        &mut self,
        series: Option<SeriesRef>,
        _: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError> {
        if self.max_time.is_some_and(|max| sample.t > max) {
            return Err(AppendError::OutOfBounds);
        }
        self.samples += 1;
        Ok(series.unwrap_or(SeriesRef(1)))
    }

    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }

    fn update_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<CommitSummary, StorageError> {
        Ok(CommitSummary { samples: self.samples, series_created: 0 })
    }

    fn rollback(self: Box<Self>) {}
}
