//! Divides a request into rows of layouts and single samples.
//!
//! A *run* is a stretch of series with one float each at the same time: what a scrape was, as far as the request holds it.
//! Members of one layout in a run become a part of a row, wherever the request cut it. Series that have no layout yet are
//! appended one by one, and *settle*: those that come in the same order as last time are to join a layout.
//!
//! Samples of one series are appended in the order of the request: rows are, and so are samples of members that make no
//! row, with respect to them; other single samples come after, in order. A request in which the same series has simple
//! samples and others goes the slow road as a whole.

use std::ops::Range;

use model::Timestamp;
use model::storage::{LayoutRef, SeriesRef, SeriesSample};

use super::index::{CUT, Index, NONE, Place};
use super::scan::Item;

/// Fewer series than this on average make no row: a row has a price too.
pub(super) const PART_MIN: usize = 8;
/// A gap of so many slots divides a row in two.
const GAP_MAX: u32 = 16;

/// A part of a row.
#[derive(Debug)]
pub(super) struct Part {
    /// The receiver's number of the layout.
    pub(super) index: u32,
    pub(super) layout: LayoutRef,
    pub(super) t: Timestamp,
    /// The first slot.
    pub(super) first: u32,
    /// Whether these are all slots of the layout.
    pub(super) whole: bool,
    /// Where the values are in [`Plan::values`]; and in [`Plan::items`], the item of each (`NONE` where absent).
    pub(super) values: Range<usize>,
}

/// What to append next.
#[derive(Debug)]
pub(super) enum Step {
    Part(Part),
    /// Samples of members, in [`Plan::bound`].
    Bound(Range<usize>),
}

/// Series that came in the same order again.
#[derive(Debug)]
pub(super) struct Stretch {
    /// In the request.
    pub(super) items: Range<usize>,
    /// The layout whose last slot came before them.
    pub(super) onto: Option<(u32, LayoutRef)>,
}

/// Where a stretch began, and what came before it.
type Begun = (usize, Option<(u32, LayoutRef)>);

/// What to do with a request; its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) values: Vec<f64>,
    pub(super) items: Vec<u32>,
    /// Samples of members that make no row, and their items.
    pub(super) bound: Vec<SeriesSample>,
    pub(super) bound_items: Vec<u32>,
    /// Samples of loose series, and their items.
    pub(super) loose: Vec<SeriesSample>,
    pub(super) loose_items: Vec<u32>,
    /// All other series, and what they are if that is known.
    pub(super) slow: Vec<(u32, Option<SeriesRef>)>,
    pub(super) stretches: Vec<Stretch>,
    /// Items of loose series and members with exemplars or metadata.
    pub(super) extras: Vec<(u32, SeriesRef)>,
    /// Layouts whose members come in other orders.
    pub(super) disordered: Vec<(u32, LayoutRef)>,
    /// The row being collected: slots and items.
    open: Vec<(u32, u32)>,
}

impl Plan {
    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.values.clear();
        self.items.clear();
        self.bound.clear();
        self.bound_items.clear();
        self.loose.clear();
        self.loose_items.clear();
        self.slow.clear();
        self.stretches.clear();
        self.extras.clear();
        self.disordered.clear();
        self.open.clear();
    }

    /// Bytes held.
    pub(super) fn capacity(&self) -> usize {
        12 * self.values.capacity()
            + 28 * (self.loose.capacity() + self.bound.capacity())
            + 24 * self.slow.capacity()
    }

    /// Plans a request whose series were recognised as `found`.
    pub(super) fn make(&mut self, index: &Index, items: &[Item], found: &[u32]) {
        self.clear();
        if is_mixed(items, found) {
            let known = |found: u32| (found != NONE).then(|| index.entry(found).series());
            self.slow.extend((0u32..).zip(found).map(|(item, found)| (item, known(*found))));
            return;
        }
        let mut at = 0;
        while at < items.len() {
            let item = &items[at];
            if !item.simple || found[at] == NONE {
                let known = (found[at] != NONE).then(|| index.entry(found[at]).series());
                self.slow.push((at as u32, known));
                at += 1;
                continue;
            }
            let same = |(item, found): (&Item, &u32)| item.simple && *found != NONE && item.t == items[at].t;
            let run = items[at..].iter().zip(&found[at..]).take_while(|pair| same(*pair)).count();
            self.run(index, items, found, at..at + run);
            at += run;
        }
    }

    fn run(&mut self, index: &Index, items: &[Item], found: &[u32], run: Range<usize>) {
        let touches_edge = run.start == 0 || run.end == items.len();
        let mut layout = NONE;
        // The stretch that goes on: where it began, and behind which layout's last slot.
        let mut stretch: Option<Begun> = None;
        let mut expected = false;
        let mut before: Option<Place> = None;
        for at in run.clone() {
            let (item, entry) = (&items[at], index.entry(found[at]));
            let place = entry.place();
            if item.extras {
                self.extras.push((at as u32, entry.series()));
            }
            match place {
                Place::Member { layout: mine, slot } => {
                    self.end_stretch(&mut stretch, at);
                    if mine != layout {
                        self.close_row(index, items, found, layout, touches_edge);
                        layout = mine;
                    }
                    self.open.push((slot, at as u32));
                }
                Place::Loose { .. } => {
                    self.loose.push(SeriesSample { series: entry.series(), t: item.t, v: item.v });
                    self.loose_items.push(at as u32);
                    let goes_on = matches!(before, Some(Place::Loose { .. }));
                    // The first of a stretch has nobody to come after.
                    let joins = !goes_on || entry.settle(expected);
                    if goes_on && !joins {
                        self.end_stretch(&mut stretch, at);
                    }
                    if stretch.is_none() {
                        let onto = match before {
                            Some(Place::Member { layout, slot }) => index
                                .layout(layout)
                                .filter(|known| known.slots.len() == slot as usize + 1)
                                .map(|known| (layout, known.layout)),
                            Some(Place::Loose { .. }) | None => None,
                        };
                        stretch = Some((at, onto));
                    }
                    let next = match found.get(at + 1) {
                        Some(next) if at + 1 < run.end => *next,
                        Some(_) => NONE,
                        None => CUT,
                    };
                    expected = entry.follow(next);
                }
            }
            before = Some(place);
        }
        self.end_stretch(&mut stretch, run.end);
        self.close_row(index, items, found, layout, touches_edge);
    }

    fn end_stretch(&mut self, stretch: &mut Option<Begun>, end: usize) {
        if let Some((start, onto)) = stretch.take()
            && end - start >= PART_MIN
        {
            self.stretches.push(Stretch { items: start..end, onto });
        }
    }

    /// Makes parts of a row of the members that were collected.
    fn close_row(&mut self, index: &Index, items: &[Item], found: &[u32], layout: u32, touches_edge: bool) {
        if self.open.is_empty() {
            return;
        }
        let mut open = std::mem::take(&mut self.open);
        let ascending = |open: &[(u32, u32)]| open.is_sorted_by(|a, b| a.0 < b.0);
        let mut repeated = false;
        if !ascending(&open) {
            open.sort_unstable();
            repeated = !ascending(&open);
        }
        let divides = |pair: &[(u32, u32)]| matches!(pair, [a, b] if b.0 - a.0 > GAP_MAX);
        let parts = 1 + open.windows(2).filter(|pair| divides(pair)).count();
        let known = index.layout(layout);
        let long_enough = open.len() / parts >= PART_MIN || parts == 1 && touches_edge && !repeated;
        match known {
            Some(known) if long_enough && !repeated => {
                known.wrote(open.len());
                for part in open.chunk_by(|a, b| b.0 - a.0 <= GAP_MAX) {
                    self.push_part(layout, known.layout, known.slots.len(), items, part);
                }
            }
            _ => {
                if let Some(known) = known.filter(|known| known.missed(open.len()))
                    && !self.disordered.iter().any(|(index, _)| *index == layout)
                {
                    self.disordered.push((layout, known.layout));
                }
                // As they came.
                open.sort_unstable_by_key(|member| member.1);
                let start = self.bound.len();
                for (_, item) in &open {
                    let Item { t, v, .. } = items[*item as usize];
                    let series = index.entry(found[*item as usize]).series();
                    self.bound.push(SeriesSample { series, t, v });
                    self.bound_items.push(*item);
                }
                self.steps.push(Step::Bound(start..self.bound.len()));
            }
        }
        open.clear();
        self.open = open;
    }

    fn push_part(
        &mut self,
        index: u32,
        layout: LayoutRef,
        slots: usize,
        items: &[Item],
        part: &[(u32, u32)],
    ) {
        let [(first, item), ..] = *part else { return };
        let start = self.values.len();
        let mut slot = first;
        for (mine, item) in part {
            for _ in slot..*mine {
                self.values.push(f64::from_bits(model::storage::ABSENT_BITS));
                self.items.push(NONE);
            }
            self.values.push(items[*item as usize].v);
            self.items.push(*item);
            slot = *mine + 1;
        }
        let values = start..self.values.len();
        let whole = first == 0 && values.len() == slots;
        let t = items[item as usize].t;
        self.steps.push(Step::Part(Part { index, layout, t, first, whole, values }));
    }
}

/// Whether a series has both a simple sample and others.
fn is_mixed(items: &[Item], found: &[u32]) -> bool {
    let others = items.iter().zip(found).filter(|(item, found)| !item.simple && **found != NONE);
    let mut others: Vec<u32> = others.map(|(_, found)| *found).collect();
    if others.is_empty() {
        return false;
    }
    others.sort_unstable();
    let mut simple = items.iter().zip(found).filter(|(item, found)| item.simple && **found != NONE);
    simple.any(|(_, found)| others.binary_search(found).is_ok())
}
