//! `tsdb verify`: reads every byte and names all damage; when all checksums are right, the store is read as a start reads it,
//! which tells whether the files fit each other.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use model::Clock;
use model::storage::StorageError;
use tsdb::fs::FileSystem;
use tsdb::inspect::{self, Damage};

use super::args::VerifyArgs;
use super::progress::Progress;
use super::{check_dir, counted, files};
use crate::clock::SystemClock;

/// Prints damage, remarks and a summary. Exit code 1 when there is damage.
pub(super) fn run(args: &VerifyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    check_dir(&args.dir)?;
    let fs = files();
    let progress = Progress::bytes("verifying", Some(inspect::total_bytes(&*fs, &args.dir)?));
    let mut report = inspect::verify(&fs, &args.dir, &mut |path, bytes| {
        progress.advance(bytes);
        progress.say(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    })?;
    if report.damage.is_empty() {
        progress.say("reading as a start does".to_owned());
        report.damage.extend(start(&fs, &args.dir)?);
    }
    drop(progress);
    for (path, what) in &report.notes {
        writeln!(out, "{}: note: {what}", path.display())?;
    }
    for damage in &report.damage {
        writeln!(out, "{damage}")?;
    }
    let files = counted(report.files, "file");
    let verdict = match report.damage.len() {
        0 => "no damage".to_owned(),
        many => counted(many as u64, "damaged place"),
    };
    writeln!(out, "{files}, {}: {verdict}", counted(report.bytes, "byte"))?;
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a start would find that no checksum tells: files that contradict each other.
fn start(fs: &Arc<dyn FileSystem>, dir: &Path) -> anyhow::Result<Option<Damage>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let damage = |file, offset, what| Some(Damage { file, offset, what });
    match inspect::open(fs, dir, &clock) {
        Ok(store) if store.damage == 0 => Ok(None),
        Ok(store) => {
            let what = format!("{} entries of its files rest on others that are not there", store.damage);
            Ok(damage(dir.to_owned(), 0, what))
        }
        Err(StorageError::Corrupted { file, offset, what }) => Ok(damage(file, offset, what)),
        Err(error) => Err(error.into()),
    }
}
