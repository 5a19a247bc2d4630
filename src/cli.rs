//! The command line: commands, flags, and for every flag its twin in the environment.
//!
//! The twin of `--state-dir` is `BACKUPBOT_STATE_DIR`, and so on for every flag of every command: twins are
//! given to clap as defaults in one place, so a flag on the command line always wins and no flag can lack
//! one. Commands that later versions have are known by name, to be refused with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{
    Arg, ArgAction, ArgMatches, Args, Command as Clap, CommandFactory, FromArgMatches, Parser, Subcommand,
    ValueEnum,
};

use crate::spans;
use crate::status::{VERSION, revision};

pub mod access;
pub mod alerts;
pub mod audit;
pub mod drill;
pub mod keys;
pub mod lfs;
pub mod log;
pub mod look;
pub mod restore;
pub mod unlock;
pub mod verify;

/// Every twin of a flag; the configuration knows by this list which variables are not its own.
pub const TWINS: &[&str] = &[
    "BACKUPBOT_CONFIG",
    "BACKUPBOT_STATE_DIR",
    "BACKUPBOT_JSON",
    "BACKUPBOT_WATCH",
    "BACKUPBOT_REMOTE",
    "BACKUPBOT_ADOPT",
    "BACKUPBOT_REPOSITORY",
    "BACKUPBOT_FOR",
    "BACKUPBOT_WAIT",
    "BACKUPBOT_RESCAN",
    "BACKUPBOT_TIMEOUT",
    "BACKUPBOT_REPLACE",
    "BACKUPBOT_FROM",
    "BACKUPBOT_BRANCH",
    "BACKUPBOT_USERNAME",
    "BACKUPBOT_PASSWORD_FILE",
    "BACKUPBOT_TOKEN_FILE",
    "BACKUPBOT_SSH_KEY_FILE",
    "BACKUPBOT_PASSPHRASE_FILE",
    "BACKUPBOT_KNOWN_HOSTS_FILE",
    "BACKUPBOT_CA_FILE",
    "BACKUPBOT_YES",
    "BACKUPBOT_AT",
    "BACKUPBOT_TO",
    "BACKUPBOT_IN_PLACE",
    "BACKUPBOT_UNDO",
    "BACKUPBOT_OVERWRITE",
    "BACKUPBOT_DELETE",
    "BACKUPBOT_DRY_RUN",
    "BACKUPBOT_LIST",
    "BACKUPBOT_VERIFY",
    "BACKUPBOT_SPECIAL",
    "BACKUPBOT_RAW",
    "BACKUPBOT_NO_SET_ID",
    "BACKUPBOT_NO_LIMITS",
    "BACKUPBOT_REPORT",
    "BACKUPBOT_PATH",
    "BACKUPBOT_LIMIT",
    "BACKUPBOT_RECURSIVE",
    "BACKUPBOT_STAT",
    "BACKUPBOT_SAMPLE",
    "BACKUPBOT_SEED",
    "BACKUPBOT_WHOLE",
    "BACKUPBOT_TOP",
    "BACKUPBOT_READ",
    "BACKUPBOT_SINCE",
    "BACKUPBOT_HEAD",
    "BACKUPBOT_LEVEL",
    "BACKUPBOT_MODULE",
    "BACKUPBOT_RESET",
    "BACKUPBOT_RECEIVER",
    "BACKUPBOT_KEY_FILE",
    "BACKUPBOT_GPG",
    "BACKUPBOT_KEY_PASSPHRASE_FILE",
    "BACKUPBOT_KIT",
    "BACKUPBOT_OLD",
    "BACKUPBOT_READY",
    "BACKUPBOT_BESIDE",
    #[cfg(feature = "fault-points")]
    "BACKUPBOT_FAULT",
    #[cfg(feature = "fault-points")]
    "BACKUPBOT_FAULT_HANG_AFTER_MS",
];

/// Commands of the contract that this version does not have yet.
const UNBUILT: &[&str] = &["roots"];

/// Watches directories and, within a minute of a change, has it in a Git commit on remotes that you own.
///
/// Nothing is ever written into a watched directory and nothing is ever force-pushed. What is backed up can
/// be read back with plain `git clone`.
#[derive(Debug, Parser)]
#[command(
    name = "backupbot",
    version = version(),
    arg_required_else_help = true,
    after_help = "\
Is my data safe?     backupbot status
Is this file safe?   backupbot why PATH
Push now and wait:   backupbot flush --wait
What was in it?      backupbot ls --at yesterday PATH

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 done but some files could not be read,
4 timed out, 5 the state directory is in use, 6 the supervisor gave up (start it again)."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The version, with the commit if it is known.
fn version() -> String {
    revision().map_or_else(|| VERSION.to_owned(), |revision| format!("{VERSION} ({revision})"))
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// The configuration (.yaml or .toml). Without it: ./backupbot.yaml, then
    /// $XDG_CONFIG_HOME/backupbot/config.yaml, then /etc/backupbot/config.yaml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the state lives: queue, repositories, token. Without it: what the configuration says, else
    /// /var/lib/backupbot for root and $XDG_STATE_HOME/backupbot for others
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch, commit and push until stopped
    ///
    /// SIGTERM and Ctrl-C commit and push what is left and stop; a second one stops at once. Nothing is lost
    /// either way: what was not pushed is pushed after the next start.
    Run(Target),
    /// Scan, commit, push, verify, then exit: for cron and Kubernetes jobs
    ///
    /// Exits with 1 if a remote cannot be reached (the commits are kept here and pushed next time), with 3 if
    /// some files could not be read.
    Once(Once),
    /// Check the configuration and name every mistake in it
    Check(Check),
    /// Show what is protected, what is not, and what to do about it
    Status(Scope),
    /// Stop committing and pushing until `resume`; what changes meanwhile is queued
    ///
    /// With --for it goes on by itself when that time is over, even over restarts.
    Pause(Pause),
    /// Go on after `pause`, and let halted remotes try again with their present state taken for right
    Resume(Scope),
    /// End a quarantine: the mass change was meant, and the protected branch goes forward to it
    ///
    /// When many files of a root are deleted or rewritten within an hour, everything from then on goes to a branch of its
    /// own, and the protected branch stays as it was. `status` says so, and how to see what changed.
    Approve(Scope),
    /// Pause a repository in quarantine, because the mass change was not meant
    ///
    /// Both branches stay as they are. Then: `restore --in-place` puts the files of the protected branch back (what is
    /// there is kept in the quarantine), `resume` goes on, `approve` ends the quarantine when everything is right again.
    Reject(Scope),
    /// Commit and push everything now, without waiting for quiet files or for backoff
    Flush(Flush),
    /// Have the running daemon obey a changed configuration, without a restart of what did not change
    ///
    /// SIGHUP does the same. Exits with 2 if the configuration has mistakes, which are all named, and with 1 if it
    /// changes what only a restart can change; then nothing is changed at all.
    Reload,
    /// Show or change which records the running daemon writes to its log
    ///
    /// Without a flag: the levels in force and the parts of the program. What is changed holds until --for is over or the
    /// daemon ends; then `log.level` of the configuration counts again.
    Log(log::Log),
    /// Say whether a file is protected, since when, and if not, why not
    Why(Why),
    /// List the snapshots, newest first, or those that changed one path
    ///
    /// BYTES are those of the files that were added or changed, REMOTES those that were read back and have it. With --json
    /// there is one document a line.
    Snapshots(look::Snapshots),
    /// List a directory as it was
    ///
    /// Names that could act on a terminal are in quotes, with escapes. With --json there is one document a line, its names
    /// exact. Exits with 3 if a directory below could not be read.
    Ls(look::Ls),
    /// Write a file as it was to the standard output
    ///
    /// Exits with 1 if what was written is not the file, which is only known at its end.
    Cat(look::Cat),
    /// Say what differs between two snapshots
    ///
    /// Lines begin with A (added), M (changed), D (deleted), R (renamed: the very same content under another name) or
    /// m (only owner, mode, time or attributes changed). With --json there is one document a line.
    Diff(look::Diff),
    /// Bring files back: any version, all or some of them
    ///
    /// Every file is proven while it is written, by the checksums of Git and of the backup. One that cannot be restored
    /// stops nothing else: it is named, and the exit code is 3. A restore that was interrupted goes on where it ended
    /// when the same command is given again.
    #[command(after_help = restore::EXAMPLES)]
    Restore(Box<restore::Restore>),
    /// Read a snapshot again, here or as a remote holds it, and say whether it is what was backed up
    ///
    /// Every name and record is read, and every content is hashed as Git names it and as it was recorded when it was
    /// backed up. Exits with 3 and names what is wrong, and with 1 if it could not be found out.
    #[command(after_help = verify::EXAMPLES)]
    Verify(Box<verify::Verify>),
    /// Rehearse a restore: take files from a remote as a new machine would, restore them aside, and compare
    ///
    /// The files are restored into a scratch directory in the state directory, read again from there, compared with what was
    /// recorded when they were backed up and with what is here, and removed. Exits with 3 and names what is wrong, and with 1
    /// if it could not be found out. A running daemon does the same on schedule.
    #[command(after_help = drill::EXAMPLES)]
    Drill(drill::Drill),
    /// The keys of encrypted repositories: make, carry away, bring back, change, and look whether all is well
    #[command(after_help = keys::EXAMPLES)]
    Keys(keys::Keys),
    /// Large files: how much room they take at the remotes, and whether they are still there
    Lfs(lfs::Lfs),
    /// Look after the remotes that a network leads to
    Remote(Remote),
    /// Print the plain commands that get everything back without BackupBot
    ///
    /// It is a commented shell script for git and python3, with your remotes in it and no secret. Keep a copy of it where it
    /// does not burn with this machine: backupbot recipe > recipe.sh. With --json it is a list of the commands.
    Recipe(Recipe),
    /// Say where the data is, who could read it, and when it was last proven: for an audit
    ///
    /// Markdown, or with --json the same for programs. It names providers, regions, encryption, where keys and credentials
    /// are kept (never what they are), the last verification and the last rehearsed restore of each remote, and what is open.
    Report(Scope),
    /// Show what somebody should look at, or try whether messages about it arrive
    Alerts(alerts::Alerts),
    /// Show what was done: commits, pushes, orders, changed configurations
    ///
    /// Every line is numbered and holds the hash of the line before. With --json the lines are printed as they stand in the
    /// log.
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Audit),
    /// Ask the running daemon whether it lives: for containers, where nothing else could ask
    ///
    /// Exits with 0 if it does, and with 1 and the reason if not. No token is needed.
    Health(Health),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write a manual page for each command into a directory: for who packs the program
    #[command(hide = true)]
    Man(Man),
}

/// Arguments of `man`.
#[derive(Debug, Clone, Args)]
pub struct Man {
    /// The directory, which has to be there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The configuration of another instance that runs at the same time; repeat it for more. A repository in two of them,
    /// and two that push the same branch to one place, are mistakes
    #[arg(long, value_name = "FILE")]
    pub beside: Vec<PathBuf>,
}

/// Flags of `health`.
#[derive(Debug, Clone, Args)]
pub struct Health {
    /// Whether it is ready as well: every root was looked at once, or found unavailable
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub ready: bool,
}

/// What to back up, if no configuration says it.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// A directory to watch, instead of a configuration; repeat it for more. In the environment several are
    /// separated by commas, or stand one a line
    #[arg(long, value_name = "DIR")]
    pub watch: Vec<PathBuf>,
    /// Where to push to, with --watch; repeat it for more. A local path that does not exist becomes a bare
    /// repository
    #[arg(long, value_name = "URL")]
    pub remote: Vec<String>,
    /// What to do where a remote's branch has a history that is not ours: `continue` makes our next commit upon it,
    /// `branch` leaves it alone and uses a branch named after this instance from now on. Without it: such a remote is
    /// halted, and the work goes to a rescue branch. Nothing of it is ever overwritten
    #[arg(long, value_name = "HOW")]
    pub adopt: Option<Adopt>,
}

/// What to do with a history that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Adopt {
    /// Go on from it
    Continue,
    /// Leave it
    Branch,
}

/// Flags of `once`.
#[derive(Debug, Clone, Args)]
pub struct Once {
    /// What to back up.
    #[command(flatten)]
    pub target: Target,
    /// Give up after this long, such as 30m (exit code 4). Without it: as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    pub timeout: Option<Duration>,
}

/// Which repositories.
#[derive(Debug, Clone, Default, Args)]
pub struct Scope {
    /// Only this repository. Without it: all
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
}

/// Flags of `pause`.
#[derive(Debug, Clone, Default, Args)]
pub struct Pause {
    /// Which repositories.
    #[command(flatten)]
    pub scope: Scope,
    /// Go on by itself after this long, such as 30m, 2h or 3d. Without it: until `resume`
    #[arg(long = "for", value_name = "DURATION", value_parser = spans::parse_long)]
    pub lasting: Option<Duration>,
}

/// Flags of `flush`.
#[derive(Debug, Clone, Args)]
pub struct Flush {
    /// Which repositories.
    #[command(flatten)]
    pub scope: Scope,
    /// Return only when every change made before is at every remote and was read back
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub wait: bool,
    /// Compare every watched directory as a whole first, instead of relying on what the system told
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub rescan: bool,
    /// How long to wait, such as 60s or 5m (exit code 4 when it is over)
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = spans::parse)]
    pub timeout: Duration,
}

/// Arguments of `why`.
#[derive(Debug, Clone, Args)]
pub struct Why {
    /// The file: its path, or ROOT/PATH with the name of a watched root
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Arguments of `remote`.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// What to do with one.
    #[command(subcommand)]
    pub command: RemoteCommand,
}

/// What to do with a remote.
#[derive(Debug, Clone, Subcommand)]
pub enum RemoteCommand {
    /// Connect as a push does, and say what is there and whether a push would go through
    ///
    /// Nothing is changed there. Exits with 1 if the remote cannot be reached, does not let us in, or would not take
    /// a push.
    Test(TestRemote),
    /// Show the key with which an SSH server proves itself, and record it
    ///
    /// Compare it with the server's own first, there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. Nobody logs
    /// in for this. Exits with 1 if the key is not recorded in the end.
    Trust(Trust),
}

/// Arguments of `remote test`.
#[derive(Debug, Clone, Args)]
pub struct TestRemote {
    /// The remote, by its name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Which repository's remote
    #[command(flatten)]
    pub scope: Scope,
}

/// Arguments of `remote trust`.
#[derive(Debug, Clone, Args)]
pub struct Trust {
    /// The remote, by its name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Which repository's remote
    #[command(flatten)]
    pub scope: Scope,
    /// Let the key take the place of the one that is recorded
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub replace: bool,
    /// Record it without asking
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub yes: bool,
}

/// Flags of `recipe`.
#[derive(Debug, Clone, Default, Args)]
pub struct Recipe {
    /// Only this repository. Without it: all
    #[command(flatten)]
    pub which: Scope,
    /// Only from this remote, by its name in the configuration. Without it: from the first that answers
    #[arg(long, value_name = "NAME")]
    pub remote: Option<String>,
}

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Invocation {
    /// The command and its flags, twins included.
    pub cli: Cli,
    typed: BTreeSet<&'static str>,
}

impl Invocation {
    /// Whether the flag stands on the command line itself.
    pub fn is_typed(&self, flag: &'static str) -> bool {
        self.typed.contains(flag)
    }
}

/// The name of a flag's twin.
fn twin_of(flag: &str) -> String {
    format!("BACKUPBOT_{}", flag.replace('-', "_").to_uppercase())
}

/// Several values in one variable: one a line if there are lines, else between commas.
fn values_in(text: &str) -> Vec<OsString> {
    let separator = if text.contains('\n') { '\n' } else { ',' };
    text.split(separator).map(str::trim).filter(|part| !part.is_empty()).map(OsString::from).collect()
}

/// Gives a flag its twin: named in the help, and its default where it is set. An empty one counts as not set.
fn with_twin(argument: Arg, environment: &BTreeMap<String, String>) -> Arg {
    let Some(flag) = argument.get_long() else { return argument };
    let twin = twin_of(flag);
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let argument = argument.help(format!("{help} [env: {twin}]"));
    let Some(value) = environment.get(&twin).filter(|value| !value.is_empty()) else { return argument };
    let values = match argument.get_action() {
        ArgAction::Append => values_in(value),
        _ => vec![OsString::from(value)],
    };
    let takes_values = argument.get_action().takes_values();
    argument.default_values(values).hide_default_value(takes_values)
}

/// The commands as the help shows them.
pub fn command() -> Clap {
    Cli::command()
}

fn with_twins(mut command: Clap, environment: &BTreeMap<String, String>) -> Clap {
    command = command.mut_args(|argument| with_twin(argument, environment));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| with_twins(sub, environment));
    }
    command
}

fn unbuilt(name: &'static str) -> Clap {
    let anything = Arg::new("anything").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Clap::new(name).hide(true).disable_help_flag(true).arg(anything)
}

/// Reads a command line. Help and version come as errors too, as clap has it.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, clap::Error> {
    let mut command =
        with_twins(command(), environment).subcommands(UNBUILT.iter().map(|name| unbuilt(name)));
    let matches = command.try_get_matches_from_mut(arguments)?;
    if let Some(name) = matches.subcommand_name().filter(|name| UNBUILT.contains(name)) {
        let text = format!(
            "`backupbot {name}` is not built yet in this version; `backupbot --help` shows what is\n"
        );
        return Err(command.error(ErrorKind::InvalidSubcommand, text));
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let typed = ["config", "watch", "remote"].into_iter().filter(|flag| is_typed(&matches, flag)).collect();
    Ok(Invocation { cli, typed })
}

fn is_typed(matches: &ArgMatches, flag: &str) -> bool {
    let of_command = matches.subcommand().map(|(_, matches)| matches);
    [Some(matches), of_command].into_iter().flatten().any(|matches| {
        matches.try_contains_id(flag).is_ok() && matches.value_source(flag) == Some(ValueSource::CommandLine)
    })
}

#[cfg(test)]
mod tests;
