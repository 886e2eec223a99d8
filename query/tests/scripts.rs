//! PromQL scripts: our own in `testdata/`, and any others on demand.

use std::fs;
use std::path::{Path, PathBuf};

use query::exec::Engine;
use query::script;

fn scripts(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    files
}

/// Every case of our own scripts passes.
#[test]
fn own_scripts_pass() {
    let engine = Engine::new(script::engine_options());
    let files = scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    assert!(!files.is_empty(), "there are scripts");
    let mut failures = Vec::new();
    for file in files {
        let report = script::run(&fs::read_to_string(&file).unwrap(), &engine)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(report.passed > 0, "{}: no case passed", file.display());
        failures.extend(report.failures.iter().map(|failure| format!("{}: {failure}", file.display())));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Plays the scripts in the folder `NM_PROMQLTEST` and prints how many cases of each pass; a measure, not a gate.
#[test]
fn scripts_of_a_folder_are_measured() {
    let Some(dir) = std::env::var_os("NM_PROMQLTEST") else { return };
    let verbose = std::env::var_os("NM_VERBOSE").is_some();
    let only = std::env::var("NM_ONLY").unwrap_or_default();
    let engine = Engine::new(script::engine_options());
    let (mut passed, mut failed) = (0, 0);
    for file in scripts(Path::new(&dir)) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        match script::run(&fs::read_to_string(&file).unwrap(), &engine) {
            Ok(report) => {
                println!("{name}: {}/{}", report.passed, report.passed + report.failures.len());
                passed += report.passed;
                failed += report.failures.len();
                if verbose {
                    report.failures.iter().for_each(|failure| println!("  {name}: {failure}"));
                }
            }
            Err(error) => println!("{name}: {error}"),
        }
    }
    println!("{passed} passed, {failed} failed");
}
