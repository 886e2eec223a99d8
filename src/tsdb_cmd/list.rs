//! `tsdb list`: the blocks of a data directory.

use std::io::Write;
use std::process::ExitCode;

use tsdb::inspect;

use super::args::ListArgs;
use super::{check_dir, files, say, table};

/// Prints the table. Blocks that cannot be read are named on standard error, and make the exit code 1.
pub(super) fn run(args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    check_dir(&args.dir)?;
    let mut blocks = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for entry in inspect::blocks(&*files(), &args.dir)? {
        match entry.info {
            Ok(info) => blocks.push(info),
            Err(error) => {
                say(&format!("error: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    table::write_blocks(out, &blocks, args.human_readable)?;
    Ok(code)
}
