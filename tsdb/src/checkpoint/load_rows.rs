//! Reading the rows of layouts: see [`super::save_rows`].
//!
//! A record that damage took costs what is in it: windows, rows and parts of windows name their history, and find their place
//! without those before them.

use std::sync::Arc;

use hashbrown::HashMap;
use model::sample::{TimeRange, Timestamp};
use model::storage::ABSENT_BITS;

use super::load::Loader;
use super::{IN_FILE, IN_LINE};
use crate::coding::{DecodeError, Reader};
use crate::head::history::{History, HistoryState};
use crate::head::sealed::{FRAME_SLOTS, Place, SealedWindow};
use crate::head::window::{Coverage, RowPart};

/// A window in memory, as far as its chunks have been read.
#[derive(Debug)]
pub(super) struct PartialWindow {
    history: Arc<History>,
    /// Its place among the windows of its history.
    number: u64,
    range: TimeRange,
    rows: u32,
    times: Vec<u8>,
    /// Chunks that it should have, and has.
    told: u32,
    chunks: u32,
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Loader<'_> {
    /// A history without windows and rows yet.
    pub(super) fn history(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.read.histories += 1;
        let history = Arc::new(History::new(reader.uvarint()?));
        let mut state = HistoryState { closed: true, ..HistoryState::default() };
        let slots = reader.count(8)?;
        state.current = (0..slots).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
        let runs = reader.count(2)?;
        let runs = (0..runs).map(|_| Ok((reader.uvarint32()?, reader.varint()?)));
        state.covered = Coverage::of_runs(runs.collect::<Result<Vec<_>, DecodeError>>()?);
        let gone = reader.count(10)?;
        let gone = (0..gone).map(|_| Ok((reader.uvarint32()?, (reader.varint()?, reader.u64_le()?))));
        state.gone = gone.collect::<Result<HashMap<_, _>, DecodeError>>()?;
        for slot in state.current.iter().enumerate().filter(|(_, value)| **value != ABSENT_BITS) {
            state.present.insert(slot.0);
        }
        if let Some(newest) = Some(state.covered.max()).filter(|newest| *newest > Timestamp::MIN) {
            self.see(newest);
        }
        *history.inner.write() = state;
        self.head.histories.lock().insert(history.id, history);
        Ok(())
    }

    /// `None`: one that damage took.
    fn named(&self, reader: &mut Reader<'_>) -> Result<Option<Arc<History>>, DecodeError> {
        let id = reader.uvarint()?;
        Ok(self.head.histories.lock().get(&id).cloned())
    }

    /// The next window of a history. That of chunks in memory waits for them.
    pub(super) fn window(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.read.windows += 1;
        let history = self.named(reader)?;
        let number = reader.uvarint()?;
        let range = TimeRange::new(reader.varint()?, reader.varint()?);
        let rows = reader.uvarint32()?;
        let chunks = reader.uvarint32()?;
        let len = reader.count(1)?;
        let times = reader.bytes(len)?;
        let Some(history) = history else { return Ok(()) };
        match reader.u8()? {
            IN_LINE => {
                let times = times.to_vec();
                let (bytes, ends) = (Vec::new(), Vec::new());
                let told = chunks;
                self.window =
                    Some(PartialWindow { history, number, range, rows, times, told, chunks: 0, bytes, ends });
            }
            IN_FILE => {
                let (number, offset) = (reader.uvarint32()?, reader.uvarint()?);
                let frames = reader.count(1)?;
                let frames = (0..frames).map(|_| reader.uvarint32()).collect::<Result<Box<[u32]>, _>>()?;
                let end = frames.iter().fold(offset, |end, len| end.saturating_add(u64::from(*len)));
                match self.file(number, end) {
                    Some(file) => {
                        let place = Place::File { file, offset, frames };
                        self.keep(&history, SealedWindow::in_place(range, rows, times, chunks, place));
                    }
                    None => self.lost += u64::from(chunks),
                }
            }
            _ => return Err(DecodeError::Unknown("place of chunks")),
        }
        Ok(())
    }

    /// More chunks of the window that was begun.
    pub(super) fn chunks(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let (id, number) = (reader.uvarint()?, reader.uvarint()?);
        let first = usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::NumberRange)?;
        let count = reader.count(1)?;
        let of_this = |window: &&mut PartialWindow| window.history.id == id && window.number == number;
        // That of a window which damage took.
        let Some(window) = self.window.as_mut().filter(of_this) else { return Ok(()) };
        // So that no number makes us allocate more than the file has.
        let slots = window.history.inner.read().current.len();
        if first < window.ends.len() || first.saturating_add(count) > slots {
            return Err(DecodeError::Inconsistent("slots of a window"));
        }
        let mut end = window.ends.last().copied().unwrap_or(0);
        let start = end;
        // Between lies a part that damage took.
        window.ends.resize(first, end);
        for _ in 0..count {
            let len = reader.uvarint32()?;
            window.chunks += u32::from(len > 0);
            end = end.checked_add(len).ok_or(DecodeError::NumberRange)?;
            window.ends.push(end);
        }
        window.bytes.extend_from_slice(reader.bytes((end - start) as usize)?);
        Ok(())
    }

    /// The window that was begun gets no more chunks.
    pub(super) fn close_window(&mut self) {
        let Some(window) = self.window.take() else { return };
        let PartialWindow { history, range, rows, times, told, chunks, bytes, mut ends, .. } = window;
        // Slots without chunks at the end were left out. Frames are of all slots that share one.
        ends.resize(ends.len().next_multiple_of(FRAME_SLOTS), ends.last().copied().unwrap_or(0));
        self.lost += u64::from(told.saturating_sub(chunks));
        if chunks > 0 {
            let place = Place::Memory { bytes: bytes.into(), ends: ends.into() };
            self.keep(&history, SealedWindow::in_place(range, rows, &times, chunks, place));
        }
    }

    fn keep(&mut self, history: &Arc<History>, window: SealedWindow) {
        self.see(window.min_t);
        self.see(window.max_t);
        self.head.saw_in_order(window.min_t);
        self.chunks += window.chunks();
        let window = Arc::new(window);
        if window.is_in_memory() {
            self.head.unflushed_windows.lock().push((Arc::clone(history), Arc::clone(&window)));
        }
        history.inner.write().sealed.push(window);
    }

    /// Open rows of a history.
    pub(super) fn rows(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let history = self.named(reader)?;
        let mut state = history.as_ref().map(|history| history.inner.write());
        while !reader.is_empty() {
            self.read.rows += 1;
            let t = reader.varint()?;
            let from = reader.uvarint32()?;
            let to = from.checked_add(reader.uvarint32()?).ok_or(DecodeError::NumberRange)?;
            let values = reader.count(8)?;
            let words = RowPart::words_of(from, to);
            if words.saturating_add(values).saturating_mul(8) > reader.remaining() {
                return Err(DecodeError::UnexpectedEnd);
            }
            let words = (0..words).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
            let values = (0..values).map(|_| reader.u64_le()).collect::<Result<Vec<_>, _>>()?;
            let marked: usize = words.iter().map(|word| word.count_ones() as usize).sum();
            if marked != values.len() {
                return Err(DecodeError::Inconsistent("values of a row"));
            }
            let row = RowPart { t, commit: 0, from, to, words: &words, values: &values };
            // One that damage took.
            let Some(state) = &mut state else { continue };
            if to as usize > state.current.len() || row.changes().any(|(slot, _)| slot < from || slot >= to) {
                return Err(DecodeError::Inconsistent("slots of a row"));
            }
            self.see(t);
            self.head.saw_in_order(t);
            // The newest sample of each slot is known: open rows need not have it.
            state.rows.push(&row);
        }
        Ok(())
    }
}
