//! Arguments of `nilometer tsdb …`: promtool's spellings where promtool has the command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use model::labels::is_legacy_label_name;

/// Where data are by default: where the server has them by default.
const DIR: &str = "data/";

/// Commands on a data directory.
#[derive(Debug, Subcommand)]
pub(crate) enum TsdbCommand {
    /// List the blocks
    List(ListArgs),
    /// Tell what takes the space: cardinality, churn, bytes for each sample
    Analyze(AnalyzeArgs),
    /// Print all samples
    Dump(DumpArgs),
    /// Print all samples as OpenMetrics text, without native histograms and staleness markers
    DumpOpenmetrics(SelectArgs),
    /// Read every byte of every file and name all damage
    Verify(VerifyArgs),
    /// Make blocks of samples from a file
    Import(ImportArgs),
    /// Make blocks of samples from elsewhere (promtool's spelling of import)
    CreateBlocksFrom {
        /// From what
        #[command(subcommand)]
        source: BlockSource,
    },
}

/// What blocks can be made of, in promtool's spelling.
#[derive(Debug, Subcommand)]
pub(crate) enum BlockSource {
    /// A file of OpenMetrics text with timestamps
    Openmetrics {
        /// The file; - is standard input
        #[arg(value_name = "INPUT")]
        input: PathBuf,
        /// Data directory that the blocks go to
        #[arg(value_name = "DIR", default_value = DIR)]
        dir: PathBuf,
        /// How to import
        #[command(flatten)]
        options: ImportOptions,
    },
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Times and sizes for people
    #[arg(short = 'r', long)]
    pub human_readable: bool,
    /// Data directory
    #[arg(value_name = "DIR", default_value = DIR)]
    pub dir: PathBuf,
}

/// Arguments of `analyze`.
#[derive(Args, Debug)]
pub(crate) struct AnalyzeArgs {
    /// Entries of each list
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Series selector: look at these only
    #[arg(long = "match", value_name = "SELECTOR")]
    pub matcher: Option<String>,
    /// Draw the sizes of chunks too, by kind
    #[arg(long)]
    pub extended: bool,
    /// Data directory
    #[arg(value_name = "DIR", default_value = DIR)]
    pub dir: PathBuf,
    /// Block to look at, or "all": everything stored, that which is in no block yet included. By default the last block
    /// (everything when there is none)
    #[arg(value_name = "BLOCK")]
    pub block: Option<String>,
}

/// What to print.
#[derive(Args, Debug)]
pub(crate) struct SelectArgs {
    /// Earliest time, in milliseconds since 1970
    #[arg(long, value_name = "MS", default_value_t = i64::MIN, hide_default_value = true, allow_hyphen_values = true)]
    pub min_time: i64,
    /// Latest time, in milliseconds since 1970
    #[arg(long, value_name = "MS", default_value_t = i64::MAX, hide_default_value = true, allow_hyphen_values = true)]
    pub max_time: i64,
    /// Series selector; may be given several times. All series by default
    #[arg(long = "match", value_name = "SELECTOR")]
    pub matchers: Vec<String>,
    /// Data directory
    #[arg(value_name = "DIR", default_value = DIR)]
    pub dir: PathBuf,
}

/// Arguments of `dump`.
#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "prom")]
    pub format: DumpFormat,
    /// What to print
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Forms of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpFormat {
    /// As promtool prints: labels, value, milliseconds
    Prom,
    /// OpenMetrics text, which can be imported again
    Openmetrics,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Data directory
    #[arg(value_name = "DIR", default_value = DIR)]
    pub dir: PathBuf,
}

/// Arguments of `import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// OpenMetrics text with a timestamp on every sample; - is standard input
    #[arg(long, value_name = "FILE")]
    pub from_openmetrics: PathBuf,
    /// Data directory that the blocks go to; a server may be running on it
    #[arg(value_name = "DIR", default_value = DIR)]
    pub dir: PathBuf,
    /// How to import
    #[command(flatten)]
    pub options: ImportOptions,
}

/// How to import.
#[derive(Args, Debug)]
pub(crate) struct ImportOptions {
    /// Longest time in one block: 2h, 6h, 18h, and so on are used
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = block_duration)]
    pub max_block_duration: Duration,
    /// Label to set on every series; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Times and sizes for people
    #[arg(short = 'r', long)]
    pub human_readable: bool,
    /// Do not print the blocks
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

fn block_duration(text: &str) -> Result<Duration, String> {
    let duration = model::duration::parse(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_hours(2) {
        return Err("blocks span two hours at least".to_owned());
    }
    Ok(duration)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if !is_legacy_label_name(name) {
        return Err(format!("{name:?} is no label name"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
