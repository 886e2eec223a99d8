//! Isolation: a view sees the commits that were published when it was opened, whole, and none after.
//!
//! Commits are numbered and applied one after another. A view remembers the number of the last one published. Rows and
//! out-of-order samples carry the number of their commit. Since the in-order samples that a series has of its own have
//! ascending times in order of commits, what a view must not see of them is all from some time on: series keep [`Steps`], a
//! short list (commit, first time it wrote), of the commits that some open view does not see.
//!
//! The same registry protects readers from retention and from reuse: a view has a floor of time below which it sees
//! nothing, and chunks are dropped only below the floors of all open views.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::sample::Timestamp;
use parking_lot::Mutex;

/// All open views and the last published commit.
#[derive(Debug)]
pub(crate) struct Views {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: BTreeMap<u64, OpenView>,
    next: u64,
    published: u64,
    floor: Timestamp,
    in_order_floor: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct OpenView {
    commit: u64,
    floor: Timestamp,
    in_order_floor: Timestamp,
}

impl Default for Views {
    fn default() -> Self {
        let state = State {
            open: BTreeMap::new(),
            next: 0,
            published: 0,
            floor: Timestamp::MIN,
            in_order_floor: Timestamp::MIN,
        };
        Self { state: Mutex::new(state) }
    }
}

impl Views {
    /// Opens a view of all that is published.
    pub(crate) fn open(self: &Arc<Self>) -> View {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let (commit, floor, in_order_floor) = (state.published, state.floor, state.in_order_floor);
        state.open.insert(id, OpenView { commit, floor, in_order_floor });
        View { id, commit, floor, in_order_floor, views: Arc::clone(self) }
    }

    /// The newest commit that every view, open or to come, sees.
    pub(crate) fn watermark(&self) -> u64 {
        let state = self.state.lock();
        state.open.values().map(|view| view.commit).min().unwrap_or(state.published)
    }

    /// The last published commit.
    pub(crate) fn published(&self) -> u64 {
        self.state.lock().published
    }

    /// Makes `commit` and all before it visible to views opened from now on.
    pub(crate) fn publish(&self, commit: u64) {
        self.state.lock().published = commit;
    }

    /// Hides all before `floor` from views opened from now on; the floor never sinks.
    pub(crate) fn raise_floor(&self, floor: Timestamp) {
        let mut state = self.state.lock();
        state.floor = state.floor.max(floor);
    }

    /// The lowest time that some view, open or to come, may look at.
    pub(crate) fn floor(&self) -> Timestamp {
        let state = self.state.lock();
        state.open.values().map(|view| view.floor).min().unwrap_or(state.floor)
    }

    /// What views opened from now on see begins here.
    pub(crate) fn newest_floor(&self) -> Timestamp {
        self.state.lock().floor
    }

    /// Hides in-order samples before `floor` from views opened from now on: they are in a block. The floor never sinks.
    pub(crate) fn raise_in_order_floor(&self, floor: Timestamp) {
        let mut state = self.state.lock();
        state.in_order_floor = state.in_order_floor.max(floor);
    }

    /// The lowest time of in-order samples that some view, open or to come, may look at.
    pub(crate) fn in_order_floor(&self) -> Timestamp {
        let state = self.state.lock();
        let lowest = state.open.values().map(|view| view.floor.max(view.in_order_floor)).min();
        lowest.unwrap_or(state.floor.max(state.in_order_floor))
    }

    /// Where the in-order samples of views opened from now on begin.
    pub(crate) fn truncated_to(&self) -> Timestamp {
        self.state.lock().in_order_floor
    }

    /// A stamp greater than that of every view opened so far.
    pub(crate) fn stamp(&self) -> u64 {
        self.state.lock().next
    }

    /// Whether all views opened before `stamp` are closed.
    pub(crate) fn all_since(&self, stamp: u64) -> bool {
        self.state.lock().open.keys().next().is_none_or(|oldest| *oldest >= stamp)
    }
}

/// An open view; closed when dropped.
#[derive(Debug)]
pub(crate) struct View {
    id: u64,
    /// The last commit it sees.
    pub(crate) commit: u64,
    /// The earliest time it sees.
    pub(crate) floor: Timestamp,
    /// The earliest time of which it sees in-order samples: what is older is in blocks. Never below a time that counts for
    /// views opened before.
    pub(crate) in_order_floor: Timestamp,
    views: Arc<Views>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.views.state.lock().open.remove(&self.id);
    }
}

/// Commits that not every view sees, in order, and the first time each wrote. One is the rule, since no reader is open for
/// long: the others hang on a box.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    /// Commit 0: there is none.
    newest: (u64, Timestamp),
    #[expect(clippy::box_collection, reason = "small where there is none")]
    older: Option<Box<Vec<(u64, Timestamp)>>>,
}

impl Steps {
    /// See `Series::warm`.
    #[inline]
    pub(crate) fn warm(&self) -> u8 {
        self.newest.0.to_le_bytes()[0]
    }

    /// Notes that `commit` writes from `t` on; forgets commits that all views see.
    pub(crate) fn note(&mut self, commit: u64, t: Timestamp, watermark: u64) {
        if self.newest.0 == commit {
            self.newest.1 = self.newest.1.min(t);
            return;
        }
        if let Some(older) = &mut self.older {
            older.retain(|step| step.0 > watermark);
            if older.is_empty() {
                self.older = None;
            }
        }
        if self.newest.0 > watermark {
            self.older.get_or_insert_default().push(self.newest);
        }
        self.newest = (commit, t);
    }

    /// The first time hidden from a view of `commit`; `None`: nothing is hidden.
    pub(crate) fn hidden_from(&self, commit: u64) -> Option<Timestamp> {
        let all = self.older.iter().flat_map(|older| older.iter()).chain([&self.newest]);
        all.filter(|step| step.0 > commit).map(|step| step.1).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_its_commit_and_holds_the_watermark() {
        let views = Arc::new(Views::default());
        views.publish(3);
        let old = views.open();
        views.publish(5);
        assert_eq!((old.commit, views.open().commit, views.watermark()), (3, 5, 3));
        let mut steps = Steps::default();
        steps.note(4, 40, views.watermark());
        steps.note(5, 50, views.watermark());
        assert_eq!(steps.hidden_from(old.commit), Some(40));
        assert_eq!(steps.hidden_from(4), Some(50));
        assert_eq!(steps.hidden_from(5), None);
        let stamp = views.stamp();
        assert!(!views.all_since(stamp));
        drop(old);
        assert!(views.all_since(stamp));
        steps.note(6, 60, views.watermark());
        assert_eq!(steps.hidden_from(0), Some(60), "commits that all see are forgotten");
    }
}
