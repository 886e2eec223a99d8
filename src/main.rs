//! `nilometer`: the command line, the configuration file, wiring, signals and reload; nothing else.
//!
//! The engines live in their own crates and know neither each other nor this one. [`serve`] reads like a list of what
//! runs; the exit code is decided here and only here.
#![forbid(unsafe_code)]

mod active_queries;
mod alert_relay;
mod check;
mod check_target;
mod cli;
mod clock;
mod compactor;
mod config;
mod log_file;
mod logging;
mod machine;
mod process_metrics;
mod promql_test;
mod reload;
mod rule_engine;
mod serve;
mod tsdb_cmd;

use std::process::ExitCode;

use cli::{Check, Subcommands, Test};

/// The store and the queries allocate by the million from many threads, and columns of rows grow for an hour: what matters is
/// how much is lost to gaps (`docs/architecture.md` has the figures).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code when the configuration is refused at start (Prometheus' own).
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let parsed = cli::parse();
    match &parsed.cli.command {
        Some(Subcommands::Check { what, args }) => {
            // Warnings of the checks themselves go to their output; what libraries log goes to standard error. Of discovery
            // that is all there is to learn why it found nothing.
            let level = match what {
                Check::Target { .. } => logging::LogLevel::Warn,
                _ => logging::LogLevel::Error,
            };
            logging::start(level, logging::LogFormat::Logfmt);
            match what {
                Check::Config { files, syntax_only } => check::configs(files, *syntax_only, args),
                Check::Rules { files } => check::rules(files, args),
                Check::Target { file, job, target, discovery_timeout } => {
                    let wanted = check_target::Wanted {
                        job: job.as_deref(),
                        target: target.clone(),
                        discovery_wait: *discovery_timeout,
                    };
                    check_target::run(file, wanted, args)
                }
            }
        }
        Some(Subcommands::Test { what: Test::Promql { files, enable_feature } }) => {
            logging::start(logging::LogLevel::Warn, logging::LogFormat::Logfmt);
            promql_test::run(files, enable_feature)
        }
        // Nothing is logged: these commands say themselves what there is to say.
        Some(Subcommands::Tsdb { what }) => tsdb_cmd::run(what),
        None => {
            logging::start(parsed.cli.serve.log_level, parsed.cli.serve.log_format);
            match serve::run(&parsed) {
                Ok(()) => ExitCode::SUCCESS,
                Err(serve::ServeError::Config(errors)) => {
                    for error in &errors {
                        tracing::error!("{error}");
                    }
                    ExitCode::from(EXIT_CONFIG)
                }
                Err(serve::ServeError::Other(error)) => {
                    tracing::error!("{error:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
