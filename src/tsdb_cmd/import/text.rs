//! Reads OpenMetrics text of any length, piece by piece, into a [`Spool`].
//!
//! Pieces end at line breaks. A quoted name may hold a line break, so what cannot be read is tried again with more behind it
//! before it is an error.

use std::io::Read;

use anyhow::{Context as _, bail};
use hashbrown::HashMap;
use model::{Labels, MetricKind, Timestamp};
use scraper::exposition::{Entry, Format, ParseError, Parser, Series, SeriesLabels, decode_series};

use super::spool::Spool;
use crate::tsdb_cmd::progress::Progress;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Longest entry.
const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Most characters of a line in an error.
const EXCERPT_MAX: usize = 120;
/// First and last millisecond of the years 1 and 9999: what lies beyond is a mistake in the unit.
const TIMES: std::ops::RangeInclusive<Timestamp> = -62_135_596_800_000..=253_402_300_799_999;

/// What a file held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) samples: u64,
    /// Left out: blocks have no place for them.
    pub(super) exemplars: u64,
}

/// Reads all of `input`, which is called `source` in errors. `extra` labels are set on every series.
///
/// # Errors
/// With file and line, when the text breaks the format, does not end with `# EOF`, or has a sample without a timestamp.
pub(super) fn read(
    input: &mut dyn Read,
    source: &str,
    extra: &[(String, String)],
    spool: &mut Spool,
    progress: &Progress,
) -> anyhow::Result<Counts> {
    let mut window = Window { input, bytes: Vec::new(), start: 0, ended: false };
    let mut reader = TextReader {
        source,
        extra,
        spool,
        line: 1,
        kind: MetricKind::Unknown,
        texts: HashMap::new(),
        generation: 0,
        last: None,
        labels: SeriesLabels::default(),
        counts: Counts::default(),
    };
    let mut wanted = PIECE_BYTES;
    loop {
        window.fill(wanted).with_context(|| format!("cannot read {source}"))?;
        let piece = window.whole_lines();
        let (used, end) = reader.piece(piece, window.ended)?;
        progress.advance(used as u64);
        match end {
            PieceEnd::More => {
                // Without a line break there is nothing to read yet.
                wanted = if used == 0 { wanted * 2 } else { PIECE_BYTES };
                window.start += used;
            }
            PieceEnd::Eof => {
                window.start += used;
                window.fill(1).with_context(|| format!("cannot read {source}"))?;
                if window.start < window.bytes.len() {
                    bail!("{source}:{}: unexpected data after # EOF", reader.line);
                }
                return Ok(reader.counts);
            }
            PieceEnd::Stuck(error) if window.ended || wanted >= ENTRY_BYTES_MAX => {
                let ahead = window.bytes.get(window.start + used..window.start + error.offset);
                let line = reader.line + newlines(ahead.unwrap_or_default());
                bail!("{source}:{line}: {error}");
            }
            PieceEnd::Stuck(_) => {
                window.start += used;
                wanted = (window.bytes.len() - window.start + PIECE_BYTES).max(wanted * 2);
            }
        }
        if wanted > 2 * ENTRY_BYTES_MAX {
            bail!("{source}:{}: an entry is longer than {ENTRY_BYTES_MAX} bytes", reader.line);
        }
    }
}

/// The part of the input that is in memory.
struct Window<'a> {
    input: &'a mut dyn Read,
    bytes: Vec<u8>,
    /// What lies before is done with.
    start: usize,
    ended: bool,
}

impl Window<'_> {
    /// Reads until `wanted` bytes are there or the input ends.
    fn fill(&mut self, wanted: usize) -> std::io::Result<()> {
        self.bytes.drain(..self.start);
        self.start = 0;
        while !self.ended && self.bytes.len() < wanted {
            let missing = (wanted - self.bytes.len()) as u64;
            self.ended = (&mut *self.input).take(missing).read_to_end(&mut self.bytes)? == 0;
        }
        Ok(())
    }

    /// What can be read now: up to the last line break, or to the end of the input.
    fn whole_lines(&self) -> &[u8] {
        let end = if self.ended {
            self.bytes.len()
        } else {
            self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
        };
        &self.bytes[self.start..end]
    }
}

/// Why reading a piece stopped.
enum PieceEnd {
    /// It is used up.
    More,
    /// The mark of the end.
    Eof,
    /// The rest makes no sense, as far as it goes. The offset counts from where the rest begins.
    Stuck(ParseError),
}

struct TextReader<'a> {
    source: &'a str,
    extra: &'a [(String, String)],
    spool: &'a mut Spool,
    /// Where reading stands, counted from 1.
    line: u64,
    /// The type named last.
    kind: MetricKind,
    /// Numbers of series texts under the types that they stand behind, of one run of the spool.
    texts: HashMap<Vec<u8>, (MetricKind, u32)>,
    /// The run of the spool that `texts` and `last` are of.
    generation: u64,
    /// The series before: a dump has all samples of a series in a row.
    last: Option<(Vec<u8>, u32)>,
    labels: SeriesLabels,
    counts: Counts,
}

impl TextReader<'_> {
    /// Reads what it can. Answers how many bytes are done with, and why it stopped.
    fn piece(&mut self, piece: &[u8], ended: bool) -> anyhow::Result<(usize, PieceEnd)> {
        let mut parser = Parser::new(piece, Format::OpenMetrics);
        let mut done = 0;
        while ended || done < piece.len() {
            let entry = match parser.next() {
                None => return Ok((piece.len(), PieceEnd::Eof)),
                Some(Ok(entry)) => entry,
                Some(Err(mut error)) => {
                    error.offset = error.offset.saturating_sub(done);
                    return Ok((done, PieceEnd::Stuck(error)));
                }
            };
            match entry {
                Entry::Series(series) => self.sample(&series)?,
                Entry::Type { kind, .. } => {
                    self.kind = kind;
                    self.last = None;
                }
                Entry::Help { .. } | Entry::Unit { .. } | Entry::Comment => {}
            }
            let at = parser.position();
            self.line += newlines(&piece[done..at]);
            done = at;
        }
        Ok((done, PieceEnd::More))
    }

    fn sample(&mut self, series: &Series<'_>) -> anyhow::Result<()> {
        let (source, line) = (self.source, self.line);
        let Some(t) = series.sample.t else {
            bail!("{source}:{line}: expected a timestamp behind the value of {}", excerpt(series.text));
        };
        if !TIMES.contains(&t) {
            bail!(
                "{source}:{line}: timestamp {} of {} is not within the years 1 to 9999: it must be in seconds",
                t / 1000,
                excerpt(series.text)
            );
        }
        let number = match &self.last {
            Some((text, number)) if text == series.text && self.generation == self.spool.generation() => {
                *number
            }
            _ => self.number(series.text)?,
        };
        self.counts.samples += 1;
        self.counts.exemplars += u64::from(series.sample.exemplar.is_some());
        self.spool.push(number, t, series.sample.value).context("cannot write the temporary file")
    }

    /// The series of this text in the spool's run.
    fn number(&mut self, text: &[u8]) -> anyhow::Result<u32> {
        if self.generation != self.spool.generation() {
            self.generation = self.spool.generation();
            self.texts.clear();
        }
        let number = match self.texts.get(text) {
            Some((kind, number)) if *kind == self.kind => *number,
            _ => {
                decode_series(text, self.kind, &mut self.labels)
                    .with_context(|| format!("{}:{}", self.source, self.line))?;
                let mut labels = self.labels.to_labels();
                for (name, value) in self.extra {
                    labels = labels.with(name, value);
                }
                self.intern(text, labels)
            }
        };
        self.last = Some((text.to_vec(), number));
        Ok(number)
    }

    fn intern(&mut self, text: &[u8], labels: Labels) -> u32 {
        let number = self.spool.series(labels);
        self.spool.account(text.len() + size_of::<(Vec<u8>, MetricKind, u32)>());
        self.texts.insert(text.to_vec(), (self.kind, number));
        number
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_MS: i64 = 7_200_000;

    /// Hands out a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn read_all(text: &[u8], budget: usize) -> Result<(Counts, Vec<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), WINDOW_MS, budget).unwrap();
        let progress = Progress::bytes("test", None);
        let extra = [("job".to_owned(), "x".to_owned())];
        let counts = read(&mut Drip(text, 7), "f.om", &extra, &mut spool, &progress)
            .map_err(|error| format!("{error:#}"))?;
        let merge = spool.finish().unwrap();
        let mut out = Vec::new();
        for window in merge.windows().collect::<Vec<_>>() {
            merge
                .series(window, |labels, times, values| {
                    out.push(format!("{window} {labels} {times:?} {values:?}"));
                    Ok(())
                })
                .unwrap();
        }
        Ok((counts, out))
    }

    #[test]
    fn samples_come_out_by_window_and_series() {
        let text = b"# HELP a \xc3\xa9\n# TYPE a counter\na_total{b=\"1\"} 5 7201 # {id=\"x\"} 1 2\na_total 1 7199.5\n\
            # TYPE h histogram\nh_bucket{le=\"1\"} 3 1\nh_bucket{le=\"1.0\"} 4 2\n{\"odd\nname\"} NaN -1\n\
            a_total 2 0\nh_bucket{le=\"1\"} 3 7199.999\n# EOF\n";
        for budget in [1, 1 << 20] {
            let (counts, out) = read_all(text, budget).unwrap();
            assert_eq!(counts, Counts { samples: 7, exemplars: 1 });
            assert_eq!(
                out,
                [
                    r#"-1 {__name__="odd\nname", job="x"} [-1000] [NaN]"#,
                    r#"0 {__name__="a_total", job="x"} [7199500, 0] [1.0, 2.0]"#,
                    r#"0 {__name__="h_bucket", job="x", le="1.0"} [1000, 2000, 7199999] [3.0, 4.0, 3.0]"#,
                    r#"1 {__name__="a_total", b="1", job="x"} [7201000] [5.0]"#,
                ]
            );
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let cases: [(&[u8], &str); 9] = [
            (b"a 1 1\na 2 2\n", "f.om:3: data does not end with # EOF"),
            (b"", "f.om:1: data does not end with # EOF"),
            (b"a 1 1\n# EOF\nb 1 1\n", "f.om:2: unexpected data after # EOF"),
            (b"a 1 1\nb{c=\"d\"} 1\n# EOF\n", "f.om:2: expected a timestamp behind the value of b{c=\"d\"}"),
            (
                b"a 1 1\n\n# EOF\n",
                "f.om:2: expected a valid start token, got \"\\n\" (\"INVALID\") while parsing: \"\\n\"",
            ),
            (
                b"a 1 1\na{ 1 2\n# EOF\n",
                "f.om:2: expected label name, got \" \" (\"INVALID\") while parsing: \"a{ \"",
            ),
            (b"a{b=\"1\",b=\"2\"} 1 1\n# EOF\n", "f.om:1: label name \"b\" is not unique: invalid sample"),
            (
                b"a 1 1609954636000\n# EOF\n",
                "f.om:1: timestamp 1609954636000 of a is not within the years 1 to 9999: it must be in seconds",
            ),
            (
                b"a 1 1",
                "f.om:1: expected next entry after timestamp, got \"\" (\"INVALID\") while parsing: \"a 1 1\"",
            ),
        ];
        for (text, error) in cases {
            assert_eq!(read_all(text, 1 << 20), Err(error.to_owned()), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn an_endless_line_is_refused_in_bounded_memory() {
        let text = [b"a 1 1\na{b=\"".as_slice(), &vec![b'x'; 4 * ENTRY_BYTES_MAX]].concat();
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), WINDOW_MS, 1 << 20).unwrap();
        let mut input = text.as_slice();
        let error = read(&mut input, "f", &[], &mut spool, &Progress::bytes("test", None)).unwrap_err();
        assert_eq!(error.to_string(), "f:2: an entry is longer than 4194304 bytes");
        assert!(!input.is_empty(), "not all of it was read");
    }
}
