//! `tsdb analyze`: what takes the space. The lists, their names and their order are promtool's, so that eyes and scripts find
//! them; what a list holds at equal numbers is in order of the alphabet. Behind them comes what promtool does not tell:
//! bytes for each sample, and series that never change.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use hashbrown::HashMap;
use model::labels::METRIC_NAME;
use model::storage::{BlockInfo, Queryable as _, SelectHints, SeriesColumns};
use model::{Labels, Matcher, TimeRange, Timestamp};
use tsdb::inspect::{self, ChunkFacts, SeriesFacts};

use super::args::AnalyzeArgs;
use super::{check_dir, files, open, say, selector, table};

/// Everything that is stored.
const ALL: &str = "all";

/// Prints the analysis of a block or of everything.
pub(super) fn run(args: &AnalyzeArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    check_dir(&args.dir)?;
    let matchers = args.matcher.as_deref().map(selector).transpose()?.unwrap_or_default();
    let block = match args.block.as_deref() {
        Some(ALL) => None,
        Some(id) => Some(
            find(args, |block| block.id == id)?
                .ok_or_else(|| anyhow::anyhow!("{}: no block {id:?}", args.dir.display()))?,
        ),
        None => find(args, |_| true)?,
    };
    match block {
        Some(block) => analyze_block(args, &matchers, &block, out)?,
        None => analyze_all(args, &matchers, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest block of those that are wanted. One that is wanted and cannot be read is an error.
fn find(args: &AnalyzeArgs, wanted: impl Fn(&BlockInfo) -> bool) -> anyhow::Result<Option<BlockInfo>> {
    let mut found = None;
    for entry in inspect::blocks(&*files(), &args.dir)? {
        match entry.info {
            Ok(info) if wanted(&info) => found = Some(info),
            Ok(_) => {}
            Err(error)
                if entry.dir.file_name().map(OsStr::as_encoded_bytes)
                    == args.block.as_deref().map(str::as_bytes) =>
            {
                bail!("{error}");
            }
            Err(error) => say(&format!("warning: {error}")),
        }
    }
    Ok(found)
}

fn analyze_block(
    args: &AnalyzeArgs,
    matchers: &[Matcher],
    block: &BlockInfo,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut cardinality = Cardinality::new(block.min_time, block.max_time);
    let mut chunks = Chunks::default();
    inspect::scan_block(&files(), &args.dir, &block.id, &mut |labels, facts| {
        if Matcher::all_match(matchers, labels) {
            cardinality.add(labels, facts);
            facts.chunks.iter().for_each(|chunk| chunks.add(chunk));
        }
    })?;
    writeln!(out, "Block ID: {}", block.id)?;
    cardinality.write(out, args, Some(block.series))?;
    cardinality.write_samples(out)?;
    if block.samples > 0 {
        let each = block.size_bytes as f64 / block.samples as f64;
        writeln!(out, "Bytes for each sample: {each:.3} ({} in all)", block.size_bytes)?;
    }
    if args.extended {
        chunks.write(out)?;
    }
    Ok(())
}

fn analyze_all(args: &AnalyzeArgs, matchers: &[Matcher], out: &mut dyn Write) -> anyhow::Result<()> {
    let store = open(&args.dir)?;
    let blocks: Vec<BlockInfo> =
        inspect::blocks(&*files(), &args.dir)?.into_iter().filter_map(|entry| entry.info.ok()).collect();
    let querier = store.db.querier(TimeRange::ALL)?;
    let set = querier.select(matchers, &SelectHints { sorted: true, ..SelectHints::default() })?;
    let mut columns = SeriesColumns::default();
    // The span is known when all has been read; what a series does not cover is counted from it.
    let mut all = Vec::with_capacity(set.len());
    for index in 0..set.len() {
        set.read(index, &mut columns)?;
        all.extend(SeriesFacts::of(&columns).map(|facts| (index, facts)));
    }
    let min = all.iter().map(|(_, facts)| facts.first).min().unwrap_or(0);
    let max = all.iter().map(|(_, facts)| facts.last).max().unwrap_or(-1);
    let mut cardinality = Cardinality::new(min, max.saturating_add(1));
    for (index, facts) in &all {
        cardinality.add(&set.labels(*index), facts);
    }
    writeln!(out, "All that is stored: {} blocks and what is in none yet", blocks.len())?;
    cardinality.write(out, args, None)?;
    cardinality.write_samples(out)?;
    let (bytes, samples) = blocks
        .iter()
        .fold((0, 0), |(bytes, samples), block| (bytes + block.size_bytes, samples + block.samples));
    if samples > 0 {
        let each = bytes as f64 / samples as f64;
        writeln!(out, "Bytes for each sample in blocks: {each:.3} ({bytes} in all)")?;
    }
    Ok(())
}

/// Counts by label.
struct Cardinality {
    span_ms: u64,
    min: Timestamp,
    max: Timestamp,
    /// By name and value.
    labels: HashMap<String, HashMap<String, Count>>,
    series: u64,
    samples: u64,
    constant: (u64, u64),
    /// Label pairs of all series.
    entries: u64,
}

/// What is known of a label pair.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    series: u64,
    /// Milliseconds of the span in which its series were not there, all together.
    uncovered_ms: u128,
}

impl Cardinality {
    fn new(min: Timestamp, max: Timestamp) -> Self {
        Self {
            span_ms: max.abs_diff(min).max(1),
            min,
            max,
            labels: HashMap::new(),
            series: 0,
            samples: 0,
            constant: (0, 0),
            entries: 0,
        }
    }

    fn add(&mut self, labels: &Labels, facts: &SeriesFacts) {
        let uncovered = self.span_ms.saturating_sub(facts.last.abs_diff(facts.first));
        for (name, value) in labels {
            let values = self.labels.entry_ref(name).or_default();
            let count = values.entry_ref(value).or_default();
            count.series += 1;
            count.uncovered_ms += u128::from(uncovered);
            self.entries += 1;
        }
        self.series += 1;
        self.samples += facts.samples;
        if facts.is_constant {
            self.constant.0 += 1;
            self.constant.1 += facts.samples;
        }
    }

    /// The part that is promtool's. `total`: series before the selector.
    fn write(&self, out: &mut dyn Write, args: &AnalyzeArgs, total: Option<u64>) -> io::Result<()> {
        let span = i64::try_from(self.span_ms).unwrap_or(i64::MAX);
        if self.max > self.min {
            writeln!(out, "Duration: {}", table::duration(span))?;
        }
        writeln!(out, "Total Series: {}", total.unwrap_or(self.series))?;
        if let Some(selector) = &args.matcher {
            writeln!(out, "Matcher: {selector}")?;
            writeln!(out, "Matched series: {}", self.series)?;
        }
        writeln!(out, "Label names: {}", self.labels.len())?;
        let pairs = self.labels.values().map(|values| values.len()).sum::<usize>();
        writeln!(out, "Postings (unique label pairs): {pairs}")?;
        writeln!(out, "Postings entries (total label pairs): {}", self.entries)?;

        let churn = |uncovered: u128| u64::try_from(uncovered / u128::from(self.span_ms)).unwrap_or(u64::MAX);
        let mut list = |title: &str, entries: Vec<(u64, String)>| write_top(out, title, entries, args.limit);
        let pairs = |number: &dyn Fn(&Count) -> u64| -> Vec<(u64, String)> {
            let pair =
                |name: &str, (value, count): (&String, &Count)| (number(count), format!("{name}={value}"));
            self.labels
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |value| pair(name, value)))
                .collect()
        };
        let names = |number: &dyn Fn(&HashMap<String, Count>) -> u64| -> Vec<(u64, String)> {
            self.labels.iter().map(|(name, values)| (number(values), name.clone())).collect()
        };
        list("Label pairs most involved in churning", pairs(&|count| churn(count.uncovered_ms)))?;
        list(
            "Label names most involved in churning",
            names(&|values| churn(values.values().map(|count| count.uncovered_ms).sum())),
        )?;
        list("Most common label pairs", pairs(&|count| count.series))?;
        list(
            "Label names with highest cumulative label value length",
            names(&|values| values.keys().map(|value| value.len() as u64).sum()),
        )?;
        list("Highest cardinality labels", names(&|values| values.len() as u64))?;
        let metrics = self.labels.get(METRIC_NAME).into_iter().flatten();
        let metrics = metrics.map(|(name, count)| (count.series, name.clone())).collect();
        list("Highest cardinality metric names", metrics)
    }

    fn write_samples(&self, out: &mut dyn Write) -> io::Result<()> {
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64 * 100.0;
        let (series, samples) = self.constant;
        writeln!(out, "\nSamples: {}", self.samples)?;
        writeln!(
            out,
            "Series that never change: {series} ({:.1} %), with {:.1} % of samples",
            share(series, self.series),
            share(samples, self.samples)
        )
    }
}

/// The largest numbers under a title.
fn write_top(
    out: &mut dyn Write,
    title: &str,
    mut entries: Vec<(u64, String)>,
    limit: usize,
) -> io::Result<()> {
    writeln!(out, "\n{title}:")?;
    entries.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (number, key) in entries.iter().take(limit) {
        writeln!(out, "{number} {key}")?;
    }
    Ok(())
}

/// Sizes of chunks.
#[derive(Debug, Default)]
struct Chunks {
    floats: Sizes,
    histograms: Sizes,
    /// Chunks, samples and bytes by codec.
    codecs: BTreeMap<&'static str, (u64, u64, u64)>,
}

/// How often which size occurs.
#[derive(Debug, Default)]
struct Sizes {
    samples: BTreeMap<u64, u64>,
    bytes: BTreeMap<u64, u64>,
}

impl Chunks {
    fn add(&mut self, chunk: &ChunkFacts) {
        let sizes = if chunk.is_histogram { &mut self.histograms } else { &mut self.floats };
        *sizes.samples.entry(chunk.samples).or_default() += 1;
        *sizes.bytes.entry(chunk.bytes).or_default() += 1;
        let (chunks, samples, bytes) = self.codecs.entry(chunk.codec).or_default();
        *chunks += 1;
        *samples += chunk.samples;
        *bytes += chunk.bytes;
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\nCompaction analysis:\n")?;
        write_histogram(out, "samples per float chunk", &self.floats.samples)?;
        write_histogram(out, "bytes per float chunk", &self.floats.bytes)?;
        write_histogram(out, "samples per histogram chunk", &self.histograms.samples)?;
        write_histogram(out, "bytes per histogram chunk", &self.histograms.bytes)?;
        writeln!(out, "Chunks by codec, before compression and without shared times:")?;
        for (codec, (chunks, samples, bytes)) in &self.codecs {
            let each = *bytes as f64 / (*samples).max(1) as f64;
            writeln!(out, "{chunks} {codec}: {samples} samples, {bytes} bytes, {each:.3} for each sample")?;
        }
        Ok(())
    }
}

/// A histogram of sizes as promtool draws it: steps of a power of ten, a `#` for each percent.
fn write_histogram(out: &mut dyn Write, title: &str, sizes: &BTreeMap<u64, u64>) -> io::Result<()> {
    let (Some((min, _)), Some((max, _))) = (sizes.first_key_value(), sizes.last_key_value()) else {
        return writeln!(out, "{title}: N/A\n");
    };
    let mut step = 10;
    while step < (max - min) / 10 && step <= 10_000 {
        step *= 10;
    }
    let (start, end) = (min - min % step, max - max % step + step);
    let total: u64 = sizes.values().sum();
    let sum: u64 = sizes.iter().map(|(size, count)| size * count).sum();
    writeln!(out, "{title} (min/avg/max): {min}/{}/{max}", sum / total)?;
    let width = |number: u64| number.to_string().len();
    let (left, right) = (width(end), width(end + step));
    let mut from = start;
    let mut rows = Vec::new();
    while from <= end {
        let count: u64 = sizes.range(from..from + step).map(|(_, count)| count).sum();
        rows.push((from, count));
        from += step;
    }
    let digits = width(rows.iter().map(|(_, count)| *count).max().unwrap_or(0));
    for (from, count) in rows {
        let bar = "#".repeat(usize::try_from(100 * count / total).unwrap_or(100));
        writeln!(out, "[{:left$}, {:right$}]: {count:digits$} {bar}", from + 1, from + step)?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_drawn_as_promtool_draws_them() {
        let mut out = Vec::new();
        let sizes = BTreeMap::from([(16, 1), (28, 1)]);
        write_histogram(&mut out, "bytes per float chunk", &sizes).unwrap();
        write_histogram(&mut out, "samples per float chunk", &BTreeMap::from([(1, 1), (2, 1)])).unwrap();
        write_histogram(&mut out, "samples per histogram chunk", &BTreeMap::new()).unwrap();
        let half = "#".repeat(50);
        let expected = format!(
            "bytes per float chunk (min/avg/max): 16/22/28\n[11, 20]: 1 {half}\n[21, 30]: 1 {half}\n[31, 40]: 0 \n\n\
             samples per float chunk (min/avg/max): 1/1/2\n[ 1, 10]: 2 {half}{half}\n[11, 20]: 0 \n\n\
             samples per histogram chunk: N/A\n\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn churn_is_what_series_do_not_cover() {
        let mut cardinality = Cardinality::new(0, 1000);
        let facts = |first, last, is_constant| SeriesFacts {
            first,
            last,
            samples: 2,
            is_constant,
            chunks: Vec::new(),
        };
        for n in 0..4 {
            let labels = Labels::from_pairs([("__name__", "m"), ("pod", &format!("p{n}"))]);
            cardinality.add(&labels, &facts(n * 250, n * 250 + 250, n == 0));
        }
        let mut out = Vec::new();
        let args = AnalyzeArgs { limit: 2, matcher: None, extended: false, dir: ".".into(), block: None };
        cardinality.write(&mut out, &args, None).unwrap();
        cardinality.write_samples(&mut out).unwrap();
        let expected = "Duration: 1s\nTotal Series: 4\nLabel names: 2\nPostings (unique label pairs): 5\n\
            Postings entries (total label pairs): 8\n\n\
            Label pairs most involved in churning:\n3 __name__=m\n0 pod=p0\n\n\
            Label names most involved in churning:\n3 __name__\n3 pod\n\n\
            Most common label pairs:\n4 __name__=m\n1 pod=p0\n\n\
            Label names with highest cumulative label value length:\n8 pod\n1 __name__\n\n\
            Highest cardinality labels:\n4 pod\n1 __name__\n\n\
            Highest cardinality metric names:\n4 m\n\n\
            Samples: 8\nSeries that never change: 1 (25.0 %), with 25.0 % of samples\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
