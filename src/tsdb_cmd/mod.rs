//! `nilometer tsdb …`: looking into data directories, and making blocks.
//!
//! Results go to standard output, all else (errors, warnings, progress) to standard error. The exit code is 1 when something
//! failed or `verify` found damage. None of it takes the lock of the directory: a server may be running.

mod analyze;
pub(crate) mod args;
mod dump;
mod import;
mod list;
mod progress;
mod table;
mod verify;

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use model::{Clock, Matcher};
use tsdb::fs::{FileSystem, RealFs};
use tsdb::inspect::{self, ReadOnly};

use crate::clock::SystemClock;
use args::{BlockSource, DumpFormat, TsdbCommand};

/// Runs a command to its end.
pub(crate) fn run(command: &TsdbCommand) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = match command {
        TsdbCommand::List(args) => list::run(args, &mut out),
        TsdbCommand::Analyze(args) => analyze::run(args, &mut out),
        TsdbCommand::Dump(args) => dump::run(&args.select, args.format, &mut out),
        TsdbCommand::DumpOpenmetrics(args) => dump::run(args, DumpFormat::Openmetrics, &mut out),
        TsdbCommand::Verify(args) => verify::run(args, &mut out),
        TsdbCommand::Import(args) => import::run(&args.from_openmetrics, &args.dir, &args.options, &mut out),
        TsdbCommand::CreateBlocksFrom { source: BlockSource::Openmetrics { input, dir, options } } => {
            import::run(input, dir, options, &mut out)
        }
    };
    match done.and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => code,
        // Whoever read has seen enough (`… | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A line for people, beside the output.
fn say(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A number and what it counts.
fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The files of this machine.
fn files() -> Arc<dyn FileSystem> {
    Arc::new(RealFs)
}

/// Refuses what is no directory, in words of its own.
fn check_dir(dir: &Path) -> anyhow::Result<()> {
    let found = std::fs::metadata(dir).with_context(|| format!("{}", dir.display()))?;
    ensure!(found.is_dir(), "{}: not a directory", dir.display());
    Ok(())
}

/// The whole store, as it is now; says what damage has taken.
fn open(dir: &Path) -> anyhow::Result<ReadOnly> {
    check_dir(dir)?;
    let store = inspect::open(&files(), dir, &(Arc::new(SystemClock) as Arc<dyn Clock>))?;
    if store.damage > 0 {
        say(&format!(
            "warning: {}: {}: this is what could be read (`nilometer tsdb verify` says more)",
            dir.display(),
            counted(store.damage, "damaged place")
        ));
    }
    Ok(store)
}

/// A selector given on the command line.
fn selector(text: &str) -> anyhow::Result<Vec<Matcher>> {
    query::parse::parse_selector(text).map_err(|error| anyhow::anyhow!("--match={text}: {error}"))
}
