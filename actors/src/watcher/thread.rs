//! The thread that waits on a backend, and hands over what it tells.
//!
//! In go the root's settings and the actor's wishes (to stop, to watch what was missed), out come hints in
//! order and, whenever it changes, how the root is watched. It is the only one that touches the backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::path::RelPath;
use backupbot_core::progress::Progress;
use backupbot_core::watch::{self, Backend, Control, Hint, Wanted};
use tokio::sync::mpsc;

use crate::seat::RepositorySeat;
use crate::supervision::WorkGuard;

/// How long the thread waits for a hint before it looks around.
const WAIT: Duration = Duration::from_secs(5);
/// The rest after an error, so that one that lasts does not keep a core busy.
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What the thread tells.
pub(super) enum Told {
    Started(Standing, Arc<dyn Control>),
    Hints(Vec<Hint>),
    /// The root is watched otherwise than before.
    Standing(Standing),
    Ended(Option<String>),
}

/// How a root is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The word for status.
    pub backend: &'static str,
    /// What is not as one would wish, in sentences.
    pub reason: Option<String>,
    /// Directories that are neither watched nor polled.
    pub unwatched: usize,
}

impl Standing {
    fn of(backend: &dyn Backend) -> Self {
        let stats = backend.stats();
        Self { backend: backend.name(), reason: stats.limited, unwatched: stats.unwatched }
    }
}

/// What the thread is given.
pub(super) struct WatchThread {
    pub seat: Arc<RepositorySeat>,
    pub index: usize,
    pub stop: Arc<AtomicBool>,
    pub resync: Arc<AtomicBool>,
    pub tell: mpsc::Sender<Told>,
}

impl WatchThread {
    pub(super) fn run(self, progress: &Progress, working: WorkGuard) {
        let ended = match self.open(progress) {
            Ok(mut backend) => {
                let standing = Standing::of(backend.as_ref());
                let started = Told::Started(standing.clone(), backend.control());
                drop(working);
                if self.tell.blocking_send(started).is_err() {
                    return;
                }
                self.watch(backend.as_mut(), standing, progress)
            }
            Err(error) => Some(error.to_string()),
        };
        let _ = self.tell.blocking_send(Told::Ended(ended));
    }

    fn open(&self, progress: &Progress) -> Result<Box<dyn Backend>> {
        let root = &self.seat.roots[self.index];
        let files = self.seat.common.store.reader().files(&self.seat.settings.name)?;
        // Opened only to see that it is what it was: a descriptor that is kept would hide its deletion.
        drop(root.open(&files)?);
        root.rules.forget(&RelPath::root());
        let sentinels = self.seat.common.state_dir.join("sentinels");
        let own = sentinels.join(format!("{}--{}", self.seat.settings.name, root.name));
        std::fs::create_dir_all(&own).map_err(|error| Error::io("create", &own, error))?;
        let settings = &self.seat.settings.roots[self.index];
        let mut backend = watch::open(&Wanted {
            root: &root.path,
            rules: root.rules.clone(),
            own_directory: &own,
            one_file_system: settings.one_file_system,
            choice: settings.backend,
        })?;
        backend.start(progress)?;
        Ok(backend)
    }

    /// Hands hints over until the root is gone or the actor is; returns why, if there is something to say.
    fn watch(
        &self,
        backend: &mut dyn Backend,
        mut standing: Standing,
        progress: &Progress,
    ) -> Option<String> {
        let mut hints = Vec::new();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if self.resync.swap(false, Ordering::Relaxed)
                && let Err(error) = backend.resync(progress)
                && error.kind() == Kind::RootUnavailable
            {
                return Some(error.to_string());
            }
            if let Err(error) = backend.wait(WAIT, &mut hints) {
                // Events may have been lost with the error: look at everything.
                hints.push(Hint::Overflow);
                if error.kind() == Kind::RootUnavailable {
                    return Some(error.to_string());
                }
                std::thread::sleep(REST_AFTER_ERROR);
            }
            let now = Standing::of(backend);
            if now != standing {
                standing = now.clone();
                self.tell.blocking_send(Told::Standing(now)).ok()?;
            }
            if hints.is_empty() {
                continue;
            }
            let is_gone = hints.contains(&Hint::RootGone);
            self.tell.blocking_send(Told::Hints(std::mem::take(&mut hints))).ok()?;
            if is_gone {
                return None;
            }
        }
    }
}
