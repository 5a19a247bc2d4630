//! Where the configuration comes from: a named file, the places where one is looked for, or `--watch`.
//!
//! A flag wins over its twin in the environment. `run` and `once` need a configuration. Commands that only
//! ask need the state directory, and the rest only when no daemon answers: then the configuration that was
//! last in force there counts, so a daemon that was started with `--watch` leaves its flags behind.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use backupbot_actors::root::repository_path;
use backupbot_core::config::on_disk::OnDisk;
use backupbot_core::config::{self, Config, Context, Loaded, Problem};
use backupbot_core::crypt::places;
use serde::{Deserialize, Serialize};

use crate::adoption;
use crate::cli::{self, Global, Invocation, Target};
use crate::exit::Failure;
use crate::files;

/// Stands for "there is no default"; nothing can ever be made below it.
const NOWHERE: &str = "/dev/null/backupbot";
/// The flags that were last in force, in the state directory.
const LAST_FLAGS: &str = "last-flags.json";
/// Far more than flags need.
const LAST_FLAGS_LIMIT: u64 = 1 << 20;

/// What the process finds around it.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The variables that are UTF-8.
    pub environment: BTreeMap<String, String>,
    /// Where relative paths start.
    pub current_dir: PathBuf,
    /// Whether the user may everything.
    pub is_root: bool,
    /// The host's name.
    pub host: String,
}

impl World {
    /// The real one.
    pub fn real() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            environment,
            // Without one only absolute paths work, and each relative one says so itself.
            current_dir: std::env::current_dir().unwrap_or_default(),
            is_root: rustix::process::geteuid().is_root(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }

    fn directory(&self, variable: &str) -> Option<PathBuf> {
        // The XDG rules say that a relative one is to be ignored.
        self.environment.get(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    fn default_state_dir(&self) -> Option<PathBuf> {
        if self.is_root {
            return Some(PathBuf::from("/var/lib/backupbot"));
        }
        let home = || self.directory("HOME").map(|home| home.join(".local/state"));
        Some(self.directory("XDG_STATE_HOME").or_else(home)?.join("backupbot"))
    }

    fn config_places(&self) -> Vec<PathBuf> {
        let home = || self.directory("HOME").map(|home| home.join(".config"));
        let own =
            self.directory("XDG_CONFIG_HOME").or_else(home).map(|dir| dir.join("backupbot/config.yaml"));
        let mut places = vec![self.current_dir.join("backupbot.yaml")];
        places.extend(own);
        places.push(PathBuf::from("/etc/backupbot/config.yaml"));
        places
    }

    /// The host's name as far as it can be part of a branch's name.
    fn default_instance(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
        let name: String = self.host.chars().map(plain).take(100).collect();
        let mut name = name.replace("..", "-");
        name = name.trim_matches(['.', '-']).to_owned();
        while let Some(shorter) = name.strip_suffix(".lock") {
            name = shorter.trim_end_matches('.').to_owned();
        }
        if name.is_empty() { "host".to_owned() } else { name }
    }

    fn context(&self, global: &Global) -> Context {
        let mut environment = self.environment.clone();
        // It arrives as the flag, made absolute.
        environment.remove("BACKUPBOT_STATE_DIR");
        Context {
            default_state_dir: self.default_state_dir().unwrap_or_else(|| PathBuf::from(NOWHERE)),
            default_instance: self.default_instance(),
            environment,
            known_variables: cli::TWINS,
            state_dir_flag: global.state_dir.as_ref().map(|dir| self.absolute(dir)),
        }
    }

    /// The path from `/`, with `.` and `..` resolved as the file system would.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        let mut resolved = PathBuf::new();
        for component in self.current_dir.join(path).components() {
            match component {
                Component::ParentDir => {
                    // `..` of a symbolic link is beside what it points at.
                    resolved = resolved.canonicalize().unwrap_or(resolved);
                    resolved.pop();
                }
                Component::CurDir => {}
                other => resolved.push(other),
            }
        }
        resolved
    }

    /// A remote's address with a relative local path made absolute; everything else as it is.
    pub fn absolute_remote(&self, remote: &str) -> String {
        let first = remote.split('/').next().unwrap_or_default();
        if remote.is_empty() || remote.starts_with('~') || first.contains(':') {
            return remote.to_owned();
        }
        match self.absolute(Path::new(remote)).into_os_string().into_string() {
            Ok(absolute) => absolute,
            Err(_) => remote.to_owned(),
        }
    }
}

/// Where a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// `--watch` and `--remote`, all absolute.
    Flags(Flags),
}

/// `--watch` and `--remote`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// Directories.
    pub watch: Vec<PathBuf>,
    /// Addresses.
    pub remotes: Vec<String>,
}

/// A configuration in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What it says.
    pub config: Config,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
    /// Where it came from.
    pub origin: Origin,
}

impl Settings {
    /// Leaves the flags behind for commands that ask when nobody runs, or removes what an earlier run left.
    pub fn remember(&self) -> Result<(), Failure> {
        let path = self.config.state_dir.join(LAST_FLAGS);
        let Origin::Flags(flags) = &self.origin else { return files::remove(&path) };
        // An address as typed may hold a user name that is a secret; as shown it does not.
        let remotes = self.config.repositories.iter().flat_map(|repository| &repository.remotes);
        let shown = Flags {
            watch: flags.watch.clone(),
            remotes: remotes.map(|remote| remote.url.to_string()).collect(),
        };
        let text =
            serde_json::to_vec(&shown).map_err(|error| Failure::io("cannot write the flags", error))?;
        files::write_private(&path, &text)
    }
}

/// The configuration of `run` and `once`.
pub fn for_work(world: &World, invocation: &Invocation, target: &Target) -> Result<Settings, Failure> {
    let global = &invocation.cli.global;
    match choose(invocation, target)? {
        Choice::Flags => {
            let mut watch = Vec::new();
            for directory in &target.watch {
                watch.push(existing_directory(world, directory)?);
            }
            let remotes = target.remote.iter().map(|remote| world.absolute_remote(remote)).collect();
            from_flags(world, global, Flags { watch, remotes })
        }
        Choice::File => from_file(world, global),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Flags,
    File,
}

/// Who wins: what is typed over what is in the environment; two of the same rank contradict each other.
fn choose(invocation: &Invocation, target: &Target) -> Result<Choice, Failure> {
    let has_config = invocation.cli.global.config.is_some();
    let (has_watch, has_remote) = (!target.watch.is_empty(), !target.remote.is_empty());
    let typed_config = invocation.is_typed("config");
    if has_watch && has_config && invocation.is_typed("watch") == typed_config {
        let (watch, file) =
            if typed_config { ("--watch", "--config") } else { ("BACKUPBOT_WATCH", "BACKUPBOT_CONFIG") };
        return Err(Failure::usage(format!(
            "{watch} and {file} contradict each other: give one of them; with a configuration, the directories to \
             watch stand in it"
        )));
    }
    let flags_win = has_watch && (!has_config || invocation.is_typed("watch"));
    if flags_win {
        return Ok(Choice::Flags);
    }
    if has_remote && (invocation.is_typed("remote") || !has_config) {
        let remote = if invocation.is_typed("remote") { "--remote" } else { "BACKUPBOT_REMOTE" };
        return Err(Failure::usage(format!(
            "{remote} needs --watch DIR; with a configuration, the remotes stand in it"
        )));
    }
    Ok(Choice::File)
}

fn existing_directory(world: &World, directory: &Path) -> Result<PathBuf, Failure> {
    let absolute = world.current_dir.join(directory);
    let refused = |why: String| {
        let remedy = "name a directory that exists";
        Failure::usage(format!("--watch {}: {why}: {remedy}", files::shown(directory)))
    };
    let real = absolute.canonicalize().map_err(|error| refused(error.to_string()))?;
    if real.is_dir() { Ok(real) } else { Err(refused("this is not a directory".to_owned())) }
}

/// The configuration of a file: the named one, or the first that is found.
pub fn from_file(world: &World, global: &Global) -> Result<Settings, Failure> {
    let Some(path) = find_file(world, global) else {
        let places: Vec<String> = world.config_places().iter().map(|place| files::shown(place)).collect();
        return Err(Failure::usage(format!(
            "no configuration found; looked for {}: write one, name one with --config FILE, or do without with \
             --watch DIR --remote URL",
            places.join(", ")
        )));
    };
    load_file(world, global, path)
}

fn load_file(world: &World, global: &Global, path: PathBuf) -> Result<Settings, Failure> {
    let loaded =
        config::load(&path, &world.context(global)).map_err(|problems| Failure::config(&problems))?;
    checked(loaded, Origin::File(path))
}

/// Why a configuration was not read again.
#[derive(Debug)]
pub enum Again {
    /// What is wrong with it.
    Mistakes(Vec<Problem>),
    /// It does not come to that.
    Failed(Failure),
}

/// Reads the configuration again from where it came from; with it what the file said, if there is one.
pub fn again(world: &World, global: &Global, origin: &Origin) -> (Option<OnDisk>, Result<Settings, Again>) {
    let context = world.context(global);
    let (on_disk, loaded) = match origin {
        Origin::File(path) => {
            let (on_disk, loaded) = config::load_and_mark(path, &context);
            (Some(on_disk), loaded)
        }
        Origin::Flags(flags) => (None, config::from_flags(&flags.watch, &flags.remotes, &context)),
    };
    let settings = match loaded {
        Ok(loaded) => checked(loaded, origin.clone()).map_err(Again::Failed),
        Err(problems) => Err(Again::Mistakes(problems)),
    };
    (on_disk, settings)
}

fn from_flags(world: &World, global: &Global, flags: Flags) -> Result<Settings, Failure> {
    let loaded = config::from_flags(&flags.watch, &flags.remotes, &world.context(global))
        .map_err(|problems| Failure::config(&problems))?;
    checked(loaded, Origin::Flags(flags))
}

fn checked(mut loaded: Loaded, origin: Origin) -> Result<Settings, Failure> {
    if loaded.config.state_dir == Path::new(NOWHERE) {
        return Err(no_state_dir());
    }
    adoption::apply(&mut loaded.config)?;
    announce_keys(&loaded.config);
    Ok(Settings { config: loaded.config, warnings: loaded.warnings, origin })
}

/// Says where the keys of encrypted repositories are.
fn announce_keys(config: &Config) {
    for repository in &config.repositories {
        let path = repository_path(&config.state_dir, repository.name.as_str());
        places::announce(&path, repository.encryption.as_ref().map(|encryption| &encryption.method));
    }
}

fn no_state_dir() -> Failure {
    Failure::usage(
        "neither HOME nor XDG_STATE_HOME is set, so there is no place for the state: use --state-dir DIR",
    )
}

fn find_file(world: &World, global: &Global) -> Option<PathBuf> {
    if let Some(named) = &global.config {
        return Some(world.current_dir.join(named));
    }
    // A file that is there but cannot be read is found: passing over it in silence would run another one.
    let is_there = |path: &PathBuf| match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    };
    world.config_places().into_iter().find(is_there)
}

/// What a command that only asks has to go by.
#[derive(Debug)]
pub struct Asking<'w> {
    world: &'w World,
    global: &'w Global,
    /// Where the state is.
    pub state_dir: PathBuf,
    loaded: Option<Settings>,
}

/// Finds the state directory, and reads no configuration that is not needed for that.
pub fn for_asking<'w>(world: &'w World, global: &'w Global) -> Result<Asking<'w>, Failure> {
    if let Some(directory) = &global.state_dir {
        return Ok(Asking { world, global, state_dir: world.absolute(directory), loaded: None });
    }
    if let Some(path) = find_file(world, global) {
        let settings = load_file(world, global, path)?;
        return Ok(Asking {
            world,
            global,
            state_dir: settings.config.state_dir.clone(),
            loaded: Some(settings),
        });
    }
    // With neither, a variable may still name the directory that `run --watch` used.
    let state_dir = world.default_state_dir().ok_or_else(no_state_dir)?;
    Ok(Asking { world, global, state_dir, loaded: None })
}

impl Asking<'_> {
    /// The configuration that was last in force there, as far as it can be known; a named one always wins.
    pub fn configuration(self) -> Result<Option<Settings>, Failure> {
        if self.global.config.is_none()
            && let Some(flags) = last_flags(&self.state_dir)?
        {
            let global = Global { state_dir: Some(self.state_dir), ..self.global.clone() };
            return from_flags(self.world, &global, flags).map(Some);
        }
        match (self.loaded, find_file(self.world, self.global)) {
            (Some(settings), _) => Ok(Some(settings)),
            (None, Some(path)) => load_file(self.world, self.global, path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn last_flags(state_dir: &Path) -> Result<Option<Flags>, Failure> {
    let path = state_dir.join(LAST_FLAGS);
    let unreadable = |error: &dyn std::fmt::Display| {
        let remedy = "name a configuration with --config";
        Failure::failed(format!("cannot read {}: {error}; {remedy}", files::shown(&path)))
    };
    let Some(text) = files::read_small(&path, LAST_FLAGS_LIMIT).map_err(|error| unreadable(&error))? else {
        return Ok(None);
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(&error))
}

#[cfg(test)]
mod tests;
