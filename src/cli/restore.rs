//! The arguments of `restore`.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::Scope;
use super::access::Access;
use super::unlock::Unlock;

/// Examples of `restore`.
pub const EXAMPLES: &str = "\
Everything, beside what is there:  backupbot restore --to /tmp/back
One file as it was yesterday:      backupbot restore --at yesterday --to /tmp/back documents/letter.txt
What would happen:                 backupbot restore --in-place --dry-run documents/thesis
Back to where it was:              backupbot restore --in-place documents/thesis
That was a mistake:                backupbot restore --undo
On a machine that knows nothing:   backupbot restore --from https://git.example.org/me/docs.git --to /tmp/back
The same of an encrypted backup:   backupbot restore --from /mnt/usb/docs.git --key-file docs.key --to /tmp/back";

/// Arguments of `restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// What to restore: ROOT/PATH with the name of a watched root, or the path where it was; with everything below it.
    /// With *, ? or [ in it, all that the pattern names. Without any: everything
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// From which repository.
    #[command(flatten)]
    pub scope: Scope,
    /// Which state: latest (the default), latest~3, a tag, a commit, a date, a time, yesterday, \"2 hours ago\"
    #[arg(long, value_name = "WHEN")]
    pub at: Option<String>,
    /// Restore what a remote holds instead of what is here: an address, or the name of a configured remote. Nothing need
    /// be known on this machine. Goes with --to
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// How to get in there.
    #[command(flatten)]
    pub access: Access,
    /// Restore below this directory, each root under its name. It must be empty or not exist, unless --overwrite is
    /// given
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Restore to where it was. What is there now is backed up first, the plan is shown, and --undo takes it back
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub in_place: bool,
    /// Take the last restore in place back: exactly what it touched becomes again what it was
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub undo: bool,
    /// What to do with files that stand there: leave them (never), replace them if they differ (changed; the default in
    /// place), or replace them whatever they are (always)
    #[arg(long, value_name = "HOW", value_enum)]
    pub overwrite: Option<Overwrite>,
    /// Remove what the snapshot does not have, except what is excluded from the backup
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub delete: bool,
    /// Only say what would be done
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
    /// Name every step as it is taken
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub list: bool,
    /// Read everything again from the disk afterwards and compare it with the snapshot
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub verify: bool,
    /// Restore named pipes, sockets and devices too
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub special: bool,
    /// Restore what the repository holds even where that is a git-lfs pointer or ciphertext
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub raw: bool,
    /// Leave out set-id bits and capabilities, for backups of machines that you do not trust
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_set_id: bool,
    /// Restore whatever the snapshot asks for, even if it looks as if made to fill disks
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_limits: bool,
    /// Do not ask before restoring in place
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub yes: bool,
    /// Write the report, as JSON, to this file as well
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}

/// What to do with files that stand where others are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Overwrite {
    /// They are left as they are.
    Never,
    /// They are replaced if they differ.
    Changed,
    /// They are replaced.
    Always,
}
