//! Recognises series by their raw label bytes.
//!
//! A map from a 128-bit seeded hash of the bytes to the storage's reference. The seed is random for each process, so
//! nobody can prepare two label sets that collide. Bytes are not kept: 28 bytes a series instead of two hundred.

use hashbrown::HashMap;
use model::storage::SeriesRef;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A bounded map from raw label bytes to references. When full it starts anew: the next requests refill it.
#[derive(Debug)]
pub(super) struct SeriesCache {
    seed: u64,
    entries_max: usize,
    entries: HashMap<u128, SeriesRef, Identity>,
}

/// What a look-up key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u128);

impl SeriesCache {
    pub(super) fn new(seed: u64, entries_max: usize) -> Self {
        Self { seed, entries_max, entries: HashMap::with_hasher(Identity) }
    }

    pub(super) fn key(&self, raw_labels: &[u8]) -> Key {
        Key(xxh3_128_with_seed(raw_labels, self.seed))
    }

    pub(super) fn get(&self, key: Key) -> Option<SeriesRef> {
        self.entries.get(&key.0).copied()
    }

    pub(super) fn insert(&mut self, key: Key, series: SeriesRef) {
        if self.entries.len() >= self.entries_max {
            tracing::debug!(entries = self.entries.len(), "remote-write series cache is full: starting anew");
            self.entries.clear();
        }
        self.entries.insert(key.0, series);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The keys are hashes already: takes their lower half.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity;

impl std::hash::BuildHasher for Identity {
    type Hasher = IdentityHasher;

    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

/// See [`Identity`].
#[derive(Debug)]
pub(super) struct IdentityHasher(u64);

impl std::hash::Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, value: u128) {
        // The upper half stays for the comparison of keys.
        self.0 = value as u64;
    }
}
