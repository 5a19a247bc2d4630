//! Which records are written: one level for all, others for modules by name, changed while the program runs.
//!
//! In: each record with the values of its logger, and wishes of an operator. Out: whether it is written. A module is what
//! an operator would call a part of the program: the first part of a record's module path after the crate, and what its
//! logger says under `actor`. A wish holds for its time or until the process ends; then what is configured holds again.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use backupbot_actors::board::Moment;
use backupbot_core::config::LogLevel;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use slog::{KV, Key, Level, OwnedKVList, Record, Serializer};
use utoipa::ToSchema;

/// The modules that write records, and what each is. A test compares them with the sources.
pub const MODULES: &[(&str, &str)] = &[
    ("adoption", "what becomes of a history that is not ours"),
    ("alarm", "messages to the receivers of alerts"),
    ("beside", "tasks beside the tree that broke down"),
    ("boot", "the start"),
    ("commands", "the main loop of run and once"),
    ("committer", "batches and commits"),
    ("config_watcher", "the file of the configuration"),
    ("health", "the checks"),
    ("housekeeping", "packing repositories"),
    ("lfs_quota", "large files once they are pushed"),
    ("http", "the API: who asked what"),
    ("inspector", "verifications and drills on schedule"),
    ("notify", "what the service manager is told"),
    ("pusher", "each remote"),
    ("reload", "changed configurations"),
    ("restoring", "restores that were asked for over the API"),
    ("root", "the top of the tree"),
    ("shutdown", "the end"),
    ("supervision", "restarts"),
    ("watcher", "events, comparisons, debounce"),
];

/// A level by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LevelName {
    /// What failed
    Error,
    /// What somebody should look at, too
    Warning,
    /// What was done, too
    Info,
    /// How, too
    Debug,
    /// Everything, paths of files too
    Trace,
}

impl LevelName {
    fn level(self) -> Level {
        match self {
            Self::Error => Level::Error,
            Self::Warning => Level::Warning,
            Self::Info => Level::Info,
            Self::Debug => Level::Debug,
            Self::Trace => Level::Trace,
        }
    }

    /// The finest that this build can write: release builds leave trace records out when they are compiled.
    pub fn finest() -> Self {
        if slog::__slog_static_max_level().accepts(Level::Trace) { Self::Trace } else { Self::Debug }
    }
}

impl From<LogLevel> for LevelName {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warning,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// Levels that an operator wants instead of the configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// For everything that is not named.
    pub level: LevelName,
    /// For these.
    pub modules: BTreeMap<String, LevelName>,
    /// When it is over.
    pub until: Option<(Instant, Moment)>,
}

/// The levels in force.
#[derive(Debug)]
pub struct Levels {
    configured: LevelName,
    wanted: RwLock<Option<Wanted>>,
}

impl Levels {
    /// What the configuration says.
    pub fn new(configured: LevelName) -> Self {
        Self { configured, wanted: RwLock::new(None) }
    }

    /// What the configuration says.
    pub fn configured(&self) -> LevelName {
        self.configured
    }

    /// What is in force.
    pub fn now(&self, now: Instant) -> Wanted {
        let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
        let plain = Wanted { level: self.configured, modules: BTreeMap::new(), until: None };
        wanted.as_ref().filter(|wanted| wanted.is_in_force(now)).cloned().unwrap_or(plain)
    }

    /// From now on, instead of what was wanted before; `None` for the level is the configured one.
    ///
    /// # Errors
    /// Words for the operator, if there is no such module.
    pub fn want(
        &self,
        level: Option<LevelName>,
        modules: BTreeMap<String, LevelName>,
        lasting: Option<Duration>,
        now: Instant,
    ) -> Result<(), String> {
        let mut known = BTreeMap::new();
        for (name, level) in modules {
            known.insert(module_named(&name)?, level);
        }
        let until =
            lasting.and_then(|lasting| Some((now.checked_add(lasting)?, Moment::now().later_by(lasting))));
        let wanted = Wanted { level: level.unwrap_or(self.configured), modules: known, until };
        *self.wanted.write().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        Ok(())
    }

    /// Whether the record is written.
    pub fn allow(&self, record: &Record<'_>, values: &OwnedKVList) -> bool {
        let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
        let in_force =
            wanted.as_ref().filter(|wanted| wanted.until.is_none() || wanted.is_in_force(Instant::now()));
        let level = match in_force {
            None => self.configured,
            Some(wanted) if wanted.modules.is_empty() => wanted.level,
            Some(wanted) => wanted.level_of(record.module(), || actor_of(record, values)),
        };
        record.level().is_at_least(level.level())
    }
}

impl Wanted {
    fn is_in_force(&self, now: Instant) -> bool {
        self.until.is_none_or(|(until, _)| now < until)
    }

    /// The longest name that fits counts.
    fn level_of(&self, path: &str, actor: impl FnOnce() -> Option<String>) -> LevelName {
        let (path, actor) = (below_crate(path), actor());
        let fits = |name: &str| {
            actor.as_deref() == Some(name)
                || path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let fitting = self.modules.iter().filter(|(name, _)| fits(name));
        fitting.max_by_key(|(name, _)| name.len()).map_or(self.level, |(_, level)| *level)
    }
}

/// A module path without its crate.
fn below_crate(path: &str) -> &str {
    let crates = ["backupbot_actors::", "backupbot_core::", "backupbot::"];
    crates.iter().find_map(|name| path.strip_prefix(name)).unwrap_or(path)
}

/// The name as it is compared, if there is such a module; it may be a longer path, and begin with the crate.
fn module_named(name: &str) -> Result<String, String> {
    let path = below_crate(name);
    let first = path.split("::").next().unwrap_or_default();
    if MODULES.iter().any(|(known, _)| *known == first) {
        return Ok(path.to_owned());
    }
    let known: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
    Err(format!("there is no module `{shown}`; there are {}", known.join(", ")))
}

/// What the logger, or the record itself, says under `actor`.
fn actor_of(record: &Record<'_>, values: &OwnedKVList) -> Option<String> {
    struct Finder(Option<String>);
    impl Serializer for Finder {
        fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
            if key == "actor" && self.0.is_none() {
                self.0 = Some(value.to_string());
            }
            Ok(())
        }
    }
    let mut finder = Finder(None);
    // A value that cannot be shown names no actor.
    let _ = values.serialize(record, &mut finder);
    finder.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{Drain, Logger, Never, debug, o};
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    #[derive(Clone)]
    struct Kept(Arc<Levels>, Arc<Mutex<Vec<String>>>);

    impl Drain for Kept {
        type Ok = ();
        type Err = Never;
        fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
            if self.0.allow(record, values) {
                self.1.lock().unwrap().push(record.msg().to_string());
            }
            Ok(())
        }
    }

    fn modules(all: &[(&str, LevelName)]) -> BTreeMap<String, LevelName> {
        all.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect()
    }

    #[test]
    fn a_module_has_its_own_level_by_its_path_or_by_its_actor() {
        let levels = Arc::new(Levels::new(LevelName::Info));
        let kept = Kept(levels.clone(), Arc::default());
        let log = Logger::root(kept.clone(), o!());
        let pusher = log.new(o!("actor" => "pusher", "repository" => "documents"));
        debug!(pusher, "before");
        levels.want(None, modules(&[("pusher", LevelName::Debug)]), None, Instant::now()).unwrap();
        debug!(pusher, "of the actor");
        debug!(log.new(o!("actor" => "watcher")), "of another");
        // By the module of this test.
        let put = |level, all: &[(&str, LevelName)]| {
            *levels.wanted.write().unwrap() = Some(Wanted { level, modules: modules(all), until: None });
        };
        put(LevelName::Info, &[("logging", LevelName::Debug)]);
        debug!(log, "by its path");
        put(LevelName::Debug, &[("logging", LevelName::Debug), ("logging::levels", LevelName::Error)]);
        debug!(log, "the longer name counts");
        assert_eq!(*kept.1.lock().unwrap(), ["of the actor", "by its path"]);
    }

    #[test]
    fn a_wish_that_is_over_leaves_what_is_configured() {
        let levels = Levels::new(LevelName::Warning);
        let begun = Instant::now();
        let hour = Duration::from_secs(3600);
        levels
            .want(Some(LevelName::Trace), modules(&[("http", LevelName::Error)]), Some(hour), begun)
            .unwrap();
        assert_eq!(levels.now(begun).level, LevelName::Trace);
        let after = levels.now(begun + hour);
        assert_eq!((after.level, after.modules.len(), after.until), (LevelName::Warning, 0, None));
    }

    #[test]
    fn a_module_that_is_not_there_is_refused_with_those_that_are() {
        let levels = Levels::new(LevelName::Info);
        let refused = levels.want(None, modules(&[("pushr\n", LevelName::Debug)]), None, Instant::now());
        let words = refused.unwrap_err();
        assert!(words.contains("pusher") && words.contains("`pushr\\n`"), "{words}");
        assert_eq!(levels.now(Instant::now()).modules.len(), 0);
    }

    #[test]
    fn the_modules_are_those_that_write_records() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::new();
        for crate_dir in ["src", "actors/src", "core/src"] {
            let mut pending = vec![project.join(crate_dir)];
            while let Some(path) = pending.pop() {
                if path.is_dir() {
                    pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let macros = ["crit!(", "error!(", "warn!(", "info!(", "debug!(", "trace!("];
                let shipped = text.split("#[cfg(test)]").next().unwrap();
                let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
                if !is_test && macros.iter().any(|it| shipped.contains(&format!(" {it}"))) {
                    let below = path.strip_prefix(project.join(crate_dir)).unwrap();
                    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
                    found.insert(first.trim_end_matches(".rs").to_owned());
                }
            }
        }
        let known: BTreeSet<String> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(known, found);
    }
}
