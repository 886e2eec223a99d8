//! `tsdb verify`: reads every byte and names all damage.

use std::io::Write;
use std::process::ExitCode;

use tsdb::inspect;

use super::args::VerifyArgs;
use super::progress::Progress;
use super::{check_dir, files};

/// Prints damage, remarks and a summary. Exit code 1 when there is damage.
pub(super) fn run(args: &VerifyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    check_dir(&args.dir)?;
    let fs = files();
    let progress = Progress::bytes("verifying", Some(inspect::total_bytes(&*fs, &args.dir)?));
    let report = inspect::verify(&fs, &args.dir, &mut |path, bytes| {
        progress.advance(bytes);
        progress.say(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    })?;
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
        1 => "1 damaged place".to_owned(),
        many => format!("{many} damaged places"),
    };
    writeln!(out, "{files}, {}: {verdict}", counted(report.bytes, "byte"))?;
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A number and what it counts.
pub(super) fn counted(number: u64, what: &str) -> String {
    let plural = match (number, what) {
        (1, _) | (_, "series") => "",
        _ => "s",
    };
    format!("{number} {what}{plural}")
}
