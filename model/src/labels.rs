//! Label sets: one allocation each, sorted by name, cheap to clone, compare and hash.
//!
//! The whole set is one reference-counted string: for each label the length of the name, the name, the
//! length of the value, the value, in order of names. Lengths are written in ASCII digits of base 64
//! (see `push_len`), so the buffer is valid UTF-8 and no `unsafe` is needed to hand out `&str`.
//! Equality is one comparison of bytes, hashing one pass over them. (The idea of a single packed string
//! is that of Prometheus' `stringlabels`.)
//!
//! Invariants: names are sorted bytewise and unique; no value is empty (an absent label and an empty one
//! are the same thing in the data model).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// Upper bound of a classic histogram bucket.
pub const BUCKET_LABEL: &str = "le";
/// Quantile of a summary.
pub const QUANTILE_LABEL: &str = "quantile";
/// Name of the alerting rule.
pub const ALERT_NAME: &str = "alertname";
/// The scrape job.
pub const JOB: &str = "job";
/// The scraped instance.
pub const INSTANCE: &str = "instance";

/// An immutable, sorted set of labels. See the module document for its layout.
#[derive(Clone, Eq)]
pub struct Labels {
    packed: Arc<str>,
}

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self { packed: Arc::from("") }
    }

    /// A set from pairs in any order. Empty values are left out; of equal names the last one wins.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// A set from pairs that are already sorted by name, unique, and without empty values.
    ///
    /// # Panics
    /// In debug builds when the order is wrong.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut packed = String::with_capacity(128);
        let mut last: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(last.is_none_or(|last| last < name), "label {name:?} out of order");
            debug_assert!(!value.is_empty(), "label {name:?} has an empty value");
            last = Some(name);
            push_len(&mut packed, name.len());
            packed.push_str(name);
            push_len(&mut packed, value.len());
            packed.push_str(value);
        }
        Self { packed: Arc::from(packed) }
    }

    /// The labels in order of names.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.packed }
    }

    /// The value of `name`, or `None` when the set has no such label.
    pub fn get(&self, name: &str) -> Option<&str> {
        for (label, value) in self.iter() {
            match label.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value of `name`, or the empty string: how matchers see absent labels.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The metric name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Whether the set has the label `name`.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Number of labels. Linear in the set.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Size of the packed form in bytes, for accounting.
    pub fn size_bytes(&self) -> usize {
        self.packed.len()
    }

    /// A 64-bit hash (XXH3 of the packed form): stable over processes and machines of one version of
    /// this layout, never written to disk.
    pub fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.packed.as_bytes())
    }

    /// The set without the labels in `names`.
    pub fn without(&self, names: &[impl AsRef<str>]) -> Self {
        self.filtered(|name| !names.iter().any(|n| n.as_ref() == name))
    }

    /// The set reduced to the labels in `names`.
    pub fn only(&self, names: &[impl AsRef<str>]) -> Self {
        self.filtered(|name| names.iter().any(|n| n.as_ref() == name))
    }

    /// The set without the metric name.
    pub fn without_name(&self) -> Self {
        self.filtered(|name| name != METRIC_NAME)
    }

    /// Whether both are one set in memory, not only equal.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed)
    }

    /// The set reduced to the labels whose names `keep` accepts.
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        if self.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        Self::from_sorted(self.iter().filter(|(name, _)| keep(name)))
    }

    /// The set with `name` set to `value` (removed when `value` is empty).
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut builder = LabelsBuilder::from(self);
        builder.set(name, value);
        builder.build()
    }

    /// The first name that occurs twice in `pairs`, for input that must not repeat labels.
    pub fn duplicate_name<'a>(pairs: &[(&'a str, &'a str)]) -> Option<&'a str> {
        let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed) || self.packed == other.packed
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash64());
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Label by label, name before value; a prefix is smaller. Prometheus' `labels.Compare`.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.packed, &other.packed) {
            return Ordering::Equal;
        }
        self.iter().cmp(other.iter())
    }
}

/// `{__name__="up", job="x"}` as Prometheus prints it: `up{job="x"}` is left to callers that want it.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                write!(f, "{name}={}", Quoted(value))?;
            } else {
                write!(f, "{}={}", Quoted(name), Quoted(value))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;

    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        Self::from_pairs(pairs)
    }
}

/// Iterator over `(name, value)` in order of names.
#[derive(Clone, Debug)]
pub struct LabelsIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = take_str(self.rest);
        let (value, rest) = take_str(rest);
        self.rest = rest;
        Some((name, value))
    }
}

/// Six bits a byte, lowest first; bit 6 says that more follow. Every byte is ASCII.
fn push_len(out: &mut String, mut len: usize) {
    while len >= 64 {
        out.push(char::from((len & 63) as u8 | 64));
        len >>= 6;
    }
    out.push(char::from(len as u8));
}

fn take_str(packed: &str) -> (&str, &str) {
    let mut len = 0usize;
    let mut shift = 0;
    for (index, byte) in packed.bytes().enumerate() {
        len |= usize::from(byte & 63) << shift;
        shift += 6;
        if byte & 64 == 0 {
            return packed[index + 1..].split_at(len);
        }
    }
    unreachable!("packed labels end within a length")
}

/// Collects and edits labels, then packs them.
///
/// Cheap to reuse: [`LabelsBuilder::reset`] keeps the allocation.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    /// Sorted by name at all times; an empty value marks a label to leave out.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts anew from `base`.
    pub fn reset(&mut self, base: &Labels) {
        self.pairs.clear();
        self.pairs.extend(base.iter().map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    /// Sets `name` to `value`; an empty value removes the label.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.position(&name) {
            Ok(index) if value.is_empty() => {
                self.pairs.remove(index);
            }
            Ok(index) => self.pairs[index].1 = value,
            Err(_) if value.is_empty() => {}
            Err(index) => self.pairs.insert(index, (name, value)),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        if let Ok(index) = self.position(name) {
            self.pairs.remove(index);
        }
        self
    }

    /// Keeps the labels that `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) -> &mut Self {
        self.pairs.retain(|(name, value)| keep(name, value));
        self
    }

    /// The present value of `name`, or the empty string.
    pub fn value(&self, name: &str) -> &str {
        self.position(name).map_or("", |index| &self.pairs[index].1)
    }

    /// The present labels in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Packs the labels; the builder keeps its content.
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(label, _)| label.as_str().cmp(name))
    }
}

impl From<&Labels> for LabelsBuilder {
    fn from(labels: &Labels) -> Self {
        let mut builder = Self::new();
        builder.reset(labels);
        builder
    }
}

/// Prints a string as Go's `strconv.Quote` does: Prometheus' notation for label values.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                c if (c as u32) < 0x20 || c == '\u{7f}' => write!(f, "\\x{:02x}", c as u32)?,
                c if (0x80..0xa0).contains(&(c as u32)) || c == '\u{ad}' || c == '\u{feff}' => {
                    write!(f, "\\u{:04x}", c as u32)?;
                }
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: a label name that needs no quotes in PromQL.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`: a metric name that needs no quotes in PromQL.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn empty_values_are_absent_labels() {
        let labels = Labels::from_pairs([("b", "2"), ("a", ""), ("c", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("b", "2"), ("c", "3")]);
        assert_eq!(labels.value("a"), "");
        assert_eq!(labels.with("b", "").len(), 1);
    }

    #[test]
    fn order_compares_names_before_values_and_prefixes_first() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        assert!(labels(&[("a", "2")]) < labels(&[("b", "1")]));
        assert!(labels(&[("a", "1")]) < labels(&[("a", "1"), ("b", "1")]));
        assert!(labels(&[("a", "10")]) < labels(&[("a", "9")]));
        assert!(Labels::empty() < labels(&[("a", "1")]));
    }

    #[test]
    fn display_quotes_like_go() {
        let labels = Labels::from_pairs([("a", "x\"y\n\\"), ("name with space", "é\u{1}")]);
        assert_eq!(labels.to_string(), r#"{a="x\"y\n\\", "name with space"="é\x01"}"#);
    }

    proptest! {
        #[test]
        fn packs_like_a_sorted_map(pairs in prop::collection::vec(("\\PC{0,70}", "\\PC{0,200}"), 0..8)) {
            let labels = Labels::from_pairs(pairs.iter().cloned());
            let mut map = BTreeMap::new();
            for (name, value) in &pairs {
                map.insert(name.as_str(), value.as_str());
            }
            map.retain(|_, value| !value.is_empty());
            prop_assert_eq!(labels.iter().collect::<Vec<_>>(), map.iter().map(|(n, v)| (*n, *v)).collect::<Vec<_>>());
            for (name, value) in &map {
                prop_assert_eq!(labels.get(name), Some(*value));
            }
            prop_assert_eq!(labels.len(), map.len());
        }

        #[test]
        fn order_and_equality_agree(a in prop::collection::vec(("[ab]", "[xy]{0,2}"), 0..3), b in prop::collection::vec(("[ab]", "[xy]{0,2}"), 0..3)) {
            let (a, b) = (Labels::from_pairs(a), Labels::from_pairs(b));
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            if a == b {
                prop_assert_eq!(a.hash64(), b.hash64());
            }
        }
    }
}
