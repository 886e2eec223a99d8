//! Reading all of an index: every checksum, every item, and whether postings, values and series tell the same.

use std::sync::Arc;

use model::storage::StorageError;

use super::page::Grouped;
use super::postings::PostingsRef;
use super::reader::{IndexReader, ValueText, chunk_list};
use super::{CHUNKS_GROUP, SERIES_GROUP, Section, VALUES_GROUP, series};
use crate::block::Damage;
use crate::coding::{DecodeError, Reader};
use crate::index::Postings;

/// What the postings of a pair hold, less what series say: zero when they agree. Sums of mixed numbers, so that a series
/// too many and another too few do not make up for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Balance(u64);

impl Balance {
    fn add(&mut self, series: u32) {
        self.0 = self.0.wrapping_add(mix(series));
    }

    fn take(&mut self, series: u32) {
        self.0 = self.0.wrapping_sub(mix(series));
    }
}

/// The finaliser of SplitMix64.
fn mix(series: u32) -> u64 {
    let mut x = u64::from(series).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

struct Verifier<'a> {
    reader: &'a IndexReader,
    damage: &'a mut Vec<Damage>,
    pairs: Vec<Balance>,
    names: Vec<Balance>,
    /// The page of postings that was read last.
    page: Option<(usize, Arc<Vec<u8>>)>,
}

/// Tells `damage` all that is wrong with the file.
pub(super) fn verify(reader: &IndexReader, damage: &mut Vec<Damage>) {
    let before = damage.len();
    let mut verifier = Verifier {
        pairs: vec![Balance::default(); reader.pairs() as usize],
        names: vec![Balance::default(); reader.table.names.len()],
        page: None,
        reader,
        damage,
    };
    if let Err(error) = reader.check_frame() {
        verifier.tell(error);
    }
    verifier.chunks();
    verifier.postings();
    verifier.values();
    verifier.having();
    verifier.series();
    // Where a page is missing, what others say of its content cannot agree.
    if verifier.damage.len() == before {
        verifier.agreement();
    }
}

impl Verifier<'_> {
    fn tell(&mut self, error: StorageError) {
        let file = self.reader.path().to_owned();
        self.damage.push(match error {
            StorageError::Corrupted { offset, what, .. } => Damage { file, offset, what },
            other => Damage { file, offset: 0, what: other.to_string() },
        });
    }

    /// Calls `item` with each item of a section: its number, its bytes and what follows, whether it begins a group.
    /// A page's first trouble is told, and the page left.
    fn each_item(
        &mut self,
        section: Section,
        group: usize,
        mut item: impl FnMut(&mut Self, u32, &mut Reader<'_>, bool) -> Result<(), Trouble>,
    ) {
        let directory = self.reader.table.directory(section);
        for number in 0..directory.pages() {
            let bytes = directory.bytes_of(number).unwrap_or_default();
            let items = directory.items_of(number).unwrap_or_default();
            let offset = bytes.start;
            let page = match self.reader.page_uncached(section, bytes) {
                Ok(page) => page,
                Err(error) => {
                    self.tell(error);
                    continue;
                }
            };
            let mut at = items.start;
            let mut all = || {
                let page = Grouped::parse(&page, group)?;
                if page.count() as u64 != items.end - items.start {
                    return Err(DecodeError::Inconsistent("number of items in a page").into());
                }
                for number in 0..page.groups() {
                    let mut reader = Reader::new(page.group(number)?);
                    for place in 0..group.min(page.count() - number * group) {
                        let number = u32::try_from(at).map_err(|_| DecodeError::NumberRange)?;
                        item(self, number, &mut reader, place == 0)?;
                        at += 1;
                    }
                    if !reader.is_empty() {
                        return Err(DecodeError::Inconsistent("end of a group").into());
                    }
                }
                Ok::<_, Trouble>(())
            };
            match all() {
                Ok(()) => {}
                Err(Trouble::Here(error)) => {
                    let what = format!("{} {at}: {error}", section.name());
                    self.damage.push(Damage { file: self.reader.path().to_owned(), offset, what });
                }
                Err(Trouble::There(error)) => self.tell(error),
                Err(Trouble::Known) => {}
            }
        }
    }

    fn chunks(&mut self) {
        let mut list = Vec::new();
        self.each_item(Section::Chunks, CHUNKS_GROUP, |_, _, reader, _| Ok(chunk_list(reader, &mut list)?));
    }

    /// Checksums only: what they hold is looked at with the values.
    fn postings(&mut self) {
        let directory = self.reader.table.directory(Section::Postings);
        for number in 0..directory.pages() {
            let bytes = directory.bytes_of(number).unwrap_or_default();
            let items = directory.items_of(number).unwrap_or_default();
            let offset = bytes.start;
            match self.reader.page_uncached(Section::Postings, bytes) {
                Ok(page) if page.len() as u64 == items.end - items.start => {}
                Ok(_) => {
                    let what = "length of a page of postings".to_owned();
                    self.damage.push(Damage { file: self.reader.path().to_owned(), offset, what });
                }
                Err(error) => self.tell(error),
            }
        }
    }

    fn postings_at(&mut self, found: &PostingsRef) -> Result<Postings, Trouble> {
        let (reader, known) = (self.reader, &mut self.page);
        let mut unreadable = false;
        let postings = reader.postings_from(found, |number| {
            if let Some((_, page)) = known.as_ref().filter(|(page, _)| *page == number) {
                return Ok(Arc::clone(page));
            }
            let bytes = reader.table.directory(Section::Postings).bytes_of(number).unwrap_or_default();
            let page = reader.page_uncached(Section::Postings, bytes).inspect_err(|_| unreadable = true)?;
            let page = Arc::new(page);
            *known = Some((number, Arc::clone(&page)));
            Ok(page)
        });
        postings.map_err(|error| if unreadable { Trouble::Known } else { Trouble::There(error) })
    }

    fn values(&mut self) {
        let mut text = ValueText::default();
        let mut last: Vec<u8> = Vec::new();
        let mut page_of_last = usize::MAX;
        self.each_item(Section::Values, VALUES_GROUP, |this, pair, reader, first| {
            const ORDER: DecodeError = DecodeError::Inconsistent("order of values");
            let found = text.next(reader, first)?;
            let value = text.text()?;
            let table = &this.reader.table;
            let name = table.name_of(pair).and_then(|name| table.names.get(name));
            let name = name.ok_or(DecodeError::Inconsistent("number of a label pair"))?;
            let begins = name.first == pair;
            if value.is_empty() || (!begins && value.as_bytes() <= last.as_slice()) {
                return Err(ORDER.into());
            }
            let page = table.directory(Section::Values).page_of(pair.into()).unwrap_or_default();
            if page != page_of_last {
                page_of_last = page;
                let separator = table.separators.get(page);
                if separator > value.as_bytes() || (!begins && separator <= last.as_slice()) {
                    return Err(DecodeError::Inconsistent("first value of a page").into());
                }
            }
            last.clear();
            last.extend_from_slice(value.as_bytes());
            let postings = this.postings_at(&found)?;
            let balance = &mut this.pairs[pair as usize];
            postings.for_each(|series| balance.add(series));
            Ok(())
        });
    }

    fn having(&mut self) {
        for place in 0..self.names.len() {
            let found = self.reader.table.names[place].having;
            match self.postings_at(&found) {
                Ok(postings) => postings.for_each(|series| self.names[place].add(series)),
                Err(Trouble::There(error)) => self.tell(error),
                Err(Trouble::Here(_) | Trouble::Known) => {}
            }
        }
    }

    fn series(&mut self) {
        let mut pairs = Vec::new();
        let mut last: Option<Vec<u32>> = None;
        self.each_item(Section::Series, SERIES_GROUP, |this, number, reader, first| {
            const LABELS: DecodeError = DecodeError::Inconsistent("labels of a series");
            series::decode(reader, first, &mut pairs)?;
            // Pairs are numbered in order of name and value: lists of them are in the order of label sets.
            if last.as_ref().is_some_and(|last| *last >= pairs) {
                return Err(DecodeError::Inconsistent("order of series").into());
            }
            last = Some(pairs.clone());
            let mut name_before = None;
            for pair in &pairs {
                let name = this.reader.table.name_of(*pair).ok_or(LABELS)?;
                if name_before.replace(name).is_some_and(|before| before >= name) {
                    return Err(LABELS.into());
                }
                this.names[name].take(number);
                this.pairs[*pair as usize].take(number);
            }
            Ok(())
        });
    }

    fn agreement(&mut self) {
        let table = &self.reader.table;
        let values = table.directory(Section::Values);
        for (pair, _) in (0u32..).zip(&self.pairs).filter(|(_, balance)| **balance != Balance::default()) {
            let page = values.page_of(pair.into()).and_then(|page| values.bytes_of(page));
            let name = table.name_of(pair).map_or("", |name| &*table.names[name].name);
            let what = format!("postings of a value of label {name:?} are not those of its series");
            let offset = page.unwrap_or_default().start;
            self.damage.push(Damage { file: self.reader.path().to_owned(), offset, what });
        }
        for (name, _) in
            table.names.iter().zip(&self.names).filter(|(_, balance)| **balance != Balance::default())
        {
            let what = format!("postings of label {:?} are not those of its series", name.name);
            let offset = table.directory(Section::Series).end();
            self.damage.push(Damage { file: self.reader.path().to_owned(), offset, what });
        }
    }
}

/// Why a page is left.
enum Trouble {
    /// Something in it is wrong.
    Here(DecodeError),
    /// Something it refers to is.
    There(StorageError),
    /// The same, and it was told before.
    Known,
}

impl From<DecodeError> for Trouble {
    fn from(error: DecodeError) -> Self {
        Self::Here(error)
    }
}
