//! Which backend a root gets: what the configuration says, or else what its file system and the limits allow.

use std::path::Path;
use std::sync::Arc;

use super::Backend;
use super::poll::PollBackend;
use crate::config::BackendChoice;
use crate::error::{Error, Kind, Result};
use crate::ignore::IgnoreRules;

/// A root that is to be watched.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The watched directory.
    pub root: &'a Path,
    /// What is left out of it.
    pub rules: Arc<IgnoreRules>,
    /// A directory outside the root that belongs to this backend alone; made if need be.
    pub own_directory: &'a Path,
    /// Whether mounts below the root are left out.
    pub one_file_system: bool,
    /// What the configuration says.
    pub choice: BackendChoice,
}

/// Prepares the backend for a root.
///
/// # Errors
/// [`Kind::RootUnavailable`] if there is no such root, [`Kind::Config`] for a backend that this system does not
/// have, [`Kind::Limit`] if inotify is forced and its limits are reached.
pub fn open(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    match wanted.choice {
        BackendChoice::Poll => poll(wanted),
        BackendChoice::Auto => automatic(wanted),
        BackendChoice::Inotify => inotify(wanted),
        BackendChoice::Kqueue => kqueue(wanted),
    }
}

fn absent(word: &str, systems: &str) -> Error {
    let text = format!("`backend: {word}` is for {systems}; leave it out, or use auto or poll");
    Error::new(Kind::Config, text)
}

fn poll(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    let backend = PollBackend::new(wanted.root, wanted.rules.clone(), wanted.one_file_system)?;
    Ok(Box::new(backend))
}

/// The kind of file system that `root` is on, if `auto` polls all of it for that: one that does not tell of
/// changes made elsewhere. None also if it cannot be looked at.
pub fn polled_kind(root: &Path) -> Option<String> {
    #[cfg(target_os = "linux")]
    return super::kinds::silent_at(root).unwrap_or_default();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = root;
        None
    }
}

#[cfg(target_os = "linux")]
fn automatic(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    use super::composed::ComposedBackend;
    use super::inotify::left::ByInotify;
    Ok(Box::new(ComposedBackend::new(wanted, ByInotify::new(wanted))?))
}

#[cfg(target_os = "linux")]
fn inotify(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    use super::inotify::InotifyBackend;
    let (rules, one_file_system) = (wanted.rules.clone(), wanted.one_file_system);
    let mut backend = InotifyBackend::new(wanted.root, rules, wanted.own_directory, one_file_system)?;
    let doubt = match polled_kind(wanted.root) {
        Some(kind) => Some(format!("{kind} does not tell of changes that are made elsewhere")),
        None => backend.self_test(super::inotify::left::SELF_TEST).err().map(|error| error.to_string()),
    };
    backend.set_warning(doubt.map(|doubt| {
        format!(
            "`backend: inotify` is forced, but {doubt}: such changes are found by the next rescan only; \
             `backend: auto` polls instead"
        )
    }));
    Ok(Box::new(backend))
}

#[cfg(target_os = "linux")]
fn kqueue(_: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    Err(absent("kqueue", "macOS and BSD"))
}

#[cfg(not(target_os = "linux"))]
fn automatic(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    use super::composed::ComposedBackend;
    use super::kqueue::left::ByKqueue;
    super::kqueue::raise_limit();
    Ok(Box::new(ComposedBackend::new(wanted, ByKqueue::new(wanted))?))
}

#[cfg(not(target_os = "linux"))]
fn kqueue(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    super::kqueue::raise_limit();
    let (rules, one_file_system) = (wanted.rules.clone(), wanted.one_file_system);
    Ok(Box::new(super::kqueue::KqueueBackend::new(wanted.root, rules, one_file_system)?))
}

#[cfg(not(target_os = "linux"))]
fn inotify(_: &Wanted<'_>) -> Result<Box<dyn Backend>> {
    Err(absent("inotify", "Linux"))
}
