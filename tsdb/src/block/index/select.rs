//! The index of a block as the planner sees it.

use std::borrow::Cow;

use model::storage::StorageError;
use roaring::RoaringBitmap;

use super::postings::PostingsRef;
use super::reader::{IndexReader, SeriesCursor};
use crate::index::{Postings, Searchable, Union};

/// A label pair of a block that was looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPair {
    name: usize,
    number: u32,
    postings: PostingsRef,
}

impl Searchable for IndexReader {
    type Error = StorageError;
    type Name = usize;
    type Pair = BlockPair;
    type Cursor = SeriesCursor;
    /// A page of series is read for a candidate, and half a group decoded; a value costs some 20 ns to step over.
    const SERIES_COST: u64 = 16;
    /// Long postings are bitmaps of many KiB to read, check and unpack.
    const POSTINGS_PER_CANDIDATE: u64 = 512;

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series());
        all
    }

    fn name(&self, name: &str) -> Option<usize> {
        self.table.name(name)
    }

    fn values(&self, name: usize) -> u64 {
        self.table.names[name].values.into()
    }

    fn having_len(&self, name: usize) -> u64 {
        self.table.names[name].having.count.into()
    }

    fn having(&self, name: usize) -> Result<Cow<'_, Postings>, StorageError> {
        self.postings_at(&self.table.names[name].having).map(Cow::Owned)
    }

    fn pair(&self, name: usize, value: &str) -> Result<Option<BlockPair>, StorageError> {
        Ok(self.find_pair(name, value)?.map(|(number, postings)| BlockPair { name, number, postings }))
    }

    fn name_of(&self, pair: &BlockPair) -> usize {
        pair.name
    }

    fn number(&self, pair: &BlockPair) -> u32 {
        pair.number
    }

    fn postings_len(&self, pair: &BlockPair) -> u64 {
        pair.postings.count.into()
    }

    fn postings(&self, pair: &BlockPair) -> Result<Cow<'_, Postings>, StorageError> {
        self.postings_at(&pair.postings).map(Cow::Owned)
    }

    fn add_values(
        &self,
        name: usize,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> Result<bool, StorageError>,
        union: &mut Union,
    ) -> Result<(), StorageError> {
        self.each_value(name, prefix, |_, value, found| {
            if accept(value)? {
                union.add(&self.postings_at(found)?);
            }
            Ok(())
        })
    }

    fn pair_of(
        &self,
        cursor: &mut SeriesCursor,
        series: u32,
        name: usize,
    ) -> Result<Option<u32>, StorageError> {
        let wanted = self.table.names[name].pairs();
        let pairs = cursor.pairs(self, series)?;
        Ok(pairs
            .get(pairs.partition_point(|pair| *pair < wanted.start))
            .copied()
            .filter(|pair| *pair < wanted.end))
    }

    fn value(&self, pair: u32) -> Result<Cow<'_, str>, StorageError> {
        self.value_of(pair).map(Cow::Owned)
    }
}
