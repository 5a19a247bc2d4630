//! `backupbot man DIR`: a manual page for each command, from the same words as `--help`, for who packs the program.

use crate::cli::{self, Man};
use crate::exit::{Exit, Failure};
use crate::files::shown;

pub fn man(arguments: &Man) -> Result<Exit, Failure> {
    clap_mangen::generate_to(cli::command(), &arguments.directory).map_err(|error| {
        Failure::io(format!("cannot write the manual pages into {}", shown(&arguments.directory)), error)
    })?;
    Ok(Exit::Done)
}
