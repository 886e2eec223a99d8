//! `tsdb dump`: all samples as text, those that are in no block yet included.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::ensure;
use model::float::format_general;
use model::labels::{is_legacy_label_name, is_legacy_metric_name};
use model::sample::is_stale_nan;
use model::storage::{Queryable as _, SelectHints, SeriesColumns, SeriesSet};
use model::{Labels, TimeRange, Timestamp};

use super::args::{DumpFormat, SelectArgs};
use super::{counted, open, say, selector};

/// What a format has no words for.
#[derive(Debug, Default)]
struct LeftOut {
    histograms: u64,
    stale: u64,
    nameless: u64,
}

/// Prints what is selected, series in order of labels.
pub(super) fn run(args: &SelectArgs, format: DumpFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    ensure!(args.min_time <= args.max_time, "--min-time is later than --max-time");
    let selectors = args.matchers.iter().map(|text| selector(text)).collect::<Result<Vec<_>, _>>()?;
    let store = open(&args.dir)?;
    let range = TimeRange::new(args.min_time, args.max_time);
    let querier = store.db.querier(range)?;
    let hints = SelectHints { sorted: true, ..SelectHints::default() };
    let everything = [Vec::new()];
    let selectors = if selectors.is_empty() { &everything[..] } else { &selectors[..] };
    let sets = selectors.iter().map(|matchers| querier.select(matchers, &hints));
    let sets = sets.collect::<Result<Vec<_>, _>>()?;
    let mut columns = SeriesColumns::default();
    let mut left_out = LeftOut::default();
    for (labels, set, index) in in_order(&sets) {
        set.read(index, &mut columns)?;
        match format {
            DumpFormat::Prom => write_prom(out, &labels, &columns)?,
            DumpFormat::Openmetrics => write_openmetrics(out, &labels, &columns, &mut left_out)?,
        }
    }
    if format == DumpFormat::Openmetrics {
        writeln!(out, "# EOF")?;
    }
    let LeftOut { histograms, stale, nameless } = left_out;
    for (number, what) in [
        (histograms, "native histogram sample"),
        (stale, "staleness marker"),
        (nameless, "sample without a metric name"),
    ] {
        if number > 0 {
            say(&format!("note: OpenMetrics has no words for {}: left out", counted(number, what)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The series of all sets in order of labels, each once.
fn in_order(sets: &[Box<dyn SeriesSet>]) -> Vec<(Labels, &dyn SeriesSet, usize)> {
    let mut all = Vec::with_capacity(sets.iter().map(|set| set.len()).sum());
    for set in sets {
        all.extend((0..set.len()).map(|index| (set.labels(index), &**set, index)));
    }
    if sets.len() > 1 {
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|a, b| a.0 == b.0);
    }
    all
}

/// `{__name__="up", job="x"} 1 1609954636000`
fn write_prom(out: &mut dyn Write, labels: &Labels, columns: &SeriesColumns) -> io::Result<()> {
    let labels = labels.to_string();
    for (t, value) in columns.float_times.iter().zip(&columns.float_values) {
        writeln!(out, "{labels} {} {t}", format_general(*value))?;
    }
    for (t, histogram) in columns.histogram_times.iter().zip(&columns.histograms) {
        writeln!(out, "{labels} {histogram} {t}")?;
    }
    Ok(())
}

/// `up{job="x"} 1 1609954636.000`
fn write_openmetrics(
    out: &mut dyn Write,
    labels: &Labels,
    columns: &SeriesColumns,
    left_out: &mut LeftOut,
) -> io::Result<()> {
    left_out.histograms += columns.histograms.len() as u64;
    let Some(series) = openmetrics_series(labels) else {
        left_out.nameless += columns.float_times.len() as u64;
        return Ok(());
    };
    for (t, value) in columns.float_times.iter().zip(&columns.float_values) {
        if is_stale_nan(*value) {
            left_out.stale += 1;
        } else {
            writeln!(out, "{series} {} {}", format_general(*value), seconds(*t))?;
        }
    }
    Ok(())
}

/// Name and labels; `None` without a name.
fn openmetrics_series(labels: &Labels) -> Option<String> {
    let name = labels.metric_name();
    let mut pairs = Vec::new();
    let mut text = String::new();
    match name {
        "" => return None,
        name if is_legacy_metric_name(name) => text.push_str(name),
        name => pairs.push(quoted(name)),
    }
    for (name, value) in labels.without_name().iter() {
        let name = if is_legacy_label_name(name) { name.to_owned() } else { quoted(name) };
        pairs.push(format!("{name}={}", quoted(value)));
    }
    if !pairs.is_empty() {
        text.push_str(&format!("{{{}}}", pairs.join(",")));
    }
    Some(text)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\""))
}

/// Seconds with three decimals.
fn seconds(t: Timestamp) -> String {
    let sign = if t < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", t.unsigned_abs() / 1000, t.unsigned_abs() % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_spelled_as_openmetrics_wants_them() {
        let series = |pairs: &[(&str, &str)]| openmetrics_series(&Labels::from_pairs(pairs.iter().copied()));
        let odd = series(&[("__name__", "a:b"), ("x", "q\"\\\n\u{e9}"), ("y.z", "1")]);
        assert_eq!(odd.as_deref(), Some("a:b{x=\"q\\\"\\\\\\n\u{e9}\",\"y.z\"=\"1\"}"));
        assert_eq!(series(&[("__name__", "up")]).as_deref(), Some("up"));
        assert_eq!(series(&[("__name__", "a b"), ("c", "d")]).as_deref(), Some("{\"a b\",c=\"d\"}"));
        assert_eq!(series(&[("c", "d")]), None);
        assert_eq!(seconds(-1), "-0.001");
        assert_eq!(seconds(1_609_954_637_250), "1609954637.250");
        assert_eq!(seconds(i64::MIN), "-9223372036854775.808");
    }
}
