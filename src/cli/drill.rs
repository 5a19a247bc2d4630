//! The arguments of `drill`.

use backupbot_core::verify::Sample;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::unlock::Unlock;

/// Examples of `drill`.
pub const EXAMPLES: &str = "\
As the schedule does, all remotes: backupbot drill
One of them, everything:           backupbot drill --remote usb --whole
Twenty files, drawn by lot:        backupbot drill --sample 20";

/// Arguments of `drill`.
#[derive(Debug, Clone, Args)]
pub struct Drill {
    /// Only this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Only this configured remote. Only counts on the command line
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
    /// Restore a share of the files, such as 1%, or so many, drawn by lot. Without it: as much as the schedule does, and the
    /// same files again if these could not be restored the last time
    #[arg(long, value_name = "SHARE", conflicts_with = "whole")]
    pub sample: Option<Sample>,
    /// Restore everything
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub whole: bool,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}
