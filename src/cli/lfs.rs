//! The arguments of `lfs`.

use std::time::Duration;

use backupbot_core::verify::Sample;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};

use crate::spans;

/// Arguments of `lfs`.
#[derive(Debug, Clone, Args)]
pub struct Lfs {
    /// What to do.
    #[command(subcommand)]
    pub command: LfsCommand,
}

/// What to do with large files.
#[derive(Debug, Clone, Subcommand)]
pub enum LfsCommand {
    /// Say how full each remote is, when it will be full, and what fills it
    ///
    /// With a daemon its numbers are shown, which are those of the remotes' hosts where they can be asked. What is in the history
    /// stays at the remotes: nothing that is done here frees room there.
    Usage(Usage),
    /// Remove here the large contents that every remote has, once they are older than `lfs.keep_local`
    ///
    /// Every remote is asked now whether it has them; if one cannot be asked, nothing is removed. A running daemon does the same
    /// every day. They come back from a remote when they are needed.
    Prune(Prune),
    /// Ask each remote whether it still has every large content, bring it what it lost, and read some
    ///
    /// What is damaged in a directory or here is replaced by a good copy. Exits with 3 and names what could not be put right.
    /// A running daemon does the same on schedule.
    Scrub(Scrub),
}

/// Flags of `lfs usage`.
#[derive(Debug, Clone, Args)]
pub struct Usage {
    /// Only this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Only this remote, and what it is known to have
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// So many of the largest files and directories
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub top: u16,
}

/// Flags of `lfs prune`.
#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// Only this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Only say what would be removed
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
}

/// Flags of `lfs scrub`.
#[derive(Debug, Clone, Args)]
pub struct Scrub {
    /// Only this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Only this remote. Without it: what is here, and every remote
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// How much is read and hashed: whole, a share such as 1%, or so many, what was read longest ago first. Without it: as much
    /// as the schedule does
    #[arg(long, value_name = "SHARE", value_parser = read)]
    pub read: Option<Sample>,
    /// How long to wait for a running daemon, which goes on anyway (exit code 4)
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = spans::parse)]
    pub timeout: Duration,
}

fn read(text: &str) -> Result<Sample, String> {
    match text.to_ascii_lowercase().as_str() {
        "whole" | "100%" => Ok(Sample::Whole),
        _ => text.parse(),
    }
}
