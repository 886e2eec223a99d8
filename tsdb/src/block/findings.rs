//! What is wrong with a block: named up to a bound, then counted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::storage::StorageError;

use super::Damage;

/// Damages that are named; more are counted only.
const NAMED_MAX: usize = 10_000;

/// What is found. Each place is named once.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Of the block: the place of what has no other.
    dir: PathBuf,
    damage: Vec<Damage>,
    seen: BTreeSet<(PathBuf, u64)>,
    more: usize,
}

impl Findings {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), damage: Vec::new(), seen: BTreeSet::new(), more: 0 }
    }

    pub(crate) fn add(&mut self, file: PathBuf, offset: u64, what: String) {
        let place = (file, offset);
        if self.seen.contains(&place) {
            return;
        }
        if self.damage.len() >= NAMED_MAX {
            self.more += 1;
            return;
        }
        self.damage.push(Damage { file: place.0.clone(), offset, what });
        self.seen.insert(place);
    }

    pub(crate) fn error(&mut self, error: StorageError) {
        match error {
            StorageError::Corrupted { file, offset, what } => self.add(file, offset, what),
            StorageError::Io { what, path, source } => self.add(path, 0, format!("{what}: {source}")),
            other => self.add(self.dir.clone(), 0, other.to_string()),
        }
    }

    /// All that are named, and last how many there are besides.
    pub(crate) fn finish(mut self) -> Vec<Damage> {
        if self.more > 0 {
            let what = format!("{} more damages", self.more);
            self.damage.push(Damage { file: self.dir, offset: 0, what });
        }
        self.damage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_all_are_named() {
        let dir = Path::new("/data/block");
        let mut findings = Findings::new(dir);
        for offset in 0..20_000 {
            findings.add(dir.join("chunks/000001"), offset / 2, "wrong".to_owned());
        }
        for offset in 0..5 {
            let file = dir.join("index");
            findings.error(StorageError::Corrupted { file, offset, what: "wrong".to_owned() });
        }
        let found = findings.finish();
        assert_eq!(found.len(), NAMED_MAX + 1);
        let last = found.last().unwrap();
        assert_eq!((&*last.file, &*last.what), (dir, "5 more damages"));
    }

    #[test]
    fn an_error_without_a_place_is_the_blocks() {
        let mut findings = Findings::new(Path::new("/data/block"));
        findings.error(StorageError::NotReady("test"));
        assert_eq!(findings.finish()[0].file, Path::new("/data/block"));
    }
}
