//! `backupbot man DIR`: a manual page for each command, from the same words as `--help`, for who packs the program.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;

use crate::cli::{self, Man};
use crate::exit::{Exit, Failure};
use crate::files::shown;

pub fn man(arguments: &Man) -> Result<Exit, Failure> {
    let mut command = cli::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, &arguments.directory).map_err(|error| {
        Failure::io(format!("cannot write the manual pages into {}", shown(&arguments.directory)), error)
    })?;
    Ok(Exit::Done)
}

fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), with_title(&String::from_utf8_lossy(&page), name))
}

/// The page with a title line of ours: clap_mangen leaves an empty date out, so that what stands behind it counts as the date. There
/// is none, because the same commit gives the same pages.
fn with_title(page: &str, name: &str) -> String {
    let title = format!(r#".TH "{name}" "1" "" "BackupBot {}" "BackupBot""#, env!("CARGO_PKG_VERSION"));
    let lines = page.lines().map(|line| if line.starts_with(".TH ") { &title } else { line.trim_end() });
    lines.flat_map(|line| [line, "\n"]).collect()
}
