//! `backupbot completions SHELL`: the completion script for a shell.

use crate::cli::{self, Completions};
use crate::exit::{Exit, Failure};
use crate::output;

pub fn completions(arguments: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut cli::command(), "backupbot", &mut script);
    output::answer(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
