//! What the catalogue keeps per series: the hash of its labels and which pairs they are.
//!
//! The pairs are those of a *template*, a set that many series share (what a target adds to all of its series), and
//! the series' own. Pages of 256 neighbouring ids hold, per series, four bytes of hash, two of place, and the template's number, which labels are its (a
//! bit each), and the numbers of the own pairs, as varints. With eight to ten labels that is some 15 bytes where a list of numbers in an allocation
//! of its own took 70.

use std::slice;

use hashbrown::HashMap;

use crate::coding::{Reader, put_uvarint};

const PAGE: usize = 256;
/// No series here.
const FREE: u16 = u16::MAX;
/// The series' pairs are in [`Entries::large`].
const LARGE: u16 = u16::MAX - 1;
/// Series whose pairs take more bytes stand apart, so that a page's places fit 16 bits even when half of it is garbage.
const CODED_MAX: usize = 64;

/// Series by id.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pages: Vec<Option<Box<Page>>>,
    large: HashMap<u32, Box<[u32]>>,
}

#[derive(Debug)]
struct Page {
    used: usize,
    starts: [u16; PAGE],
    hashes: [u32; PAGE],
    bytes: Vec<u8>,
    /// Bytes of series that are gone.
    garbage: usize,
}

/// One series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) hash: u32,
    /// Number of the template, if it has one.
    pub(super) template: Option<u32>,
    /// Bit *i* tells that label *i* is the template's.
    pub(super) mask: u64,
    own: Own<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Own<'a> {
    Coded(Reader<'a>),
    Large(&'a [u32]),
}

impl<'a> Entry<'a> {
    /// Its own pairs, in order of names.
    pub(super) fn own(&self) -> OwnPairs<'a> {
        match self.own {
            Own::Coded(reader) => OwnPairs::Coded(reader),
            Own::Large(pairs) => OwnPairs::Large(pairs.iter()),
        }
    }
}

/// See [`Entry::own`].
#[derive(Clone, Debug)]
pub(super) enum OwnPairs<'a> {
    Coded(Reader<'a>),
    Large(slice::Iter<'a, u32>),
}

impl Iterator for OwnPairs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Coded(reader) if reader.is_empty() => None,
            Self::Coded(reader) => Some(reader.uvarint32().expect("written by insert")),
            Self::Large(pairs) => pairs.next().copied(),
        }
    }
}

impl Page {
    fn new() -> Self {
        Self { used: 0, starts: [FREE; PAGE], hashes: [0; PAGE], bytes: Vec::new(), garbage: 0 }
    }

    /// Length byte and what follows it.
    fn coded(&self, start: u16) -> &[u8] {
        let start = usize::from(start);
        let len = usize::from(self.bytes[start]);
        &self.bytes[start + 1..start + 1 + len]
    }

    fn release(&mut self, slot: usize) {
        let start = self.starts[slot];
        self.starts[slot] = FREE;
        if start < LARGE {
            self.garbage += 1 + self.coded(start).len();
        }
        if self.garbage * 2 > self.bytes.len() {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for slot in 0..PAGE {
            let start = self.starts[slot];
            if start < LARGE {
                let place = u16::try_from(bytes.len()).expect("less than before");
                let coded = self.coded(start);
                bytes.push(coded.len() as u8);
                bytes.extend_from_slice(coded);
                self.starts[slot] = place;
            }
        }
        self.bytes = bytes;
        self.garbage = 0;
    }
}

impl Entries {
    pub(super) fn get(&self, id: u32) -> Option<Entry<'_>> {
        let slot = id as usize % PAGE;
        let page = self.pages.get(id as usize / PAGE)?.as_ref()?;
        let (start, hash) = (page.starts[slot], page.hashes[slot]);
        match start {
            FREE => None,
            LARGE => Some(Entry { hash, template: None, mask: 0, own: Own::Large(self.large.get(&id)?) }),
            start => {
                let mut reader = Reader::new(page.coded(start));
                let mut next = || reader.uvarint().expect("written by insert");
                let (template, mask) = match next() {
                    0 => (None, 0),
                    template => (Some((template - 1) as u32), next()),
                };
                Some(Entry { hash, template, mask, own: Own::Coded(reader) })
            }
        }
    }

    /// The hash of a series' labels.
    pub(super) fn hash(&self, id: u32) -> Option<u32> {
        let page = self.pages.get(id as usize / PAGE)?.as_ref()?;
        let slot = id as usize % PAGE;
        (page.starts[slot] != FREE).then_some(page.hashes[slot])
    }

    /// Adds a series; one that has the id already is replaced. With the template comes which labels are its, see
    /// [`Entry::mask`]. `own` in order of names.
    ///
    /// # Panics
    /// When there is a template and more pairs than [`Entries::fits`] allows.
    pub(super) fn insert(&mut self, id: u32, hash: u32, template: Option<(u32, u64)>, own: &[u32]) {
        self.remove(id);
        let number = id as usize / PAGE;
        if number >= self.pages.len() {
            self.pages.resize_with(number + 1, || None);
        }
        let page = self.pages[number].get_or_insert_with(|| Box::new(Page::new()));
        let slot = id as usize % PAGE;
        page.used += 1;
        page.hashes[slot] = hash;
        match code(template, own) {
            Some(coded) => {
                page.starts[slot] = page.bytes.len() as u16;
                page.bytes.push(coded.len() as u8);
                page.bytes.extend_from_slice(&coded);
            }
            None => {
                page.starts[slot] = LARGE;
                self.large.insert(id, own.into());
            }
        }
        // The last id of a page: no more are to come.
        if slot == PAGE - 1 {
            page.bytes.shrink_to_fit();
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(place) = self.pages.get_mut(id as usize / PAGE) else { return };
        let Some(page) = place else { return };
        let slot = id as usize % PAGE;
        if page.starts[slot] == FREE {
            return;
        }
        if page.starts[slot] == LARGE {
            self.large.remove(&id);
        }
        page.release(slot);
        page.used -= 1;
        if page.used == 0 {
            *place = None;
        }
    }

    /// Whether a series with so many labels, and so many of its own, can have a template.
    pub(super) fn fits(labels: usize, own: usize) -> bool {
        // Five bytes at most for each number, ten for the mask.
        labels <= 64 && 5 * (own + 1) + 10 <= CODED_MAX
    }
}

fn code(template: Option<(u32, u64)>, own: &[u32]) -> Option<Vec<u8>> {
    let mut coded = Vec::with_capacity(CODED_MAX);
    match template {
        Some((template, mask)) => {
            put_uvarint(&mut coded, u64::from(template) + 1);
            put_uvarint(&mut coded, mask);
        }
        None => put_uvarint(&mut coded, 0),
    }
    own.iter().for_each(|pair| put_uvarint(&mut coded, u64::from(*pair)));
    let small = coded.len() <= CODED_MAX;
    assert!(small || template.is_none(), "only what fits has a template");
    small.then_some(coded)
}
