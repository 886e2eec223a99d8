//! Where a batch's samples are cut into chunks and frames.
//!
//! Time is halved, from cells of six weeks that begin at multiples of themselves, until a cell holds few enough samples. So
//! series that are sampled alike are cut alike, in whatever batch they are, and their chunks have equal times. Series that are
//! sampled more often than their neighbours have several chunks in one frame, so that they do not force all others into
//! splinters.

use model::sample::Timestamp;

use crate::chunk::HistogramValue;
use crate::columns::Columns;

/// Two hours, halved or doubled: 7.5 minutes hold 450 samples a second apart, 2 hours 480 at 15 seconds.
const CELL_MS: i128 = (2 * 60 * 60 * 1000) << 9;
/// Buckets of the histograms of one chunk, beyond which it is cut: bounds what must be unpacked for one sample.
const CHUNK_BUCKETS_MAX: usize = 1 << 17;

/// How finely to cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Float samples of a chunk; a sixteenth more is let through, for the one that jitter moves over the border.
    pub(super) floats: usize,
    /// Histograms of a chunk.
    pub(super) histograms: usize,
    /// Chunks of a frame: more only if there are more series.
    pub(super) frame_chunks: usize,
}

/// A chunk to be: consecutive samples of one kind of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The series' place in the batch.
    pub(super) series: usize,
    pub(super) histogram: bool,
    /// Its first sample.
    pub(super) from: usize,
    /// Behind its last one.
    pub(super) to: usize,
}

impl Piece {
    /// The times of this kind of its series.
    fn column<'a>(&self, batch: &'a [Columns]) -> &'a [Timestamp] {
        let columns = &batch[self.series];
        if self.histogram { &columns.histogram_times } else { &columns.times }
    }

    /// Its times.
    pub(super) fn times<'a>(&self, batch: &'a [Columns]) -> &'a [Timestamp] {
        &self.column(batch)[self.from..self.to]
    }

    /// What is before `end`, and what is not.
    fn split(&self, batch: &[Columns], end: i128) -> (Self, Self) {
        let at = self.from + self.times(batch).partition_point(|t| i128::from(*t) < end);
        (Self { to: at, ..*self }, Self { from: at, ..*self })
    }

    fn len(&self) -> usize {
        self.to - self.from
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

/// A span of time.
#[derive(Clone, Copy)]
struct Cell {
    from: i128,
    to: i128,
}

impl Cell {
    fn halves(self) -> Option<(Self, Self)> {
        let middle = self.from + (self.to - self.from) / 2;
        (middle > self.from).then_some((Self { to: middle, ..self }, Self { from: middle, ..self }))
    }
}

/// Hands the pieces of each frame to `frame`, frames in order of time, pieces in order of series, floats before
/// histograms, then time.
pub(super) fn cut(batch: &[Columns], limits: &Limits, frame: &mut impl FnMut(&[Piece])) {
    let mut rest: Vec<Piece> = Vec::new();
    for (series, columns) in batch.iter().enumerate() {
        rest.push(Piece { series, histogram: false, from: 0, to: columns.times.len() });
        rest.push(Piece { series, histogram: true, from: 0, to: columns.histogram_times.len() });
    }
    let mut pieces = Vec::new();
    loop {
        rest.retain(|piece| !piece.is_empty());
        let first = rest.iter().filter_map(|piece| piece.times(batch).first()).min();
        let Some(first) = first.copied().map(i128::from) else { return };
        let from = first.div_euclid(CELL_MS) * CELL_MS;
        let cell = Cell { from, to: from + CELL_MS };
        let mut inside = Vec::with_capacity(rest.len());
        for piece in &mut rest {
            let (before, after) = piece.split(batch, cell.to);
            inside.push(before);
            *piece = after;
        }
        frames(batch, limits, inside, cell, &mut pieces, frame);
    }
}

fn frames(
    batch: &[Columns],
    limits: &Limits,
    mut inside: Vec<Piece>,
    cell: Cell,
    pieces: &mut Vec<Piece>,
    frame: &mut impl FnMut(&[Piece]),
) {
    inside.retain(|piece| !piece.is_empty());
    if inside.is_empty() {
        return;
    }
    let chunks: usize = inside.iter().map(|piece| chunks_about(piece, limits)).sum();
    if chunks > limits.frame_chunks.max(inside.len() * 3 / 2)
        && let Some((left, right)) = cell.halves()
    {
        let (before, after) = inside.iter().map(|piece| piece.split(batch, left.to)).unzip();
        drop(inside);
        frames(batch, limits, before, left, pieces, frame);
        frames(batch, limits, after, right, pieces, frame);
        return;
    }
    pieces.clear();
    inside.into_iter().for_each(|piece| chunks_of(batch, limits, piece, cell, pieces));
    frame(pieces);
}

/// How many samples a chunk may have.
fn samples_max(piece: &Piece, limits: &Limits) -> usize {
    let target = if piece.histogram { limits.histograms } else { limits.floats };
    (target + target / 16).max(1)
}

fn chunks_about(piece: &Piece, limits: &Limits) -> usize {
    piece.len().div_ceil(samples_max(piece, limits))
}

fn chunks_of(batch: &[Columns], limits: &Limits, piece: Piece, cell: Cell, pieces: &mut Vec<Piece>) {
    if piece.is_empty() {
        return;
    }
    if (piece.len() > samples_max(&piece, limits) || too_heavy(batch, &piece))
        && let Some((left, right)) = cell.halves()
    {
        let (before, after) = piece.split(batch, left.to);
        chunks_of(batch, limits, before, left, pieces);
        chunks_of(batch, limits, after, right, pieces);
        return;
    }
    pieces.push(piece);
}

fn too_heavy(batch: &[Columns], piece: &Piece) -> bool {
    if !piece.histogram || piece.len() == 1 {
        return false;
    }
    let buckets = |histogram: &HistogramValue| match histogram {
        HistogramValue::Integer(h) => {
            h.positive_buckets.len()
                + h.negative_buckets.len()
                + h.positive_spans.len()
                + h.negative_spans.len()
                + h.custom_values.len()
        }
        HistogramValue::Float(h) => {
            h.positive_buckets.len()
                + h.negative_buckets.len()
                + h.positive_spans.len()
                + h.negative_spans.len()
                + h.custom_values.len()
        }
    };
    let histograms = &batch[piece.series].histograms[piece.from..piece.to];
    histograms.iter().map(buckets).sum::<usize>() > CHUNK_BUCKETS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { floats: 480, histograms: 120, frame_chunks: 96 };

    fn series(from: i64, to: i64, step: usize) -> Columns {
        let mut columns = Columns::default();
        (from..to).step_by(step).for_each(|t| columns.push_float(t, 1.0, 0));
        columns
    }

    fn cuts(batch: &[Columns], limits: &Limits) -> Vec<Vec<Piece>> {
        let mut all = Vec::new();
        cut(batch, limits, &mut |pieces: &[Piece]| all.push(pieces.to_vec()));
        all
    }

    #[test]
    fn usual_intervals_fill_their_chunks() {
        let two_hours = 7_200_000;
        let from = 1_700_000_000_000 / two_hours * two_hours;
        for (step, frames, largest) in [(15_000, 1, 480), (1000, 16, 450), (60_000, 1, 120), (10_000, 2, 360)]
        {
            let batch = vec![series(from, from + two_hours, step); 64];
            let cuts = cuts(&batch, &LIMITS);
            assert_eq!(cuts.len(), frames, "{step}");
            assert!(cuts.iter().flatten().all(|piece| piece.len() == largest), "{step}");
        }
    }

    /// One series of many samples among 63 of few: the few keep their chunks.
    #[test]
    fn busy_series_do_not_splinter_the_others() {
        let mut batch = vec![series(0, 7_200_000, 60_000); 64];
        batch[30] = series(0, 7_200_000, 1000);
        let cuts = cuts(&batch, &LIMITS);
        assert_eq!(cuts.len(), 1);
        assert_eq!(cuts[0].iter().filter(|piece| piece.series == 30).count(), 16);
        assert_eq!(cuts[0].len(), 79);
    }

    /// The same times are cut at the same places beside any neighbours.
    #[test]
    fn cuts_do_not_depend_on_the_neighbours() {
        let busy = series(0, 7_200_000, 1000);
        let pieces = |batch: &[Columns]| -> Vec<(usize, usize)> {
            let of_first = |piece: &&Piece| piece.series == 0;
            cuts(batch, &LIMITS)
                .iter()
                .flatten()
                .filter(of_first)
                .map(|piece| (piece.from, piece.to))
                .collect()
        };
        let alone = pieces(std::slice::from_ref(&busy));
        assert_eq!(alone, pieces(&vec![busy.clone(); 64]));
        assert_eq!(alone, pieces(&[busy, series(5, 90_000_000, 60_000)]));
    }

    #[test]
    fn the_ends_of_time_are_cut_too() {
        let mut columns = Columns::default();
        for t in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            columns.push_float(t, 0.0, 0);
        }
        let limits = Limits { floats: 1, histograms: 1, frame_chunks: 1 };
        assert_eq!(cuts(&[columns], &limits).len(), 7);
    }

    proptest! {
        #[test]
        fn every_sample_is_in_one_piece(
            batch in prop::collection::vec(prop::collection::btree_set(-5_000i64..5_000, 0..200), 1..6),
            floats in 1usize..40,
            frame_chunks in 1usize..10,
        ) {
            let batch: Vec<Columns> = batch.iter().map(|times| {
                let mut columns = Columns::default();
                times.iter().for_each(|t| columns.push_float(*t, 0.0, 0));
                columns
            }).collect();
            let limits = Limits { floats, histograms: 1, frame_chunks };
            let mut next = vec![0; batch.len()];
            let mut newest = i64::MIN;
            for pieces in cuts(&batch, &limits) {
                let mut order = pieces.iter().map(|piece| (piece.series, piece.from));
                prop_assert!(order.clone().zip(order.by_ref().skip(1)).all(|(a, b)| a < b));
                let first = pieces.iter().map(|piece| piece.times(&batch)[0]).min().unwrap();
                prop_assert!(first > newest, "frames do not overlap");
                for piece in &pieces {
                    prop_assert_eq!(piece.from, next[piece.series]);
                    next[piece.series] = piece.to;
                    prop_assert!(!piece.is_empty() && piece.len() <= floats + floats / 16);
                    newest = newest.max(*piece.times(&batch).last().unwrap());
                }
            }
            prop_assert_eq!(next, batch.iter().map(|columns| columns.times.len()).collect::<Vec<_>>());
        }
    }
}
