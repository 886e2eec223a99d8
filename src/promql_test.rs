//! `nilometer test promql FILE…`: plays PromQL scripts in process and shows what came out differently; exit code 1 when
//! something did, or when a script cannot be read.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use query::exec::{Engine, EngineOptions};
use query::script::{self, ScriptFailure};

use crate::serve::Features;

/// `test promql FILE…`; without `features` all are on that change nothing in what scripts expect.
pub(crate) fn run(files: &[PathBuf], features: &[String]) -> ExitCode {
    let options = if features.is_empty() {
        script::engine_options()
    } else {
        let Features { parse, eval, .. } = Features::new(features);
        EngineOptions { parse, features: eval, ..script::engine_options() }
    };
    let engine = Engine::new(options);
    let (mut passed, mut failed, mut unread) = (0, 0, 0);
    let mut out = io::stdout().lock();
    for file in files {
        let name = file.display().to_string();
        let text = match play(&name, file, &engine) {
            Ok((text, cases)) => {
                passed += cases.0;
                failed += cases.1;
                text
            }
            Err(message) => {
                unread += 1;
                format!("{name}: FAILED\n{message}")
            }
        };
        // Whoever read has seen enough (`… | head`); the exit code tells all the same.
        let _ = out.write_all(text.as_bytes());
    }
    let unread_text = if unread == 0 { String::new() } else { format!(", {unread} files not run") };
    let _ = writeln!(out, "{passed} passed, {failed} failed{unread_text}");
    if failed == 0 && unread == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The report of a file, and how many of its cases passed and failed.
fn play(name: &str, file: &PathBuf, engine: &Engine) -> Result<(String, (usize, usize)), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("  {error}\n"))?;
    let report = script::run(&text, engine)
        .map_err(|error| format!("  {name}:{}: {}\n", error.line, error.message))?;
    let failures = report.failures.len();
    let mut out = format!("{name}: {}/{}\n", report.passed, report.passed + failures);
    report.failures.iter().for_each(|failure| show(name, failure, &mut out));
    Ok((out, (report.passed, failures)))
}

fn show(name: &str, failure: &ScriptFailure, out: &mut String) {
    let ScriptFailure { line, expr, message, diff, .. } = failure;
    // Writing to a string does not fail.
    let _ = writeln!(out, "FAIL {name}:{line}: {expr}\n  {message}");
    if !diff.is_empty() {
        let _ = writeln!(out, "  - expected, + got:");
        diff.iter().for_each(|line| {
            let _ = writeln!(out, "    {line}");
        });
    }
}
