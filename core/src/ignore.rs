//! Which paths of a root are left out, by which rule.
//!
//! In go the patterns of the configuration, the names of ignore files that are obeyed in the tree and whether
//! the built-in list ([`SYSTEM_EXCLUDES`]) counts; out comes a [`Verdict`] on a path. The meaning is Git's:
//! the last rule that matches decides, `!` re-includes, and nothing below an excluded directory can come back.
//! The closer a rule stands to the file the more it weighs: built-in list, then configuration, then the ignore
//! file of the root, then those of deeper directories; of several names in one directory, the later in the
//! list.
//!
//! Ignore files are data of somebody else: each is read beneath the root without following a link or waiting
//! on a pipe, up to [`MAX_IGNORE_FILE`], and one that cannot be obeyed is a [`Problem`] and excludes nothing,
//! because to back up too much is the smaller harm. What was read is kept in a bounded cache. A walk reads
//! anew ([`IgnoreRules::scope_fresh`], [`IgnoreRules::enter`]); single questions ([`IgnoreRules::verdict`])
//! trust the cache, and whoever sees an ignore file change calls [`IgnoreRules::forget`].

use std::cell::OnceCell;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::path::{RelPath, lossy};

mod cache;
mod file;
mod pattern;
mod system;
#[cfg(test)]
mod tests;

use cache::Cache;
use pattern::{Candidate, Line, Pattern};
pub use system::{SYSTEM_EXCLUDES, SystemExclude};

/// Largest ignore file that is obeyed, in bytes.
pub const MAX_IGNORE_FILE: u64 = 1024 * 1024;

/// Whether a path belongs to the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Included,
    /// It does not.
    Excluded {
        /// Where the rule stands.
        by: ExcludedBy,
        /// The rule as written; from an ignore file as `path:line: rule`.
        rule: String,
    },
}

impl Verdict {
    /// Whether the path belongs to the backup.
    pub fn is_included(&self) -> bool {
        *self == Verdict::Included
    }
}

/// Where a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExcludedBy {
    /// In the configuration, `ignore`.
    Pattern,
    /// In an ignore file in the tree.
    IgnoreFile,
    /// In the built-in list.
    System,
}

/// A rule or an ignore file that cannot be obeyed, and therefore excludes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The ignore file; none for a fault in the configuration.
    pub file: Option<RelPath>,
    /// What is wrong, as a sentence for the operator that names the place.
    pub reason: String,
}

/// The rules of one root. Shared between threads; every method takes `&self`.
#[derive(Debug)]
pub struct IgnoreRules {
    root: PathBuf,
    file_names: Vec<Box<[u8]>>,
    configured: Rules,
    system: Rules,
    cache: Mutex<Cache>,
}

/// A directory as the rules see it: what a walk hands down from parent to child. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Scope(Arc<ScopeParts>);

#[derive(Debug)]
struct ScopeParts {
    directory: RelPath,
    /// The nearest ignore file at or above the directory; it links to the next.
    level: Option<Arc<Level>>,
    /// The directory itself is left out, and so is everything below.
    excluded: Option<(ExcludedBy, String)>,
}

impl Scope {
    /// The directory this is about.
    pub fn directory(&self) -> &RelPath {
        &self.0.directory
    }

    /// Whether the directory itself belongs to the backup.
    pub fn verdict(&self) -> Verdict {
        match &self.0.excluded {
            None => Verdict::Included,
            Some((by, rule)) => Verdict::Excluded { by: *by, rule: rule.clone() },
        }
    }
}

/// One obeyed ignore file.
#[derive(Debug)]
struct Level {
    file: RelPath,
    rules: Rules,
    /// How much of a path relative to the root is the directory of the file, slash included.
    directory_length: usize,
    above: Option<Arc<Level>>,
}

impl Drop for Level {
    /// A chain as long as somebody else's tree is deep must not be dropped by recursion.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some(mut level) = next.and_then(|level| Arc::try_unwrap(level).ok()) {
            next = level.above.take();
        }
    }
}

/// Patterns in the order in which they were written.
#[derive(Debug, Default)]
struct Rules {
    patterns: Vec<Pattern>,
}

impl Rules {
    fn last_match(&self, entry: &Entry<'_>, directory_length: usize) -> Option<&Pattern> {
        self.patterns.iter().rev().find(|pattern| {
            if !pattern.concerns(entry.is_dir) {
                return false;
            }
            let path = if pattern.needs_path() { entry.path().get(directory_length..) } else { None };
            let candidate =
                Candidate { name: entry.name, path: path.unwrap_or_default(), is_dir: entry.is_dir };
            pattern.matches(&candidate)
        })
    }
}

/// A name in a directory, its whole path made only if some pattern asks.
struct Entry<'a> {
    directory: &'a RelPath,
    name: &'a [u8],
    is_dir: bool,
    path: OnceCell<RelPath>,
}

impl Entry<'_> {
    fn path(&self) -> &[u8] {
        self.path.get_or_init(|| self.directory.join(self.name)).as_bytes()
    }
}

impl IgnoreRules {
    /// Compiles `patterns` (gitignore syntax, anchored at the root) for the root at `root`. `ignore_files` are
    /// names of files obeyed in every directory. The problems are those of the configuration; those of the
    /// tree turn up while it is walked, see [`IgnoreRules::problems`].
    pub fn new(
        root: &Path,
        patterns: &[String],
        ignore_files: &[String],
        system_excludes: bool,
    ) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut configured = Rules::default();
        for (text, number) in patterns.iter().zip(1..) {
            for line in text.split('\n') {
                match Pattern::parse(line.as_bytes(), number) {
                    Line::Blank => {}
                    Line::Pattern(pattern) => configured.patterns.push(pattern),
                    Line::Void(reason) => problems.push(Problem {
                        file: None,
                        reason: format!("ignore pattern {number}, {line:?}, excludes nothing: {reason}"),
                    }),
                }
            }
        }
        let mut file_names: Vec<Box<[u8]>> = Vec::new();
        for name in ignore_files {
            let is_name = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
            if is_name {
                file_names.push(name.as_bytes().into());
            } else {
                let reason = format!("ignore file {name:?} is not obeyed: it must be a plain file name");
                problems.push(Problem { file: None, reason });
            }
        }
        let system =
            Rules { patterns: if system_excludes { system::patterns().collect() } else { Vec::new() } };
        let cache = Mutex::new(Cache::default());
        (Self { root: root.to_owned(), file_names, configured, system, cache }, problems)
    }

    /// Whether `path` belongs to the backup. The root always does.
    pub fn verdict(&self, path: &RelPath, is_dir: bool) -> Verdict {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.verdict_child(&self.scope(&parent), name, is_dir),
            _ => Verdict::Included,
        }
    }

    /// Whether the entry `name` of the directory `parent` belongs to the backup; the fast way for a walk.
    pub fn verdict_child(&self, parent: &Scope, name: &[u8], is_dir: bool) -> Verdict {
        if parent.0.excluded.is_some() {
            return parent.verdict();
        }
        match self.decide(parent, name, is_dir) {
            None => Verdict::Included,
            Some((by, rule)) => Verdict::Excluded { by, rule },
        }
    }

    fn decide(&self, parent: &Scope, name: &[u8], is_dir: bool) -> Option<(ExcludedBy, String)> {
        let entry = Entry { directory: &parent.0.directory, name, is_dir, path: OnceCell::new() };
        let mut next = parent.0.level.as_deref();
        while let Some(level) = next {
            if let Some(pattern) = level.rules.last_match(&entry, level.directory_length) {
                let rule = || format!("{}:{}: {}", level.file, pattern.line, lossy(&pattern.text));
                return (!pattern.negated).then(|| (ExcludedBy::IgnoreFile, rule()));
            }
            next = level.above.as_deref();
        }
        for (rules, by) in [(&self.configured, ExcludedBy::Pattern), (&self.system, ExcludedBy::System)] {
            if let Some(pattern) = rules.last_match(&entry, 0) {
                return (!pattern.negated).then(|| (by, lossy(&pattern.text)));
            }
        }
        None
    }

    /// The scope of `directory`, from the cache where it is known.
    pub fn scope(&self, directory: &RelPath) -> Scope {
        // Somebody else's tree may be deeper than a stack: no recursion.
        let mut unknown = Vec::new();
        let mut at = directory.clone();
        let mut scope = loop {
            if let Some(scope) = self.cache().get(&at) {
                break scope;
            }
            let Some(parent) = at.parent() else { break self.root_scope() };
            unknown.push(at);
            at = parent;
        };
        for below in unknown.iter().rev() {
            if let Some(name) = below.file_name() {
                scope = self.enter(&scope, name);
            }
        }
        scope
    }

    /// The scope of `directory`, with its own ignore files read anew; where a walk starts.
    pub fn scope_fresh(&self, directory: &RelPath) -> Scope {
        match (directory.parent(), directory.file_name()) {
            (Some(parent), Some(name)) => self.enter(&self.scope(&parent), name),
            _ => self.root_scope(),
        }
    }

    /// As [`IgnoreRules::scope_fresh`] for a directory that is open already.
    pub fn scope_opened(&self, directory: &RelPath, opened: BorrowedFd<'_>) -> Scope {
        match (directory.parent(), directory.file_name()) {
            (Some(parent), Some(name)) => self.enter_opened(&self.scope(&parent), name, Some(opened)),
            _ => self.look(RelPath::root(), None, None, Some(opened)),
        }
    }

    /// The scope of the directory `name` in `parent`, with its ignore files read anew; a walk's step down.
    pub fn enter(&self, parent: &Scope, name: &[u8]) -> Scope {
        self.enter_opened(parent, name, None)
    }

    /// As [`IgnoreRules::enter`]; `opened` is that directory, if it is open already.
    pub fn enter_opened(&self, parent: &Scope, name: &[u8], opened: Option<BorrowedFd<'_>>) -> Scope {
        let directory = parent.0.directory.join(name);
        let excluded = match &parent.0.excluded {
            Some(excluded) => Some(excluded.clone()),
            None => self.decide(parent, name, true),
        };
        self.look(directory, parent.0.level.clone(), excluded, opened)
    }

    fn root_scope(&self) -> Scope {
        self.look(RelPath::root(), None, None, None)
    }

    fn look(
        &self,
        directory: RelPath,
        above: Option<Arc<Level>>,
        excluded: Option<(ExcludedBy, String)>,
        opened: Option<BorrowedFd<'_>>,
    ) -> Scope {
        let generation = self.cache().generation();
        let mut level = above;
        let mut problems = Vec::new();
        let mut bytes = 0;
        if excluded.is_none() && !self.file_names.is_empty() {
            let found = match opened {
                Some(opened) => file::read_in(opened, &directory, &self.file_names),
                None => file::read_all(&self.root, &directory, &self.file_names),
            };
            for found in found {
                problems.extend(found.problem);
                if found.rules.patterns.is_empty() {
                    continue;
                }
                bytes += found.bytes;
                let length = directory.as_bytes().len();
                level = Some(Arc::new(Level {
                    file: found.file,
                    rules: found.rules,
                    directory_length: if length == 0 { 0 } else { length + 1 },
                    above: level,
                }));
            }
        }
        let scope = Scope(Arc::new(ScopeParts { directory, level, excluded }));
        self.cache().put(generation, &scope, bytes, problems);
        scope
    }

    /// Drops what is known of the ignore files in `directory` and everywhere below it. For a changed ignore
    /// file, and for a directory that was moved, replaced or deleted.
    pub fn forget(&self, directory: &RelPath) {
        self.cache().forget(directory);
    }

    /// Whether a file of this name is obeyed.
    pub fn is_ignore_file(&self, name: &[u8]) -> bool {
        self.file_names.iter().any(|known| **known == *name)
    }

    /// The ignore files that are not obeyed at present, as far as they were looked at.
    pub fn problems(&self) -> Vec<Problem> {
        self.cache().problems()
    }

    /// A panic elsewhere cannot leave the cache half-changed: it holds no invariant across its entries.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
