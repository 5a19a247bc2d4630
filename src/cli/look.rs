//! The arguments of the commands that look into history.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::unlock::Unlock;

/// Which repository.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// The repository. Without it: the only one, or the one in which the path lies
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
}

/// At which moment.
#[derive(Debug, Clone, Default, Args)]
pub struct At {
    /// The snapshot: latest, latest~3, a tag, a commit's id or its first four digits or more, or a time, which means the
    /// last snapshot until then: 2026-11-22, "2026-11-22 13:05", 2026-11-22T13:05:00Z, yesterday, "2 hours ago".
    /// Without it: the latest
    #[arg(long, value_name = "WHEN")]
    pub at: Option<String>,
}

/// Flags of `snapshots`.
#[derive(Debug, Clone, Args)]
pub struct Snapshots {
    /// Which repository.
    #[command(flatten)]
    pub which: Which,
    /// From which snapshot on.
    #[command(flatten)]
    pub at: At,
    /// Only the snapshots that changed this file or directory: its path, or ROOT/PATH with the name of a watched root
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// At most so many. Without it: all
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}

/// Arguments of `ls`.
#[derive(Debug, Clone, Args)]
pub struct Ls {
    /// The directory or file: its path, or ROOT/PATH with the name of a watched root. Without it: the watched roots
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Which repository.
    #[command(flatten)]
    pub which: Which,
    /// When.
    #[command(flatten)]
    pub at: At,
    /// Also what is in the directories in it
    #[arg(long, short = 'R', action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub recursive: bool,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}

/// Arguments of `cat`.
#[derive(Debug, Clone, Args)]
pub struct Cat {
    /// The file: its path, or ROOT/PATH with the name of a watched root
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which repository.
    #[command(flatten)]
    pub which: Which,
    /// When.
    #[command(flatten)]
    pub at: At,
    /// What Git holds, whatever it is: also a link's target, a git-lfs pointer, a ciphertext
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub raw: bool,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}

/// Arguments of `diff`.
#[derive(Debug, Clone, Args)]
pub struct Diff {
    /// The older snapshot, said as --at of the other commands takes it
    #[arg(value_name = "A")]
    pub old: String,
    /// The newer one. Without it: the latest
    #[arg(value_name = "B")]
    pub new: Option<String>,
    /// Which repository.
    #[command(flatten)]
    pub which: Which,
    /// Only this file or directory: its path, or ROOT/PATH with the name of a watched root
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Only how many of each kind there are
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub stat: bool,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}
