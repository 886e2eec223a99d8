//! Columns of text as promtool prints them, and its spellings of times, durations and sizes.

use std::io::{self, Write};

use model::Timestamp;
use model::storage::BlockInfo;

/// Least width of a column, the gap to the next one included.
const WIDTH_MIN: usize = 13;
/// Gap between columns.
const GAP: usize = 2;

/// Writes rows with all columns but the last padded to a common width.
fn write_table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (widest.unwrap_or(0) + GAP).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        if let Some((last, cells)) = row.split_last() {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(out, "{cell:<width$}")?;
            }
            writeln!(out, "{last}")?;
        }
    }
    Ok(())
}

/// The table of `promtool tsdb list`, with the level of compaction behind it.
pub(super) fn write_blocks(out: &mut dyn Write, blocks: &[BlockInfo], for_people: bool) -> io::Result<()> {
    let head = [
        "BLOCK ULID",
        "MIN TIME",
        "MAX TIME",
        "DURATION",
        "NUM SAMPLES",
        "NUM CHUNKS",
        "NUM SERIES",
        "SIZE",
        "LEVEL",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(blocks.iter().map(|block| {
        let time = |t: Timestamp| if for_people { time(t) } else { t.to_string() };
        vec![
            block.id.clone(),
            time(block.min_time),
            time(block.max_time),
            duration(block.max_time.saturating_sub(block.min_time)),
            block.samples.to_string(),
            block.chunks.to_string(),
            block.series.to_string(),
            if for_people { size(block.size_bytes) } else { block.size_bytes.to_string() },
            block.level.to_string(),
        ]
    }));
    write_table(out, &rows)
}

/// As Go prints times in UTC; milliseconds where no calendar reaches.
pub(super) fn time(t: Timestamp) -> String {
    let text = |time: jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
    jiff::Timestamp::from_millisecond(t).map_or_else(|_| t.to_string(), text)
}

/// As Go prints durations: `2h0m0s`, `1.251s`, `5ms`.
pub(super) fn duration(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{sign}{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let fraction = format!("{:03}", ms % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{point}{fraction}s", ms / 1000 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
    }
}

/// As promtool prints sizes: `1KiB267B`.
pub(super) fn size(bytes: u64) -> String {
    let units = [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let part = |(unit, shift): (&str, u32)| match bytes >> shift & if shift == 60 { u64::MAX } else { 1023 } {
        0 => String::new(),
        number => format!("{number}{unit}"),
    };
    let text = units.map(part).concat();
    if text.is_empty() { "0B".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_durations_and_sizes_read_as_promtools() {
        assert_eq!(time(1_609_954_637_251), "2021-01-06 17:37:17 +0000 UTC");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
        let durations = [
            (0, "0s"),
            (5, "5ms"),
            (1251, "1.251s"),
            (60_000, "1m0s"),
            (7_200_000, "2h0m0s"),
            (-3_600_010, "-1h0m0.01s"),
        ];
        for (ms, text) in durations {
            assert_eq!(duration(ms), text);
        }
        for (bytes, text) in [
            (0, "0B"),
            (657, "657B"),
            (1291, "1KiB267B"),
            (3 << 30, "3GiB"),
            (u64::MAX, "15EiB1023PiB1023TiB1023GiB1023MiB1023KiB1023B"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn blocks_are_aligned_as_promtool_aligns_them() {
        let block = BlockInfo {
            id: "01M82TWWHEK5M5VM8CWDAQD6FK".to_owned(),
            min_time: 1_609_954_636_000,
            max_time: 1_609_954_637_251,
            samples: 6,
            chunks: 6,
            series: 6,
            size_bytes: 1291,
            level: 1,
            ..BlockInfo::default()
        };
        let text = |for_people| {
            let mut out = Vec::new();
            write_blocks(&mut out, std::slice::from_ref(&block), for_people).unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "\
BLOCK ULID                  MIN TIME       MAX TIME       DURATION     NUM SAMPLES  NUM CHUNKS   NUM SERIES   SIZE         LEVEL
01M82TWWHEK5M5VM8CWDAQD6FK  1609954636000  1609954637251  1.251s       6            6            6            1291         1
";
        assert_eq!(text(false), expected);
        let expected = "\
BLOCK ULID                  MIN TIME                       MAX TIME                       DURATION     NUM SAMPLES  NUM CHUNKS   NUM SERIES   SIZE         LEVEL
01M82TWWHEK5M5VM8CWDAQD6FK  2021-01-06 17:37:16 +0000 UTC  2021-01-06 17:37:17 +0000 UTC  1.251s       6            6            6            1KiB267B     1
";
        assert_eq!(text(true), expected);
    }
}
