//! One bounded cache of what files hold, checked and unpacked, for the whole store.
//!
//! Keys are a file and an offset in it; values are plain bytes (frames, index pages) or decoded columns of times. Both
//! kinds have a bound of their own, in bytes, and are spread over shards with a lock each; a full shard lets the entries go
//! that were not used since the hand of its clock came by last (CLOCK, an approximation of LRU whose hits only set a flag).
//!
//! It does not know files: whoever opens one takes a [`FileId`], which is never given twice, so entries of a closed
//! file can do no harm; [`BlockCache::forget`] makes room for others.
//! Two threads that miss the same key at once both load it; the first stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use model::sample::Timestamp;
use model::storage::StorageError;
use parking_lot::Mutex;

/// Locks: more than the threads that read at once on usual machines.
const SHARDS: usize = 16;
/// What an entry takes beside its bytes: table, slot, allocation, reference counts.
const ENTRY_OVERHEAD_BYTES: usize = 96;
/// Decoded times may take this part of the bytes: they are few, for they are shared by series.
const TIMES_PART: usize = 4;

/// An opened file, as the cache knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId(u64);

/// Where something is: a file and an offset in it. Several columns of one frame differ in `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    file: FileId,
    offset: u64,
    part: u32,
}

/// What the cache has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Found.
    pub(crate) hits: u64,
    /// Loaded.
    pub(crate) misses: u64,
    /// Let go for others.
    pub(crate) evictions: u64,
    /// Entries now.
    pub(crate) entries: u64,
    /// Bytes now.
    pub(crate) bytes: u64,
}

/// See the module.
pub(crate) struct BlockCache {
    files: AtomicU64,
    bytes: Shards<Vec<u8>>,
    times: Shards<Vec<Timestamp>>,
    bytes_max: usize,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache")
            .field("bytes_max", &self.bytes_max)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl BlockCache {
    /// A cache that holds up to `bytes_max` bytes. 0 holds nothing.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let times_max = bytes_max / TIMES_PART;
        Arc::new(Self {
            files: AtomicU64::new(0),
            bytes: Shards::new(bytes_max - times_max),
            times: Shards::new(times_max),
            bytes_max,
        })
    }

    /// An id for a file that was just opened.
    pub(crate) fn file_id(&self) -> FileId {
        FileId(self.files.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes at `offset` of `file`; `load` reads, checks and unpacks them if they are not here.
    ///
    /// # Errors
    /// Those of `load`; nothing is kept then.
    pub(crate) fn get_or_load(
        &self,
        file: FileId,
        offset: u64,
        load: impl FnOnce() -> Result<Vec<u8>, StorageError>,
    ) -> Result<Arc<Vec<u8>>, StorageError> {
        self.bytes.get_or_load(Key { file, offset, part: 0 }, load)
    }

    /// The column of times that is the `part`-th thing at `offset` of `file`, as [`BlockCache::get_or_load`].
    ///
    /// # Errors
    /// Those of `load`; nothing is kept then.
    pub(crate) fn times_or_load(
        &self,
        file: FileId,
        offset: u64,
        part: u32,
        load: impl FnOnce() -> Result<Vec<Timestamp>, StorageError>,
    ) -> Result<Arc<Vec<Timestamp>>, StorageError> {
        self.times.get_or_load(Key { file, offset, part }, load)
    }

    /// Lets go of all of a file. Takes time in proportion to what is in the cache.
    pub(crate) fn forget(&self, file: FileId) {
        self.bytes.forget(file);
        self.times.forget(file);
    }

    /// Both kinds together.
    pub(crate) fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        self.bytes.add_to(&mut stats);
        self.times.add_to(&mut stats);
        stats
    }
}

/// One kind of value.
struct Shards<V> {
    shards: Vec<Mutex<Shard<V>>>,
    shard_bytes_max: usize,
}

struct Shard<V> {
    places: HashMap<Key, usize>,
    slots: Vec<Slot<V>>,
    /// Where the clock looks next.
    hand: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
}

struct Slot<V> {
    key: Key,
    value: Arc<V>,
    bytes: usize,
    /// Used since the hand came by.
    used: bool,
}

/// How much memory a value takes.
trait Weight {
    fn trim(&mut self);
    fn weight(&self) -> usize;
}

impl<T> Weight for Vec<T> {
    fn trim(&mut self) {
        self.shrink_to_fit();
    }

    fn weight(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

impl<V: Weight> Shards<V> {
    fn new(bytes_max: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                places: HashMap::new(),
                slots: Vec::new(),
                hand: 0,
                bytes: 0,
                hits: 0,
                misses: 0,
                evictions: 0,
            })
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), shard_bytes_max: bytes_max / SHARDS }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard<V>> {
        // Offsets of one file differ in their low bits by little and files by one: a multiplication spreads both.
        let mixed = (key.offset ^ u64::from(key.part).rotate_left(40) ^ key.file.0.rotate_left(48))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 60) as usize % SHARDS]
    }

    fn get_or_load(
        &self,
        key: Key,
        load: impl FnOnce() -> Result<V, StorageError>,
    ) -> Result<Arc<V>, StorageError> {
        let shard = self.shard(&key);
        {
            let mut shard = shard.lock();
            if let Some(value) = shard.get(&key) {
                shard.hits += 1;
                return Ok(value);
            }
            shard.misses += 1;
        }
        let mut value = load()?;
        value.trim();
        let bytes = value.weight() + ENTRY_OVERHEAD_BYTES;
        let value = Arc::new(value);
        let mut shard = shard.lock();
        // Another thread may have been faster.
        if let Some(value) = shard.get(&key) {
            return Ok(value);
        }
        if bytes <= self.shard_bytes_max {
            shard.make_room(self.shard_bytes_max - bytes);
            shard.insert(Slot { key, value: Arc::clone(&value), bytes, used: false });
        }
        Ok(value)
    }

    fn forget(&self, file: FileId) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut at = 0;
            while let Some(slot) = shard.slots.get(at) {
                if slot.key.file == file {
                    shard.remove(at);
                } else {
                    at += 1;
                }
            }
        }
    }

    fn add_to(&self, stats: &mut CacheStats) {
        for shard in &self.shards {
            let shard = shard.lock();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.evictions += shard.evictions;
            stats.entries += shard.slots.len() as u64;
            stats.bytes += shard.bytes as u64;
        }
    }
}

impl<V> Shard<V> {
    fn get(&mut self, key: &Key) -> Option<Arc<V>> {
        let slot = &mut self.slots[*self.places.get(key)?];
        slot.used = true;
        Some(Arc::clone(&slot.value))
    }

    fn insert(&mut self, slot: Slot<V>) {
        self.bytes += slot.bytes;
        self.places.insert(slot.key, self.slots.len());
        self.slots.push(slot);
    }

    /// Takes a slot out; the last one moves to its place.
    fn remove(&mut self, at: usize) {
        let slot = self.slots.swap_remove(at);
        self.bytes -= slot.bytes;
        self.places.remove(&slot.key);
        if let Some(moved) = self.slots.get(at) {
            self.places.insert(moved.key, at);
        }
    }

    /// Lets entries go until at most `bytes_max` are left. Each turn of the hand takes a flag or an entry, so it ends.
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && !self.slots.is_empty() {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            if slot.used {
                slot.used = false;
                self.hand += 1;
            } else {
                self.remove(self.hand);
                self.evictions += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cache: &BlockCache, file: FileId, offset: u64, len: usize) -> bool {
        let mut loaded = false;
        let bytes = cache
            .get_or_load(file, offset, || {
                loaded = true;
                Ok(vec![offset as u8; len])
            })
            .unwrap();
        assert_eq!(*bytes, vec![offset as u8; len]);
        loaded
    }

    #[test]
    fn what_was_loaded_is_not_loaded_again() {
        let cache = BlockCache::new(1 << 20);
        let (a, b) = (cache.file_id(), cache.file_id());
        assert!(load(&cache, a, 7, 100));
        assert!(!load(&cache, a, 7, 100));
        assert!(load(&cache, b, 7, 100), "another file");
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.entries, stats.evictions), (1, 2, 2, 0));
        cache.forget(a);
        assert_eq!(cache.stats().entries, 1);
        assert!(!load(&cache, b, 7, 100));
        assert!(load(&cache, a, 7, 100));
        cache.forget(a);
        cache.forget(b);
        assert_eq!(cache.stats().bytes, 0);
    }

    #[test]
    fn errors_are_not_kept() {
        let cache = BlockCache::new(1 << 20);
        let file = cache.file_id();
        assert!(cache.get_or_load(file, 0, || Err(StorageError::Cancelled)).is_err());
        assert!(load(&cache, file, 0, 1));
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = BlockCache::new(1 << 20);
        let file = cache.file_id();
        let mut kept = 0;
        for offset in 0..10_000u64 {
            load(&cache, file, offset * 4096, 4000);
            kept += u32::from(!load(&cache, file, 0, 4000));
            assert!(cache.stats().bytes <= 1 << 20);
        }
        assert!(kept > 9_990, "the one that is used all the time stays: {kept}");
        assert!(cache.stats().evictions > 9_000);
        assert!(load(&cache, file, u64::MAX, 2 << 20), "too large to keep");
        assert!(load(&cache, file, u64::MAX, 2 << 20));
    }

    #[test]
    fn times_are_told_apart_by_part() {
        let cache = BlockCache::new(1 << 20);
        let file = cache.file_id();
        for part in [0, 1] {
            let times = cache.times_or_load(file, 9, part, || Ok(vec![i64::from(part)])).unwrap();
            assert_eq!(*times, [i64::from(part)]);
        }
        let again = cache.times_or_load(file, 9, 1, || panic!("it is here")).unwrap();
        assert_eq!(*again, [1]);
    }

    #[test]
    fn threads_share_it() {
        let cache = BlockCache::new(64 << 10);
        let file = cache.file_id();
        std::thread::scope(|scope| {
            for seed in 0..4u64 {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..5_000u64 {
                        load(cache, file, (i * (seed + 3)) % 97, 500);
                    }
                });
            }
        });
        let stats = cache.stats();
        assert_eq!(stats.hits + stats.misses, 20_000);
        assert!(stats.bytes <= 64 << 10);
    }
}
