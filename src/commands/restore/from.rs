//! `--from`: restoring what a remote holds, on a machine that need not know anything of it.
//!
//! In: an address, or the name of a configured remote, and how to get in there. Out: a repository that [`Looking`] can look
//! into. A path is looked into where it is. From a network as little as possible is fetched, into a directory beside the
//! target that is removed at the end.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backupbot_actors::root::repository_path;
use backupbot_core::clock;
use backupbot_core::config::{Remote, RemoteUrl};
use backupbot_core::git::contents::LargeContents;
use backupbot_core::git::repository::Repository;
use backupbot_core::history::{Oid, Snapshot, moment};
use backupbot_core::lfs;
use backupbot_core::names::RepositoryName;
use backupbot_core::progress::Progress;
use backupbot_core::restore::{Selection, marker};
use backupbot_core::retrieve::{self, Cost, Retrieval};
use backupbot_core::wording;
use bytesize::ByteSize;
use jiff::tz::TimeZone;

use super::place::{holds_ours, refuse_dangerous_place};
use crate::afar::{self, Fetching};
use crate::cli::Global;
use crate::cli::restore::Restore;
use crate::exit::Failure;
use crate::files;
use crate::looking::Looking;
use crate::output;
use crate::settings::{self, Settings, World};

/// A remote that is fetched from as far as it is needed.
pub struct Fetched {
    retrieval: RefCell<Retrieval>,
    tip: Oid,
    address: String,
    /// Removed at the end.
    _scratch: Scratch,
}

/// What was opened.
pub struct Opened<'w> {
    /// What can be looked into.
    pub looking: Looking<'w>,
    /// Where the rest of it comes from, if it is not here.
    pub fetched: Option<Fetched>,
    /// Who has large contents.
    pub large: Arc<dyn LargeContents>,
}

/// Opens what `--from` names.
pub fn open<'w>(
    world: &'w World,
    global: &Global,
    arguments: &Restore,
    from: &str,
    progress: &Progress,
) -> Result<Opened<'w>, Failure> {
    let asking = settings::for_asking(world, global)?;
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?;
    let wanted = arguments.scope.repository.as_deref();
    let (remote, configured_branch) = afar::meant(world, settings.as_ref(), wanted, from, &arguments.access)?;
    let branch = arguments.access.branch.clone().or(configured_branch);
    let name = RepositoryName::new(remote.name.as_str())
        .or_else(|_| RepositoryName::new(afar::NAMELESS))
        .map_err(|error| Failure::failed(error.to_string()))?;
    let target = arguments.to.as_deref().map(|directory| world.absolute(directory)).unwrap_or_default();
    // What is fetched goes beside it, so it must not be where nothing may be written.
    refuse_dangerous_place(&target, &state_dir, settings.as_ref())?;
    if arguments.overwrite.is_none() {
        marker::look_for_others(&target)?;
    }
    // Whether it would then be written over is told by the names of the roots, so these have to come first.
    let has_ours_below = holds_ours(&target, &state_dir, settings.as_ref());
    let wants_all = arguments.paths.is_empty() && !arguments.dry_run && !has_ours_below;
    let now = clock::now().to_zoned(TimeZone::system());
    let keys_of = own_of(&remote, settings.as_ref(), &state_dir);
    let looking = |repository: Repository, tip| Looking {
        keys_of: keys_of.unwrap_or_else(|| repository.path().to_path_buf()),
        world,
        settings,
        state_dir: state_dir.clone(),
        name,
        repository,
        tip,
        now,
    };
    if let RemoteUrl::Local(path) = &remote.url {
        let (repository, tip) = retrieve::open_in_place(path, branch.as_deref())?;
        let large: Arc<dyn LargeContents> = match remote.lfs_url {
            Some(_) => {
                let stands_for = state_dir.join("repos").join("restored.git");
                Arc::new(lfs::fetched::Fetched::new(path, &state_dir, vec![remote.clone()], &stands_for))
            }
            None => Arc::new(lfs::Objects::of(path)),
        };
        return Ok(Opened { looking: looking(repository, tip.commit), fetched: None, large });
    }
    let scratch = Scratch::beside(&target)?;
    let mut retrieval = Retrieval::begin(&remote, &scratch.0, &state_dir, progress)?;
    let tip = retrieval.tip(branch.as_deref())?;
    {
        let _shown = Fetching::show(progress);
        let mut commit = tip.commit;
        if let Some(at) = &arguments.at {
            retrieval.commits(tip.commit, progress)?;
            let now = clock::now().to_zoned(TimeZone::system());
            commit = moment::resolve(retrieval.repository(), tip.commit, at, &now)?.id;
        }
        if !retrieval.gives_parts() {
            let text = format!(
                "fetching the whole snapshot {} from {}: this server gives no parts of it, and does not say how much that is",
                &commit.to_string()[..12],
                remote.url
            );
            output::complain(&text);
        } else if wants_all {
            tell_cost("fetching", &remote.url.to_string(), Cost::Everything);
        }
        match wants_all {
            true => retrieval.whole(commit, tip.commit, progress)?,
            false => retrieval.names(commit, tip.commit, progress)?,
        }
    }
    let repository = Repository::open(&scratch.0)?;
    // Known hosts of SSH lie two levels above a repository of ours.
    let stands_for = state_dir.join("repos").join("restored.git");
    let large =
        Arc::new(lfs::fetched::Fetched::new(&scratch.0, &scratch.0, vec![remote.clone()], &stands_for));
    let fetched = Fetched {
        retrieval: RefCell::new(retrieval),
        tip: tip.commit,
        address: remote.url.to_string(),
        _scratch: scratch,
    };
    Ok(Opened { looking: looking(repository, tip.commit), fetched: Some(fetched), large })
}

/// The repository here of which a remote should be a copy.
fn own_of(remote: &Remote, settings: Option<&Settings>, state_dir: &Path) -> Option<PathBuf> {
    let mut repositories = settings.iter().flat_map(|settings| &settings.config.repositories);
    let own = repositories.find(|it| it.remotes.iter().any(|known| known.url == remote.url))?;
    Some(repository_path(state_dir, own.name.as_str()))
}

impl Fetched {
    /// Fetches what says how the snapshot is encrypted.
    pub fn bring_encryption(&self, snapshot: &Snapshot, progress: &Progress) -> Result<(), Failure> {
        Ok(self.retrieval.borrow_mut().encryption(snapshot, progress)?)
    }

    /// Fetches what a restore of `selection` needs, and says before what that is.
    pub fn bring(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut announce = |cost: Cost| {
            tell_cost("fetching", &self.address, cost);
            Ok(())
        };
        let _shown = Fetching::show(progress);
        let mut retrieval = self.retrieval.borrow_mut();
        Ok(retrieval.contents(snapshot, self.tip, selection, &mut announce, progress)?)
    }

    /// Fetches what a dry run needs, and says what the restore itself would fetch.
    pub fn outline(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let shown = Fetching::show(progress);
        let cost = self.retrieval.borrow_mut().outline(snapshot, self.tip, selection, progress)?;
        drop(shown);
        if matches!(cost, Cost::Some { .. }) {
            tell_cost("the restore itself would fetch", &self.address, cost);
        }
        Ok(())
    }
}

fn tell_cost(doing: &str, address: &str, cost: Cost) {
    let what = match cost {
        Cost::Everything => "the whole snapshot; how much that is the server does not say".to_owned(),
        Cost::Some { files: count, bytes } => {
            format!("{}, {}", wording::files(count), ByteSize(bytes).display().iec())
        }
    };
    output::complain(&format!("{doing} from {address}: {what}"));
}

/// Where things are fetched to.
struct Scratch(PathBuf);

impl Scratch {
    /// Beside the target, on whose file system there has to be room anyway.
    fn beside(target: &Path) -> Result<Self, Failure> {
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)
            .map_err(|error| Failure::io(format!("cannot make {}", files::shown(parent)), error))?;
        let mut name = std::ffi::OsString::from(".backupbot-fetched-");
        name.push(target.file_name().unwrap_or_default());
        let path = parent.join(name);
        // One that was killed left it.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io(
                format!("cannot remove {}, which an earlier restore left", files::shown(&path)),
                error,
            )),
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
