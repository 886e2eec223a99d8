//! `tsdb import`: blocks of the samples in a file of OpenMetrics text.
//!
//! The text is read once, sorted by windows of time and series in bounded memory ([`spool`]), and written as a block for each
//! window. Nothing appears before the whole text was found to be right.

mod spool;
mod text;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use model::Clock as _;
use model::storage::BlockInfo;
use tsdb::inspect::import::NewBlock;

use self::spool::{Merge, Spool};
use super::args::ImportOptions;
use super::progress::Progress;
use super::{counted, files, say, table};
use crate::clock::SystemClock;

/// Memory for sorting.
const RUN_BYTES: usize = 64 << 20;
/// Most blocks of one import: each is a directory with open files for a server.
const BLOCKS_MAX: usize = 50_000;
/// The shortest block.
const BLOCK_MS: i64 = 2 * 3600 * 1000;

/// Makes blocks in `dir` and prints them.
pub(super) fn run(
    input: &Path,
    dir: &Path,
    options: &ImportOptions,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let source = input.display().to_string();
    let is_stdin = input.as_os_str() == "-";
    let (mut text, len): (Box<dyn Read>, _) = if is_stdin {
        (Box::new(io::stdin().lock()), None)
    } else {
        let file = File::open(input).with_context(|| format!("cannot open {source}"))?;
        let found = file.metadata().with_context(|| format!("cannot read {source}"))?;
        (Box::new(file), found.is_file().then_some(found.len()))
    };
    let source = if is_stdin { "standard input" } else { &source };
    files().create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut spool = Spool::new(dir, block_ms(options.max_block_duration), RUN_BYTES)
        .with_context(|| format!("cannot make a temporary file in {}", dir.display()))?;
    let progress = Progress::bytes("reading", len);
    let counts = text::read(&mut *text, source, &options.labels, &mut spool, &progress)?;
    drop(progress);
    let merge =
        spool.finish().with_context(|| format!("cannot write a temporary file in {}", dir.display()))?;
    let windows = merge.windows().len();
    if windows > BLOCKS_MAX {
        bail!("{source}: its samples would make {windows} blocks: give a longer --max-block-duration");
    }
    let mut blocks = Vec::with_capacity(windows);
    let written = write(&merge, dir, &mut blocks);
    if !options.quiet {
        table::write_blocks(out, &blocks, options.human_readable)?;
    }
    let duplicates = written.with_context(|| {
        format!("{} of {} blocks are made; doing it all again is safe", blocks.len(), windows)
    })?;
    let samples = blocks.iter().map(|block| block.samples).sum();
    say(&format!("imported {} into {}", counted(samples, "sample"), counted(blocks.len() as u64, "block")));
    if counts.exemplars > 0 {
        say(&format!("note: blocks have no place for {}: left out", counted(counts.exemplars, "exemplar")));
    }
    if duplicates > 0 {
        let what = counted(duplicates, "sample");
        say(&format!(
            "note: {what} at a time that their series had already: the first one in the file is kept"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A block for each window. Answers how many samples were left out because their series had one at that time.
fn write(merge: &Merge, dir: &Path, blocks: &mut Vec<BlockInfo>) -> anyhow::Result<u64> {
    let fs = files();
    let progress = Progress::count("writing blocks", merge.windows().len() as u64);
    let mut duplicates = 0;
    for window in merge.windows() {
        let mut block = NewBlock::begin(&fs, dir, SystemClock.now_ms(), rand::random())?;
        merge.series(window, |labels, times, values| Ok(block.add(labels, times, values)?))?;
        duplicates += block.duplicates();
        blocks.extend(block.finish()?);
        progress.advance(1);
    }
    Ok(duplicates)
}

/// The longest of 2h, 6h, 18h, … that is not longer than `longest`: compaction knows these lengths.
fn block_ms(longest: Duration) -> i64 {
    let longest = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
    let lengths = std::iter::successors(Some(BLOCK_MS), |length| length.checked_mul(3));
    lengths.take_while(|length| *length <= longest).last().unwrap_or(BLOCK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_lengths_that_compaction_knows() {
        let hours = |longest: u64| block_ms(Duration::from_hours(longest)) / 3_600_000;
        let lengths = [(0, 2), (2, 2), (5, 2), (6, 6), (24, 18), (24 * 31, 486)];
        for (longest, length) in lengths {
            assert_eq!(hours(longest), length, "{longest}");
        }
        assert!(block_ms(Duration::MAX) > 0);
    }
}
