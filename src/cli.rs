//! The command line: Prometheus' flags in Prometheus' spelling, ours beside them, and subcommands in the place of promtool.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    ValueEnum,
};

use crate::logging::{LogFormat, LogLevel};
use crate::tsdb_cmd::args::TsdbCommand;

/// Prometheus' flags that are known but have no effect here (yet), and whether they take a value. Unit files in the wild
/// set them, so they are accepted; using one logs a warning by name.
const WITHOUT_EFFECT: [(&str, bool); 38] = [
    ("alertmanager.drain-notification-queue-on-shutdown", false),
    ("alertmanager.notification-batch-size", true),
    ("alertmanager.notification-queue-capacity", true),
    ("auto-gomaxprocs", false),
    ("auto-gomemlimit", false),
    ("auto-gomemlimit.ratio", true),
    ("config.auto-reload", false),
    ("config.auto-reload-interval", true),
    ("no-auto-gomaxprocs", false),
    ("no-auto-gomemlimit", false),
    ("rules.max-concurrent-evals", true),
    ("scrape.adjust-timestamps", false),
    ("scrape.discovery-reload-interval", true),
    ("scrape.name-escaping-scheme", true),
    ("scrape.timestamp-tolerance", true),
    ("storage.agent.no-lockfile", false),
    ("storage.agent.path", true),
    ("storage.agent.retention.max-time", true),
    ("storage.agent.retention.min-time", true),
    ("storage.agent.wal-compression", false),
    ("storage.agent.wal-segment-size", true),
    ("storage.agent.wal-truncate-frequency", true),
    ("storage.remote.flush-deadline", true),
    ("storage.remote.read-concurrent-limit", true),
    ("storage.remote.read-max-bytes-in-frame", true),
    ("storage.remote.read-sample-limit", true),
    ("storage.tsdb.allow-overlapping-blocks", false),
    ("storage.tsdb.delay-compact-file.path", true),
    ("storage.tsdb.head-chunks-write-queue-size", true),
    ("storage.tsdb.max-block-chunk-segment-size", true),
    ("storage.tsdb.wal-compression-type", true),
    ("web.console.libraries", true),
    ("web.console.templates", true),
    ("web.enable-otlp-receiver", false),
    ("web.max-notifications-subscribers", true),
    ("web.remote-write-receiver.accepted-protobuf-messages", true),
    ("web.search.max-limit", true),
    ("web.user-assets", true),
];

/// Flags whose absence would be dangerous to overlook: using one ends the program.
const REFUSED: [(&str, &str); 2] = [
    ("agent", "there is no agent mode yet: rules would run and data would be stored"),
    ("web.config.file", "there is no TLS and no login yet: the server would be open"),
];

/// Whether something is on, off, or decided by the circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On when no configuration file is given, or where the configuration uses it.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Prometheus-compatible monitoring and alerting for message queues.
///
/// Without any argument: scrapes itself and the message brokers found on this machine's loopback, loads the built-in queue
/// rules, stores in ./data and serves the user interface on http://127.0.0.1:9090.
#[derive(Debug, Parser)]
#[command(name = "nilometer", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Subcommands>,
    /// How to serve
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Commands that end by themselves.
#[derive(Debug, Subcommand)]
pub(crate) enum Subcommands {
    /// Check files for mistakes
    Check {
        /// What to check
        #[command(subcommand)]
        what: Check,
        /// As the server would be started
        #[command(flatten)]
        args: CheckArgs,
    },
    /// Run tests
    Test {
        /// What to test
        #[command(subcommand)]
        what: Test,
    },
    /// Look into a data directory, or make blocks for it; a server may be running
    Tsdb {
        /// What to do
        #[command(subcommand)]
        what: TsdbCommand,
    },
}

/// What can be checked.
#[derive(Debug, Subcommand)]
pub(crate) enum Check {
    /// Configuration files and the rule files, scrape files and Alertmanager configuration they name
    Config {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Do not look into the files that the configuration names
        #[arg(long)]
        syntax_only: bool,
    },
    /// Rule files
    Rules {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Targets of a configuration: discover once and scrape once, and say what is found, kept, dropped and why
    Target {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only this job
        #[arg(long, value_name = "NAME")]
        job: Option<String>,
        /// Scrape only targets with this address, instance or URL
        #[arg(long, value_name = "ADDRESS")]
        target: Option<String>,
        /// How long discovery may take
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
        discovery_timeout: Duration,
    },
}

/// What can be tested.
#[derive(Debug, Subcommand)]
pub(crate) enum Test {
    /// PromQL scripts: load samples, evaluate, compare (the format of Prometheus' promqltest)
    Promql {
        /// The scripts
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Features to enable, separated by commas; all but type-and-unit-labels if not given
        #[arg(long = "enable-feature", value_name = "FEATURE", value_delimiter = ',')]
        enable_feature: Vec<String>,
    },
}

/// Flags of the server that decide what is right.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Expand ${VAR} in all values
    #[arg(long = "config.expand-env", global = true)]
    pub config_expand_env: bool,
    /// Alertmanager configuration file that goes with the configuration
    #[arg(long = "alertmanager.config.file", value_name = "FILE", global = true)]
    pub alertmanager_config_file: Option<PathBuf>,
    /// Features to enable, separated by commas
    #[arg(long = "enable-feature", value_name = "FEATURE", value_delimiter = ',', global = true)]
    pub enable_feature: Vec<String>,
}

/// Flags of the server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct ServeArgs {
    /// Configuration file (prometheus.yml); without it, built-in defaults
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Expand ${VAR} in all values of the configuration, not only where Prometheus does
    #[arg(long = "config.expand-env")]
    pub config_expand_env: bool,
    /// Alertmanager configuration file (alertmanager.yml) for the embedded Alertmanager
    #[arg(long = "alertmanager.config.file", value_name = "FILE")]
    pub alertmanager_config_file: Option<PathBuf>,
    /// Look for message brokers on loopback
    #[arg(long = "discovery.loopback", value_name = "WHEN", default_value = "auto")]
    pub discovery_loopback: Switch,
    /// Load the built-in queue rules
    #[arg(long = "rules.builtin", value_name = "WHEN", default_value = "auto")]
    pub rules_builtin: Switch,
    /// Features to enable, separated by commas
    #[arg(long = "enable-feature", value_name = "FEATURE", value_delimiter = ',')]
    pub enable_feature: Vec<String>,

    /// Directory of all data
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data/", help_heading = "Storage")]
    pub storage_path: PathBuf,
    /// How long samples are kept
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = duration, help_heading = "Storage")]
    pub retention_time: Option<Duration>,
    /// How many bytes are kept, of blocks, log and head together: the oldest blocks go first. Without a time beside it, samples
    /// of any age are kept
    #[arg(long = "storage.tsdb.retention.size", value_name = "SIZE", value_parser = size, help_heading = "Storage")]
    pub retention_size: Option<u64>,
    /// Span of time of a block as it is first written; the head is held in memory for up to one and a half of it
    #[arg(long = "storage.tsdb.min-block-duration", value_name = "DURATION", default_value = "2h", value_parser = positive_duration, help_heading = "Storage")]
    pub min_block_duration: Duration,
    /// Longest span of a block; by default a tenth of retention, 31 days at most
    #[arg(long = "storage.tsdb.max-block-duration", value_name = "DURATION", value_parser = positive_duration, help_heading = "Storage")]
    pub max_block_duration: Option<Duration>,
    /// Memory for parts of blocks that were read; 64MiB if not given
    #[arg(long = "storage.block-cache-size", value_name = "SIZE", value_parser = size, help_heading = "Storage")]
    pub block_cache_size: Option<u64>,
    /// Longest time between a commit and its fsync; 0s syncs before every acknowledgement
    #[arg(long = "storage.wal-fsync-interval", value_name = "DURATION", default_value = "1s", value_parser = duration, help_heading = "Storage")]
    pub wal_fsync_interval: Duration,
    /// Size at which a segment of the write-ahead log is closed
    #[arg(long = "storage.tsdb.wal-segment-size", value_name = "SIZE", value_parser = size, help_heading = "Storage")]
    pub wal_segment_size: Option<u64>,
    /// How often compaction looks whether something is to be done: for tests that want blocks soon
    #[arg(long = "storage.tsdb.compaction-interval", value_name = "DURATION", value_parser = positive_duration, hide = true, help_heading = "Storage")]
    pub compaction_interval: Option<Duration>,
    /// Size of the log after which a checkpoint is written: for tests that want many
    #[arg(long = "storage.tsdb.checkpoint-size", value_name = "SIZE", value_parser = size, hide = true, help_heading = "Storage")]
    pub checkpoint_size: Option<u64>,
    /// Compress the write-ahead log; it is unless --no-storage.tsdb.wal-compression is given
    #[arg(
        long = "storage.tsdb.wal-compression",
        overrides_with = "no_wal_compression",
        hide = true,
        help_heading = "Storage"
    )]
    pub wal_compression: bool,
    /// Do not compress the write-ahead log
    #[arg(long = "no-storage.tsdb.wal-compression", help_heading = "Storage")]
    pub no_wal_compression: bool,
    /// Do not lock the data directory
    #[arg(long = "storage.tsdb.no-lockfile", help_heading = "Storage")]
    pub no_lockfile: bool,

    /// Address to listen on; may be given several times
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = listen_address, help_heading = "Web")]
    pub listen: Vec<SocketAddr>,
    /// URL under which the server is reached from outside
    #[arg(long = "web.external-url", value_name = "URL", help_heading = "Web")]
    pub external_url: Option<String>,
    /// Prefix of all paths; by default the path of --web.external-url
    #[arg(long = "web.route-prefix", value_name = "PATH", help_heading = "Web")]
    pub route_prefix: Option<String>,
    /// Allow reload and stop over HTTP
    #[arg(long = "web.enable-lifecycle", help_heading = "Web")]
    pub enable_lifecycle: bool,
    /// Allow deletions and snapshots over HTTP (/api/v1/admin/tsdb/…)
    #[arg(long = "web.enable-admin-api", help_heading = "Web")]
    pub enable_admin_api: bool,
    /// Accept remote write on /api/v1/write
    #[arg(long = "web.enable-remote-write-receiver", help_heading = "Web")]
    pub enable_remote_write_receiver: bool,
    /// Origins that browsers may call from (regular expression, anchored)
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = ".*", help_heading = "Web")]
    pub cors_origin: String,
    /// Title of the user interface
    #[arg(long = "web.page-title", value_name = "TEXT", default_value = "Nilometer", help_heading = "Web")]
    pub page_title: String,
    /// Most connections at once
    #[arg(long = "web.max-connections", value_name = "N", default_value_t = 512, help_heading = "Web")]
    pub connections_max: usize,
    /// Longest time for reading a request
    #[arg(long = "web.read-timeout", value_name = "DURATION", default_value = "5m", value_parser = duration, help_heading = "Web")]
    pub read_timeout: Duration,

    /// Longest time of a query
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = duration, help_heading = "Queries and rules")]
    pub query_timeout: Duration,
    /// Most queries at once; more wait, and waiting counts for their time
    #[arg(
        long = "query.max-concurrency",
        value_name = "N",
        default_value_t = 20,
        help_heading = "Queries and rules"
    )]
    pub query_concurrency_max: usize,
    /// Most samples one query may load
    #[arg(
        long = "query.max-samples",
        value_name = "N",
        default_value_t = 50_000_000,
        help_heading = "Queries and rules"
    )]
    pub query_samples_max: usize,
    /// Most queries that wait; further ones are told to come later
    #[arg(
        long = "query.max-queue",
        value_name = "N",
        default_value_t = 256,
        help_heading = "Queries and rules"
    )]
    pub query_queue_max: u64,
    /// Most series one query may select; 0: no such bound
    #[arg(
        long = "query.max-series",
        value_name = "N",
        default_value_t = 0,
        help_heading = "Queries and rules"
    )]
    pub query_series_max: u64,
    /// Memory that all queries and their answers may hold together; by default a quarter of what the machine or its control
    /// group has
    #[arg(long = "query.max-memory", value_name = "SIZE", value_parser = size, help_heading = "Queries and rules")]
    pub query_memory_max: Option<u64>,
    /// Memory that one query may hold; by default half of --query.max-memory
    #[arg(long = "query.max-memory-per-query", value_name = "SIZE", value_parser = size, help_heading = "Queries and rules")]
    pub query_memory_each_max: Option<u64>,
    /// Queries that take as long, waiting included, are logged and listed in /api/v1/status/queries; 0s: all
    #[arg(long = "query.slow-log-threshold", value_name = "DURATION", default_value = "5s", value_parser = duration, help_heading = "Queries and rules")]
    pub slow_query_threshold: Duration,
    /// How far an instant selector looks back
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = duration, help_heading = "Queries and rules")]
    pub lookback_delta: Duration,
    /// Longest outage over which the `for` state of alerts is restored
    #[arg(long = "rules.alert.for-outage-tolerance", value_name = "DURATION", default_value = "1h", value_parser = duration, help_heading = "Queries and rules")]
    pub for_outage_tolerance: Duration,
    /// Least time that remains of a restored `for`; alerts with a shorter `for` are not restored
    #[arg(long = "rules.alert.for-grace-period", value_name = "DURATION", default_value = "10m", value_parser = duration, help_heading = "Queries and rules")]
    pub for_grace_period: Duration,
    /// Least time between two sendings of one alert
    #[arg(long = "rules.alert.resend-delay", value_name = "DURATION", default_value = "1m", value_parser = duration, help_heading = "Queries and rules")]
    pub resend_delay: Duration,

    /// Least severity that is logged
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", help_heading = "Log")]
    pub log_level: LogLevel,
    /// Form of the log
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt", help_heading = "Log")]
    pub log_format: LogFormat,
}

/// What the command line says, and what must be said about it.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The arguments.
    pub cli: Cli,
    /// Flags in force, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// Flags given that have no effect.
    pub without_effect: Vec<String>,
}

/// Reads the command line. Ends the process on mistakes and on `--help`, as clap does.
pub(crate) fn parse() -> Parsed {
    let matches = command().get_matches();
    parsed(&matches).unwrap_or_else(|error| error.exit())
}

/// The command with the flags that have no effect.
fn command() -> Command {
    let refused = REFUSED.iter().map(|(name, _)| (*name, *name != "agent"));
    WITHOUT_EFFECT.iter().copied().chain(refused).fold(Cli::command(), |command, (name, takes_value)| {
        let action = if takes_value { ArgAction::Append } else { ArgAction::SetTrue };
        command.arg(Arg::new(name).long(name).action(action).hide(true))
    })
}

fn parsed(matches: &ArgMatches) -> Result<Parsed, clap::Error> {
    let given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    if let Some((name, why)) = REFUSED.iter().find(|(name, _)| given(name)) {
        return Err(command().error(ErrorKind::InvalidValue, format!("--{name} is not supported yet: {why}")));
    }
    let without_effect = WITHOUT_EFFECT
        .iter()
        .filter(|(name, _)| matches.value_source(name) == Some(ValueSource::CommandLine))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    Ok(Parsed { cli: Cli::from_arg_matches(matches)?, flags: flags(matches), without_effect })
}

fn flags(matches: &ArgMatches) -> BTreeMap<String, String> {
    let command = command();
    let flag = |arg: &Arg| {
        let name = arg.get_long()?.to_owned();
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            return Some((name, matches.get_flag(arg.get_id().as_str()).to_string()));
        }
        let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        Some((name, values.join(",")))
    };
    command
        .get_arguments()
        .filter(|arg| arg.get_id() != "help" && arg.get_id() != "version")
        .filter_map(flag)
        .collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    model::duration::parse(text).map_err(|error| error.to_string())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|duration| {
        if duration.is_zero() { Err("it must be longer than zero".to_owned()) } else { Ok(duration) }
    })
}

fn size(text: &str) -> Result<u64, String> {
    model::config::ByteSize::parse(text).map(|size| size.0)
}

/// `host:port` or `:port`; an empty host listens on all IPv4 addresses.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("expected an address such as 127.0.0.1:9090: {error}"))?;
    found.next().ok_or_else(|| "the host has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_from(args: &[&str]) -> Result<Parsed, clap::Error> {
        parsed(&command().try_get_matches_from(["nilometer"].iter().chain(args))?)
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn prometheus_spellings_are_understood() {
        let parsed = parse_from(&[
            "--config.file=p.yml",
            "--storage.tsdb.path",
            "d",
            "--web.listen-address=:1",
            "--web.listen-address=localhost:2",
            "--storage.tsdb.min-block-duration=1h",
            "--storage.tsdb.retention.size=512MB",
            "--storage.tsdb.max-block-chunk-segment-size=512MB",
            "--storage.tsdb.wal-compression",
            "--enable-feature=a,b",
            "--enable-feature=c",
        ])
        .unwrap();
        let serve = &parsed.cli.serve;
        assert_eq!(serve.listen[0], "0.0.0.0:1".parse().unwrap());
        assert!(serve.listen[1].ip().is_loopback() && serve.listen[1].port() == 2);
        assert_eq!(serve.enable_feature, ["a", "b", "c"]);
        assert_eq!(parsed.without_effect, ["storage.tsdb.max-block-chunk-segment-size"]);
        assert_eq!(serve.min_block_duration, Duration::from_hours(1));
        assert_eq!(serve.retention_size, Some(512 << 20));
        assert!(!serve.no_wal_compression);
        assert_eq!(parsed.flags["query.timeout"], "2m");
        assert_eq!(parsed.flags["web.enable-lifecycle"], "false");
        assert_eq!(parsed.flags["config.file"], "p.yml");
    }

    #[test]
    fn mistakes_are_refused() {
        let refused = parse_from(&["--web.config.file=web.yml"]).unwrap_err().to_string();
        assert!(refused.contains("no TLS and no login"), "{refused}");
        for args in [
            &["--no-such-flag"][..],
            &["--query.timeout=5"],
            &["--storage.tsdb.min-block-duration=0s"],
            &["--web.listen-address=x"],
            &["check"],
        ] {
            assert!(parse_from(args).is_err(), "{args:?}");
        }
    }
}
