//! What keeps discoverers from finding targets at the moment, for those who look at a job: its targets are the last ones
//! known, and this is why. Not for alerts; those have the counters of [`super::SdMetrics`].

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Most troubles of a job that are shown: the watches of thousands of services may all have the same one.
const SHOWN_MAX: usize = 100;
/// Most bytes of a text that are kept.
const TEXT_MAX_BYTES: usize = 1024;

/// A discoverer that cannot find out which targets there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryTrouble {
    /// Its kind, as in `…_sd_configs`.
    pub kind: &'static str,
    /// Why, without credentials.
    pub error: String,
}

/// The troubles of all jobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By job and by who has it.
    now: BTreeMap<(String, u64), DiscoveryTrouble>,
}

impl Troubles {
    /// A place for the troubles of one discoverer, or of one of its watches.
    pub(crate) fn of(&self, job: &str, kind: &'static str) -> Trouble {
        let mut state = self.state.lock();
        state.next += 1;
        Trouble { troubles: self.clone(), job: job.to_owned(), id: state.next, kind }
    }

    /// What troubles a job, oldest discoverer first.
    pub(crate) fn now(&self, job: &str) -> Vec<DiscoveryTrouble> {
        let state = self.state.lock();
        let of_job = state.now.range((job.to_owned(), 0)..=(job.to_owned(), u64::MAX));
        of_job.map(|(_, trouble)| trouble.clone()).take(SHOWN_MAX).collect()
    }
}

/// Says what troubles a discoverer; when dropped, nothing does.
#[derive(Debug)]
pub(crate) struct Trouble {
    troubles: Troubles,
    job: String,
    id: u64,
    kind: &'static str,
}

impl Trouble {
    /// Says that it cannot find out, and why.
    pub(crate) fn begins(&self, error: &dyn std::fmt::Display) {
        let mut error = error.to_string();
        error.truncate(error.floor_char_boundary(TEXT_MAX_BYTES));
        let trouble = DiscoveryTrouble { kind: self.kind, error };
        self.troubles.state.lock().now.insert((self.job.clone(), self.id), trouble);
    }

    /// Says that it found out.
    pub(crate) fn ends(&self) {
        self.troubles.state.lock().now.remove(&(self.job.clone(), self.id));
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_begin_end_and_go_with_who_has_them() {
        let troubles = Troubles::default();
        let [a, b, other] =
            [("j", "http"), ("j", "dns"), ("k", "http")].map(|(job, kind)| troubles.of(job, kind));
        a.begins(&"one");
        b.begins(&"two");
        other.begins(&"ö".repeat(TEXT_MAX_BYTES));
        a.begins(&"three");
        let shown = |job: &str| -> Vec<String> {
            troubles
                .now(job)
                .into_iter()
                .map(|trouble| format!("{}: {}", trouble.kind, trouble.error))
                .collect()
        };
        assert_eq!(shown("j"), ["http: three", "dns: two"]);
        assert_eq!(shown("k")[0].len(), "http: ".len() + TEXT_MAX_BYTES);
        a.ends();
        drop(other);
        assert_eq!((shown("j"), shown("k")), (vec!["dns: two".to_owned()], vec![]));
    }
}
