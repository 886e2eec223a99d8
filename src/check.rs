//! `nilometer check …`: says what is wrong, file by file; exit code 1 when something is.
#![expect(clippy::print_stdout, reason = "the result of a check is its output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use query::rules::RuleFileContext;

use crate::cli::{CheckArgs, Switch};
use crate::clock::SystemClock;
use crate::config::{FileError, LoadRequest, check_rule_file, load};
use crate::serve::{Features, collectors};

/// `check config FILE…`
pub(crate) fn configs(files: &[PathBuf], syntax_only: bool, args: &CheckArgs) -> ExitCode {
    let results = files.iter().map(|file| {
        let request = request(file, !syntax_only, args);
        let summary = load(&request).map(|config| {
            let jobs = config.scrape_configs.len();
            let rules: usize = config.rules.iter().map(|group| group.rules.len()).sum();
            let warnings =
                config.warnings.iter().map(|text| format!("  warning: {text}\n")).collect::<String>();
            format!("{jobs} scrape jobs, {rules} rules\n{warnings}")
        });
        (file, summary)
    });
    report(results)
}

/// How a configuration is loaded that is only looked at.
pub(crate) fn request(file: &Path, follow_files: bool, args: &CheckArgs) -> LoadRequest {
    let features = Features::new(&args.enable_feature);
    LoadRequest {
        file: Some(file.to_owned()),
        alertmanager_file: args.alertmanager_config_file.clone(),
        expand_env: args.config_expand_env,
        follow_files,
        strict: true,
        builtin_rules: Switch::Auto,
        collectors: collectors(),
        clock: Arc::new(SystemClock),
        parse_options: features.parse,
        start_times: features.start_times,
        own_address: String::new(),
    }
}

/// `check rules FILE…`
pub(crate) fn rules(files: &[PathBuf], args: &CheckArgs) -> ExitCode {
    let context = RuleFileContext {
        file: String::new(),
        evaluation_interval: Duration::from_secs(60),
        query_offset: Duration::ZERO,
        parse_options: Features::new(&args.enable_feature).parse,
    };
    let results = files.iter().map(|file| {
        let groups = check_rule_file(file, &context);
        let summary = groups.map(|groups| {
            let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
            format!("{} groups, {rules} rules\n", groups.len())
        });
        (file, summary)
    });
    report(results)
}

fn report<'a>(results: impl Iterator<Item = (&'a PathBuf, Result<String, Vec<FileError>>)>) -> ExitCode {
    let mut failed = false;
    for (file, result) in results {
        match result {
            Ok(summary) => print!("{}: OK, {summary}", file.display()),
            Err(errors) => {
                failed = true;
                println!("{}: FAILED", file.display());
                for error in errors {
                    println!("  {error}");
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
