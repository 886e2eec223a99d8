//! Hash tables of numbers in 64 parts.
//!
//! A table that grows holds its old and its new memory at once, and whoever waits for the lock waits for all of it to be
//! moved: in parts, neither is noticed. The texts that the numbers stand for are elsewhere: five bytes per slot.

use hashbrown::HashTable;

const PARTS: usize = 64;

/// Numbers by 32-bit hashes.
#[derive(Debug)]
pub(super) struct NumberTable {
    parts: Vec<HashTable<u32>>,
}

impl Default for NumberTable {
    fn default() -> Self {
        Self { parts: vec![HashTable::new(); PARTS] }
    }
}

fn part(hash: u32) -> usize {
    // The highest bits: within a part, places are chosen by the lowest.
    (hash >> (u32::BITS - PARTS.ilog2())) as usize
}

fn spread(hash: u32) -> u64 {
    // The table looks at the highest and the lowest bits; a multiplication moves all of ours to both.
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl NumberTable {
    /// The number with this hash for which `same` is true.
    pub(super) fn find(&self, hash: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        self.parts[part(hash)].find(spread(hash), |number| same(*number)).copied()
    }

    /// Adds a number that is not there. `hash_of` tells the hashes of others.
    pub(super) fn insert(&mut self, hash: u32, number: u32, hash_of: impl Fn(u32) -> u32) {
        self.parts[part(hash)].insert_unique(spread(hash), number, |number| spread(hash_of(*number)));
    }

    /// Takes a number out. A part that is mostly empty then gives memory back.
    pub(super) fn remove(&mut self, hash: u32, number: u32, hash_of: impl Fn(u32) -> u32) {
        let part = &mut self.parts[part(hash)];
        if let Ok(found) = part.find_entry(spread(hash), |other| *other == number) {
            found.remove();
        }
        if part.capacity() > 64 && part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2, |number| spread(hash_of(*number)));
        }
    }
}
