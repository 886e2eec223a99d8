//! Sorts any number of samples by window of time and series, in bounded memory.
//!
//! Samples are collected in a *run*; a full run is sorted and written to a temporary file without a name (it is gone with the
//! process, however that ends), as one *section* for each window of time. At the end the sections of a window are merged:
//! each is sorted by labels. What one series has within one window comes in the order of the input.
//!
//! Memory: the run's budget, later a buffer for each section of one window, and the samples of one series in one window.

use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use hashbrown::HashMap;
use model::{Labels, Timestamp};

/// Bytes for the buffers of a merge, all together.
const MERGE_BYTES: usize = 32 << 20;
/// Least and most bytes of a section's buffer.
const BUFFER_BYTES: (usize, usize) = (4 << 10, 256 << 10);

/// Collects samples.
#[derive(Debug)]
pub(super) struct Spool {
    file: BufWriter<File>,
    /// Bytes written.
    len: u64,
    window_ms: i64,
    budget: usize,
    run: Run,
    /// By window: where runs lie, in order of the input.
    sections: BTreeMap<i64, Vec<Section>>,
    generation: u64,
}

/// What is in memory.
#[derive(Debug, Default)]
struct Run {
    numbers: HashMap<Labels, u32>,
    labels: Vec<Labels>,
    samples: Vec<Sample>,
    /// An estimate.
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    series: u32,
    t: Timestamp,
    value: f64,
}

/// A sorted run's part of one window.
#[derive(Clone, Copy, Debug)]
struct Section {
    offset: u64,
    len: u64,
}

impl Spool {
    /// An empty one, with its file in `dir` and about `budget` bytes of memory.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(dir: &Path, window_ms: i64, budget: usize) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(dir)?),
            len: 0,
            window_ms,
            budget,
            run: Run::default(),
            sections: BTreeMap::new(),
            generation: 0,
        })
    }

    /// Numbers of series are good for one generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of a series.
    pub(super) fn series(&mut self, labels: Labels) -> u32 {
        let run = &mut self.run;
        let next = u32::try_from(run.labels.len()).expect("a run's memory is bounded");
        *run.numbers.entry(labels).or_insert_with_key(|labels| {
            run.bytes += labels.size_bytes() + 64;
            run.labels.push(labels.clone());
            next
        })
    }

    /// Counts memory that is used for this run elsewhere.
    pub(super) fn account(&mut self, bytes: usize) {
        self.run.bytes += bytes;
    }

    /// Takes a sample. The run may be over after that.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn push(&mut self, series: u32, t: Timestamp, value: f64) -> io::Result<()> {
        self.run.samples.push(Sample { series, t, value });
        self.run.bytes += size_of::<Sample>();
        if self.run.bytes >= self.budget { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut run = std::mem::take(&mut self.run);
        self.generation += 1;
        let mut order: Vec<u32> = (0..).take(run.labels.len()).collect();
        let labels = |number: u32| &run.labels[number as usize];
        order.sort_unstable_by(|a, b| labels(*a).cmp(labels(*b)));
        let mut ranks = vec![0u32; order.len()];
        for (rank, number) in (0..).zip(&order) {
            ranks[*number as usize] = rank;
        }
        // Stable: what a series has at one time stays in the order of the input.
        let window_ms = self.window_ms;
        let key = |sample: &Sample| (sample.t.div_euclid(window_ms), ranks[sample.series as usize]);
        run.samples.sort_by_key(key);
        let mut entry = Vec::new();
        for part in run.samples.chunk_by(|a, b| key(a).0 == key(b).0) {
            let offset = self.len;
            for samples in part.chunk_by(|a, b| a.series == b.series) {
                entry.clear();
                put_entry(&mut entry, labels(samples[0].series), samples);
                self.file.write_all(&(entry.len() as u64).to_le_bytes())?;
                self.file.write_all(&entry)?;
                self.len += 8 + entry.len() as u64;
            }
            let section = Section { offset, len: self.len - offset };
            self.sections.entry(key(&part[0]).0).or_default().push(section);
        }
        Ok(())
    }

    /// All samples are there.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn finish(mut self) -> io::Result<Merge> {
        self.flush()?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Merge { file, sections: self.sections })
    }
}

fn put_entry(out: &mut Vec<u8>, labels: &Labels, samples: &[Sample]) {
    let mut put = |number: usize| out.extend_from_slice(&(number as u64).to_le_bytes());
    put(labels.len());
    put(samples.len());
    for (name, value) in labels {
        for text in [name, value] {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
    for sample in samples {
        out.extend_from_slice(&sample.t.to_le_bytes());
    }
    for sample in samples {
        out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
    }
}

/// Sorted samples.
#[derive(Debug)]
pub(super) struct Merge {
    file: File,
    sections: BTreeMap<i64, Vec<Section>>,
}

impl Merge {
    /// The windows that have samples, in order of time, as multiples of the window's length.
    pub(super) fn windows(&self) -> impl ExactSizeIterator<Item = i64> {
        self.sections.keys().copied()
    }

    /// Hands out the series of a window in order of labels, each once, with its samples in the order of the input.
    ///
    /// # Errors
    /// The system's, and those of `each`.
    pub(super) fn series(
        &self,
        window: i64,
        mut each: impl FnMut(&Labels, &[Timestamp], &[f64]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let sections = self.sections.get(&window).map(Vec::as_slice).unwrap_or_default();
        let buffer = (MERGE_BYTES / sections.len().max(1)).clamp(BUFFER_BYTES.0, BUFFER_BYTES.1);
        let mut cursors: Vec<Cursor<'_>> =
            sections.iter().map(|section| Cursor::new(&self.file, *section, buffer)).collect();
        let mut heap = BinaryHeap::with_capacity(cursors.len());
        for (index, cursor) in cursors.iter_mut().enumerate() {
            if let Some(labels) = cursor.advance()? {
                heap.push(std::cmp::Reverse((labels, index)));
            }
        }
        let (mut times, mut values) = (Vec::new(), Vec::new());
        while let Some(std::cmp::Reverse((labels, index))) = heap.pop() {
            cursors[index].samples(&mut times, &mut values);
            if let Some(next) = cursors[index].advance()? {
                heap.push(std::cmp::Reverse((next, index)));
            }
            // Runs of one window come in the order of the input: the heap breaks ties by their index.
            if heap.peek().is_none_or(|std::cmp::Reverse((next, _))| *next != labels) {
                each(&labels, &times, &values)?;
                times.clear();
                values.clear();
            }
        }
        Ok(())
    }
}

/// Reads one section.
struct Cursor<'a> {
    file: &'a File,
    /// What is left of it in the file.
    left: Section,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    start: usize,
    size: usize,
    /// Where in `buffer` the samples of the current entry are, and how many.
    samples: (usize, usize),
}

impl<'a> Cursor<'a> {
    fn new(file: &'a File, section: Section, size: usize) -> Self {
        Self { file, left: section, buffer: Vec::new(), start: 0, size, samples: (0, 0) }
    }

    /// Brings `len` bytes into the buffer.
    fn need(&mut self, len: usize) -> io::Result<()> {
        let there = self.buffer.len() - self.start;
        if there >= len {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let more = (len - there).max(self.size).min(usize::try_from(self.left.len).unwrap_or(usize::MAX));
        self.buffer.resize(there + more, 0);
        self.file.read_exact_at(&mut self.buffer[there..], self.left.offset)?;
        self.left.offset += more as u64;
        self.left.len -= more as u64;
        if self.buffer.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn number(&mut self) -> usize {
        let bytes = self.buffer[self.start..].first_chunk::<8>().copied().unwrap_or_default();
        self.start += 8;
        usize::try_from(u64::from_le_bytes(bytes)).expect("lengths of what was in memory")
    }

    fn text(&mut self) -> (usize, usize) {
        let len = self.number();
        let from = self.start;
        self.start += len;
        (from, self.start)
    }

    /// The labels of the next entry; `None` at the end.
    fn advance(&mut self) -> io::Result<Option<Labels>> {
        // The samples of the entry before.
        let (from, count) = std::mem::take(&mut self.samples);
        self.start = self.start.max(from + 16 * count);
        if self.left.len == 0 && self.start >= self.buffer.len() {
            return Ok(None);
        }
        self.need(8)?;
        let len = self.number();
        self.need(len)?;
        let (labels, samples) = (self.number(), self.number());
        let places: Vec<_> = (0..2 * labels).map(|_| self.text()).collect();
        let texts: Result<Vec<&str>, _> =
            places.iter().map(|(from, to)| std::str::from_utf8(&self.buffer[*from..*to])).collect();
        let texts = texts.map_err(io::Error::other)?;
        self.samples = (self.start, samples);
        Ok(Some(Labels::from_sorted(texts.chunks_exact(2).map(|pair| (pair[0], pair[1])))))
    }

    /// Appends the samples of the current entry.
    fn samples(&self, times: &mut Vec<Timestamp>, values: &mut Vec<f64>) {
        let (from, count) = self.samples;
        let (words, _) = self.buffer[from..from + 16 * count].as_chunks::<8>();
        times.extend(words[..count].iter().map(|word| Timestamp::from_le_bytes(*word)));
        values.extend(words[count..].iter().map(|word| f64::from_bits(u64::from_le_bytes(*word))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorting by hand gives the same, whatever the runs are cut into.
    #[test]
    fn runs_merge_to_what_sorting_gives() {
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let samples: Vec<(String, i64, f64)> = (0..5000)
            .map(|n| (format!("s{}", random(40)), i64::try_from(random(100)).unwrap() - 50, f64::from(n)))
            .collect();
        let mut expected: BTreeMap<(i64, Labels), Vec<(i64, u64)>> = BTreeMap::new();
        let labels = |name: &str| Labels::from_pairs([("__name__", name), ("x", "y")]);
        for (name, t, value) in &samples {
            expected.entry((t.div_euclid(10), labels(name))).or_default().push((*t, value.to_bits()));
        }
        let dir = tempfile::tempdir().unwrap();
        for budget in [1, 3000, 100_000, usize::MAX] {
            let mut spool = Spool::new(dir.path(), 10, budget).unwrap();
            for (name, t, value) in &samples {
                let series = spool.series(labels(name));
                spool.push(series, *t, *value).unwrap();
            }
            let merge = spool.finish().unwrap();
            let mut found = BTreeMap::new();
            for window in merge.windows().collect::<Vec<_>>() {
                let mut before: Option<Labels> = None;
                let each = |labels: &Labels, times: &[i64], values: &[f64]| {
                    assert!(before.as_ref().is_none_or(|before| before < labels), "in order, each once");
                    before = Some(labels.clone());
                    let samples = times.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
                    found.insert((window, labels.clone()), samples);
                    Ok(())
                };
                merge.series(window, each).unwrap();
            }
            assert_eq!(found, expected, "{budget}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
    }
}
