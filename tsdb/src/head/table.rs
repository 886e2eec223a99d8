//! A sparse array by dense ids: pages that come with their first entry and go with their last.
//!
//! Ids of series are given out once and never again; pages keep the memory of a store with churn in proportion to the
//! series that live.

use std::sync::Arc;

use parking_lot::RwLock;

use super::series::Series;

const PAGE: usize = 256;

/// Entries by id, for use under somebody else's lock.
#[derive(Debug)]
pub(crate) struct Paged<T> {
    pages: Vec<Option<Box<Page<T>>>>,
}

#[derive(Debug)]
struct Page<T> {
    used: usize,
    entries: Vec<Option<T>>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Paged<T> {
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.pages.get(id as usize / PAGE)?.as_ref()?.entries.get(id as usize % PAGE)?.as_ref()
    }

    pub(crate) fn insert(&mut self, id: u32, entry: T) {
        let index = id as usize / PAGE;
        if index >= self.pages.len() {
            self.pages.resize_with(index + 1, || None);
        }
        let page = self.pages[index].get_or_insert_with(|| {
            Box::new(Page { used: 0, entries: std::iter::repeat_with(|| None).take(PAGE).collect() })
        });
        if page.entries[id as usize % PAGE].replace(entry).is_none() {
            page.used += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.pages.get_mut(id as usize / PAGE)?;
        let page = slot.as_mut()?;
        let entry = page.entries.get_mut(id as usize % PAGE)?.take()?;
        page.used -= 1;
        if page.used == 0 {
            *slot = None;
        }
        Some(entry)
    }
}

/// All series by id. Each page of 256 has a lock of its own.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    pages: RwLock<Paged<Arc<SeriesPage>>>,
}

/// Neighbouring series and the lock that guards them.
#[derive(Debug)]
pub(crate) struct SeriesPage {
    entries: RwLock<Vec<Option<Series>>>,
}

impl SeriesTable {
    fn page(&self, id: u32) -> Option<Arc<SeriesPage>> {
        self.pages.read().get(id / PAGE as u32).cloned()
    }

    pub(crate) fn insert(&self, id: u32, series: Series) {
        let page = self.page(id).unwrap_or_else(|| {
            let mut pages = self.pages.write();
            let number = id / PAGE as u32;
            if let Some(page) = pages.get(number) {
                return Arc::clone(page);
            }
            let entries = std::iter::repeat_with(|| None).take(PAGE).collect();
            let page = Arc::new(SeriesPage { entries: RwLock::new(entries) });
            pages.insert(number, Arc::clone(&page));
            page
        });
        page.entries.write()[id as usize % PAGE] = Some(series);
    }

    /// Removes a series; its page goes when it was the last one and no id of the page can come any more.
    pub(crate) fn remove(&self, id: u32, next_id: u32) -> Option<Series> {
        let page = self.page(id)?;
        let mut entries = page.entries.write();
        let series = entries[id as usize % PAGE].take();
        let number = id / PAGE as u32;
        let full = next_id / PAGE as u32 > number;
        if full && entries.iter().all(Option::is_none) {
            drop(entries);
            self.pages.write().remove(number);
        }
        series
    }

    /// Looks at a series under its page's read lock. `look` must not come back to the table.
    pub(crate) fn with<R>(&self, id: u32, look: impl FnOnce(&Series) -> R) -> Option<R> {
        // Holding the directory is cheaper than counting a reference to the page, and only new pages wait for it.
        let pages = self.pages.read();
        let entries = pages.get(id / PAGE as u32)?.entries.read();
        entries[id as usize % PAGE].as_ref().map(look)
    }

    /// Changes a series under its page's write lock. `change` must not come back to the table.
    pub(crate) fn with_mut<R>(&self, id: u32, change: impl FnOnce(&mut Series) -> R) -> Option<R> {
        let pages = self.pages.read();
        let mut entries = pages.get(id / PAGE as u32)?.entries.write();
        entries[id as usize % PAGE].as_mut().map(change)
    }

    /// Looks at the series of `ids` in order; one that is not there is `None`. Neighbours that follow each other share a turn at
    /// their page's lock. `look` must not come back to the table.
    pub(crate) fn with_each(
        &self,
        ids: impl Iterator<Item = u32>,
        mut look: impl FnMut(usize, Option<&Series>),
    ) {
        let pages = self.pages.read();
        let mut ids = ids.enumerate().peekable();
        while let Some((index, id)) = ids.next() {
            let number = id / PAGE as u32;
            let entries = pages.get(number).map(|page| page.entries.read());
            let entry = |id: u32| entries.as_ref().and_then(|entries| entries[id as usize % PAGE].as_ref());
            look(index, entry(id));
            while let Some((index, id)) = ids.next_if(|(_, id)| id / PAGE as u32 == number) {
                look(index, entry(id));
            }
        }
    }

    /// As [`SeriesTable::with_each`], to change them.
    pub(crate) fn with_each_mut(
        &self,
        ids: impl Iterator<Item = u32>,
        mut change: impl FnMut(usize, Option<&mut Series>),
    ) {
        let pages = self.pages.read();
        let mut ids = ids.enumerate().peekable();
        while let Some((index, id)) = ids.next() {
            let number = id / PAGE as u32;
            let mut entries = pages.get(number).map(|page| page.entries.write());
            change(index, entries.as_mut().and_then(|entries| entries[id as usize % PAGE].as_mut()));
            while let Some((index, id)) = ids.next_if(|(_, id)| id / PAGE as u32 == number) {
                change(index, entries.as_mut().and_then(|entries| entries[id as usize % PAGE].as_mut()));
            }
        }
    }

    /// Keeps of `ids` (ascending) those whose series `keep` accepts; takes each page's lock once.
    pub(crate) fn filter(&self, ids: &mut Vec<u32>, mut keep: impl FnMut(&Series) -> bool) {
        let (mut read, mut kept) = (0, 0);
        while read < ids.len() {
            let number = ids[read] / PAGE as u32;
            let page = self.page(ids[read]);
            let entries = page.as_ref().map(|page| page.entries.read());
            while read < ids.len() && ids[read] / PAGE as u32 == number {
                let id = ids[read];
                let series = entries.as_ref().and_then(|entries| entries[id as usize % PAGE].as_ref());
                if series.is_some_and(&mut keep) {
                    ids[kept] = id;
                    kept += 1;
                }
                read += 1;
            }
        }
        ids.truncate(kept);
    }

    /// Looks at every series, page by page.
    pub(crate) fn for_each(&self, next_id: u32, mut look: impl FnMut(u32, &Series)) {
        for number in 0..=next_id / PAGE as u32 {
            let Some(page) = self.pages.read().get(number).cloned() else { continue };
            let entries = page.entries.read();
            for (id, entry) in (number * PAGE as u32..).zip(entries.iter()) {
                if let Some(series) = entry {
                    look(id, series);
                }
            }
        }
    }

    /// Changes every series, page by page; appends wait at most for one page.
    pub(crate) fn for_each_mut(&self, next_id: u32, mut change: impl FnMut(u32, &mut Series)) {
        for number in 0..=next_id / PAGE as u32 {
            let Some(page) = self.pages.read().get(number).cloned() else { continue };
            let mut entries = page.entries.write();
            for (id, entry) in (number * PAGE as u32..).zip(entries.iter_mut()) {
                if let Some(series) = entry {
                    change(id, series);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_and_go() {
        let mut paged = Paged::default();
        paged.insert(3, "a");
        paged.insert(70_000, "b");
        assert_eq!((paged.get(3), paged.get(4), paged.get(70_000)), (Some(&"a"), None, Some(&"b")));
        assert_eq!(paged.remove(3), Some("a"));
        assert_eq!(paged.remove(3), None);
        assert!(paged.pages[0].is_none(), "an empty page is freed");
    }

    #[test]
    fn a_page_with_ids_to_come_stays() {
        let table = SeriesTable::default();
        table.insert(0, Series::default());
        assert!(table.remove(0, 1).is_some());
        assert!(table.page(0).is_some());
        table.insert(1, Series::default());
        assert!(table.remove(1, 300).is_some());
        assert!(table.page(0).is_none());
    }
}
