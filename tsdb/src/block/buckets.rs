//! Classic histograms: the buckets of one are counted against each other.
//!
//! A bucket counts what the next larger one counts less a little, so the difference of two is small, often nothing, and
//! changes less. Chunks of whole numbers whose difference is smaller are written so (see `docs/formats/chunk.md`), right
//! behind the chunk of the larger bucket. Reading one bucket then reads its bases too; readers keep them for its neighbours.
//! Chains begin at the largest bucket, which is the count of all and asked for most often alone, also by the name of the
//! histogram's `_count`: it has no base.
//!
//! Buckets of a histogram are series that differ in `le` only. In order of labels others may be between them, and their order is
//! that of texts: frames have them side by side in order of their bounds, the largest first.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use hashbrown::HashMap;
use model::labels::{BUCKET_LABEL, Labels};

use crate::chunk::CHAIN_MAX;

/// How the series of a batch are written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    /// By series: its histogram, and its place in that; a series of its own is alone in its histogram.
    pub(super) rank: Vec<(usize, usize)>,
    /// By series: the bucket that it counts against.
    pub(super) base: Vec<Option<usize>>,
}

impl Families {
    /// Of a batch with these labels; chains of at most `chain` chunks.
    pub(super) fn of(labels: &[Labels], chain: usize) -> Self {
        let mut families = Self {
            rank: (0..labels.len()).map(|series| (series, 0)).collect(),
            base: vec![None; labels.len()],
        };
        let mut histograms: HashMap<Labels, Vec<(f64, usize)>> = HashMap::new();
        for (series, labels) in labels.iter().enumerate() {
            let bound = labels.get(BUCKET_LABEL).and_then(|bound| bound.parse::<f64>().ok());
            if let Some(bound) = bound.filter(|bound| !bound.is_nan()) {
                histograms.entry(labels.without(&[BUCKET_LABEL])).or_default().push((bound, series));
            }
        }
        for mut buckets in histograms.into_values() {
            let first = buckets.iter().map(|(_, series)| *series).min().unwrap_or_default();
            buckets.sort_by(|a, b| b.0.total_cmp(&a.0));
            // Chains as even as may be.
            let chains = buckets.len().div_ceil(chain.clamp(1, CHAIN_MAX));
            let chain = buckets.len().div_ceil(chains.max(1)).max(1);
            let mut before = None;
            for (place, (_, series)) in buckets.into_iter().enumerate() {
                if let Some(rank) = families.rank.get_mut(series) {
                    *rank = (first, place);
                }
                let base = before.replace(series).filter(|_| place % chain != 0);
                if let (Some(base), Some(of)) = (base, families.base.get_mut(series)) {
                    *of = Some(base);
                }
            }
        }
        families
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn bucket(method: &str, le: &str) -> Labels {
        Labels::from_pairs([("__name__", "x_bucket"), ("le", le), ("method", method)])
    }

    #[test]
    fn buckets_follow_their_bounds_in_chains() {
        let mut labels: Vec<Labels> = ["+Inf", "0.1", "1", "10", "2", "odd"]
            .iter()
            .flat_map(|le| ["GET", "PUT"].map(|method| bucket(method, le)))
            .collect();
        labels.push(Labels::from_pairs([("__name__", "y")]));
        labels.sort();
        let families = Families::of(&labels, 3);
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by_key(|series| families.rank[*series]);
        let name = |series: usize| {
            (labels[series].value("method").to_owned(), labels[series].value("le").to_owned())
        };
        let gets: Vec<String> = order
            .iter()
            .map(|series| name(*series))
            .filter(|(method, _)| method == "GET")
            .map(|(_, le)| le)
            .collect();
        assert_eq!(gets, ["+Inf", "10", "2", "1", "0.1", "odd"]);
        let base = |le: &str| {
            let series = labels.iter().position(|labels| *labels == bucket("PUT", le)).unwrap();
            families.base[series].map(|base| name(base).1)
        };
        let base = |le: &str| base(le).unwrap_or_default();
        assert_eq!(
            [base("+Inf"), base("10"), base("2"), base("1"), base("0.1"), base("odd")],
            ["", "+Inf", "10", "", "1", ""]
        );
        assert!(families.base.last().unwrap().is_none());
    }
}
