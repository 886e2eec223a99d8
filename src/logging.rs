//! The log: to standard error, as text or JSON, from a level on.

use clap::ValueEnum;
use model::Clock as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::SystemClock;

/// `--log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Requests and decisions.
    Debug,
    /// Lifecycle.
    Info,
    /// Degraded.
    Warn,
    /// Someone must act.
    Error,
}

/// `--log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Times in RFC 3339, UTC, milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let now = jiff::Timestamp::from_millisecond(SystemClock.now_ms()).unwrap_or_default();
        write!(w, "{now:.3}")
    }
}

/// Starts logging for the whole process.
pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // Libraries below us are told to be quiet unless something is wrong there.
    let quiet =
        ["hyper", "h2", "rustls", "sled", "hyper_util", "tokio_util"].map(|name| format!("{name}=warn"));
    let mut filter = EnvFilter::default().add_directive(level.into());
    for directive in quiet.iter().filter_map(|text| text.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(Utc);
    match format {
        LogFormat::Logfmt => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
}
