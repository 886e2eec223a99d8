//! Integer histograms with fewer buckets: empty ones left out, neighbours joined at a coarser schema.
//!
//! What Prometheus' `Histogram.Compact` and `Histogram.ReduceResolution` come to. Spans that do not fit their buckets are left as
//! they are: [`Histogram::validate`] names the fault.

use super::bounds::coarser_index;
use super::{FloatHistogram, Histogram, Span};

/// A bucket's index and count.
type Cell = (i64, i64);

/// The buckets of one side with absolute counts; `None` when spans and differences do not fit each other.
fn unpack(spans: &[Span], differences: &[i64]) -> Option<Vec<Cell>> {
    let need: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if need != differences.len() as u64 || spans.iter().skip(1).any(|span| span.offset < 0) {
        return None;
    }
    let mut next = 0i64;
    let mut count = 0i64;
    let mut differences = differences.iter();
    let mut cells = Vec::with_capacity(differences.len());
    for span in spans {
        next += i64::from(span.offset);
        for difference in differences.by_ref().take(span.length as usize) {
            count = count.wrapping_add(*difference);
            cells.push((next, count));
            next += 1;
        }
    }
    // Beyond these no index can be written down again.
    let fits = |index: i64| i32::try_from(index).is_ok();
    cells.iter().all(|(index, _)| fits(*index)).then_some(cells)
}

/// Spans and differences of sorted `cells`; gaps of at most `gap_max` buckets are filled with empty ones.
fn pack(cells: &[Cell], gap_max: i64) -> (Vec<Span>, Vec<i64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut differences = Vec::with_capacity(cells.len());
    let (mut next, mut previous) = (0i64, 0i64);
    let mut push = |count: i64| {
        differences.push(count.wrapping_sub(previous));
        previous = count;
    };
    for (index, count) in cells {
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= gap_max => {
                for _ in 0..gap {
                    push(0);
                }
                span.length = span.length.saturating_add(u32::try_from(gap + 1).unwrap_or(u32::MAX));
            }
            // Two indexes of 32 bits may lie further apart than an offset can say; `unpack` and bounds keep real ones near.
            _ => spans.push(Span { offset: i32::try_from(gap).unwrap_or(i32::MAX), length: 1 }),
        }
        push(*count);
        next = index + 1;
    }
    (spans, differences)
}

impl Histogram {
    /// Leaves out empty buckets, but for runs of at most `gap_max` between others: few spans that stay the same from sample to
    /// sample may be worth some zeros.
    pub fn compact(&mut self, gap_max: u32) {
        for (spans, differences) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            if let Some(mut cells) = unpack(spans, differences) {
                cells.retain(|(_, count)| *count != 0);
                (*spans, *differences) = pack(&cells, i64::from(gap_max));
            }
        }
    }

    /// The same observations at the coarser `schema`; itself when that is not coarser, or buckets are custom.
    #[must_use]
    pub fn to_schema(&self, schema: i32) -> Self {
        let mut reduced = self.clone();
        if self.uses_custom_buckets() || schema >= self.schema {
            return reduced;
        }
        let mut sides = [Vec::new(), Vec::new()];
        for (side, (spans, differences)) in sides.iter_mut().zip([
            (&self.positive_spans, &self.positive_buckets),
            (&self.negative_spans, &self.negative_buckets),
        ]) {
            let Some(fine) = unpack(spans, differences) else { return reduced };
            for (index, count) in fine {
                let fine_index = i32::try_from(index).expect("unpacked indexes fit");
                let index = i64::from(coarser_index(fine_index, self.schema, schema));
                match side.last_mut() {
                    Some((last, total)) if *last == index => *total = i64::wrapping_add(*total, count),
                    _ => side.push((index, count)),
                }
            }
        }
        reduced.schema = schema;
        (reduced.positive_spans, reduced.positive_buckets) = pack(&sides[0], 0);
        (reduced.negative_spans, reduced.negative_buckets) = pack(&sides[1], 0);
        reduced
    }

    /// Number of buckets that are written down, the zero bucket aside.
    pub fn bucket_count(&self) -> usize {
        self.positive_buckets.len() + self.negative_buckets.len()
    }
}

impl FloatHistogram {
    /// Number of buckets that are written down, the zero bucket aside.
    pub fn bucket_count(&self) -> usize {
        self.positive_buckets.len() + self.negative_buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(spans: &[(i32, u32)], differences: &[i64]) -> Histogram {
        Histogram {
            schema: 2,
            positive_spans: spans
                .iter()
                .map(|(offset, length)| Span { offset: *offset, length: *length })
                .collect(),
            positive_buckets: differences.to_vec(),
            ..Histogram::default()
        }
    }

    fn shape(histogram: &Histogram) -> (Vec<(i32, u32)>, Vec<i64>) {
        let spans = histogram.positive_spans.iter().map(|span| (span.offset, span.length)).collect();
        (spans, histogram.positive_buckets.clone())
    }

    #[test]
    fn empty_buckets_go_but_for_short_runs() {
        // Counts 0 1 0 0 2 0 0 0 3 0 from index -1 on.
        let wide = histogram(&[(-1, 6), (0, 0), (0, 4)], &[0, 1, -1, 0, 2, -2, 0, 0, 3, -3]);
        let compacted = |gap| {
            let mut histogram = wide.clone();
            histogram.compact(gap);
            shape(&histogram)
        };
        assert_eq!(compacted(0), (vec![(0, 1), (2, 1), (3, 1)], vec![1, 1, 1]));
        assert_eq!(compacted(2), (vec![(0, 4), (3, 1)], vec![1, -1, 0, 2, 1]));
        assert_eq!(compacted(3), (vec![(0, 8)], vec![1, -1, 0, 2, -2, 0, 0, 3]));
        let broken = histogram(&[(0, 3)], &[1]);
        let mut same = broken.clone();
        same.compact(0);
        assert_eq!(same, broken, "left for the validation");
        assert_eq!(broken.to_schema(0), broken);
    }

    proptest! {
        /// As the float form does it.
        #[test]
        fn coarser_is_as_with_floats(
            offset in -20i32..20,
            counts in prop::collection::vec(0i64..5, 1..30),
            gap in 0i32..9,
            schema in -4i32..=2,
        ) {
            let half = counts.len() / 2;
            let mut previous = 0;
            let differences: Vec<i64> =
                counts.iter().map(|count| { let difference = count - previous; previous = *count; difference }).collect();
            let fine = histogram(&[(offset, half as u32), (gap, (counts.len() - half) as u32)], &differences);
            let reduced = fine.to_schema(schema);
            prop_assert!(reduced.to_float().same_as(&fine.to_float().to_schema(schema)), "{reduced:?}");
            let mut compact = fine.clone();
            compact.compact(0);
            let mut float = fine.to_float();
            float.compact();
            prop_assert!(compact.to_float().same_as(&float));
            prop_assert_eq!(compact.positive_buckets.len(), float.bucket_count());
        }
    }
}
