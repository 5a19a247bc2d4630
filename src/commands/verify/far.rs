//! What a remote holds, fetched as somebody would who has nothing of it here: into a scratch directory in the state
//! directory, which is removed at the end. A repository on a disk is read where it is.
//!
//! A remote that is damaged often cannot send a whole snapshot. Where it gives parts, the contents are then asked for in
//! ever smaller lots, so that what it cannot give has a name.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backupbot_core::clock;
use backupbot_core::config::{Remote, RemoteUrl};
use backupbot_core::error::{Error, Kind};
use backupbot_core::git::repository::Repository;
use backupbot_core::history::{Oid, Snapshot, moment};
use backupbot_core::names::RepositoryName;
use backupbot_core::progress::Progress;
use backupbot_core::retrieve::{self, Retrieval, Tip};
use backupbot_core::verify;
use jiff::tz::TimeZone;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Lot;
use crate::afar::{self, Fetching};
use crate::boot;
use crate::cli::Global;
use crate::cli::verify::Verify;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::{self, World};

/// Requests that may fail while what is damaged is looked for.
const MOST_FAILURES: u32 = 200;
/// What git says of its own repository before it hangs up.
const CORRUPTION: &str = "repository corruption";

/// The remote that is meant.
pub struct Meant<'m> {
    remote: Remote,
    branch: Option<String>,
    repository: RepositoryName,
    /// Its name in the configuration.
    configured: Option<&'m str>,
    /// Where the state is.
    pub state_dir: PathBuf,
}

impl Meant<'_> {
    /// The repository's name.
    pub fn repository(&self) -> &str {
        self.repository.as_str()
    }

    /// The remote's name in the configuration.
    pub fn configured_name(&self) -> Option<&str> {
        self.configured
    }

    /// The remote, for people.
    pub fn shown(&self) -> String {
        match self.configured {
            Some(name) => format!("remote {name}"),
            None => self.remote.url.to_string(),
        }
    }
}

/// A remote of the configuration.
pub fn configured<'m>(
    world: &World,
    global: &Global,
    arguments: &Verify,
    name: &'m str,
) -> Result<Meant<'m>, Failure> {
    let asking = settings::for_asking(world, global)?;
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?.ok_or_else(|| {
        Failure::usage(
            "no configuration was found, so no remote has a name: name one with --config, or use --from URL",
        )
    })?;
    let wanted = arguments.which.repository.as_deref();
    let all = || {
        let repositories = settings.config.repositories.iter();
        repositories.filter(|repository| wanted.is_none_or(|wanted| repository.name.as_str() == wanted))
    };
    let having: Vec<_> =
        all().filter(|it| it.remotes.iter().any(|remote| remote.name.as_str() == name)).collect();
    let repository = match having.as_slice() {
        [only] => *only,
        [] => {
            let mut names: Vec<&str> =
                all().flat_map(|it| &it.remotes).map(|remote| remote.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Failure::usage(format!("no remote is called {name:?}; configured are: {names}")));
        }
        several => {
            let names: Vec<&str> = several.iter().map(|it| it.name.as_str()).collect();
            let text = format!(
                "several repositories have a remote {name}: choose with --repository one of {}",
                names.join(", ")
            );
            return Err(Failure::usage(text));
        }
    };
    let within = Some(repository.name.as_str());
    let (remote, branch) = afar::meant(world, Some(&settings), within, name, &arguments.access)?;
    let branch = arguments.access.branch.clone().or(branch);
    Ok(Meant { remote, branch, repository: repository.name.clone(), configured: Some(name), state_dir })
}

/// Any remote.
pub fn anywhere<'m>(
    world: &World,
    global: &Global,
    arguments: &Verify,
    from: &'m str,
) -> Result<Meant<'m>, Failure> {
    let asking = settings::for_asking(world, global)?;
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?;
    let wanted = arguments.which.repository.as_deref();
    let (remote, branch) = afar::meant(world, settings.as_ref(), wanted, from, &arguments.access)?;
    let mut repositories = settings.iter().flat_map(|settings| &settings.config.repositories);
    let of_this = |it: &&backupbot_core::config::Repository| {
        it.remotes.iter().any(|known| known.name == remote.name && known.url == remote.url)
            && wanted.is_none_or(|wanted| it.name.as_str() == wanted)
    };
    let known = repositories.find(of_this).filter(|_| remote.name.as_str() == from);
    let name = match (known, wanted) {
        (Some(known), _) => Ok(known.name.clone()),
        (None, Some(wanted)) => RepositoryName::new(wanted),
        (None, None) => {
            RepositoryName::new(remote.name.as_str()).or_else(|_| RepositoryName::new(afar::NAMELESS))
        }
    };
    let repository = name.map_err(|error| Failure::usage(error.to_string()))?;
    let branch = arguments.access.branch.clone().or(branch);
    Ok(Meant { branch, repository, configured: known.map(|_| from), remote, state_dir })
}

/// What a remote holds.
pub struct Far {
    /// It, or what could be fetched of it.
    pub repository: Repository,
    /// The commit that was asked for.
    pub commit: Oid,
    /// The snapshot, or why the remote could not give it, where what it cannot give has no name.
    pub snapshot: Result<Snapshot, String>,
    _scratch: Option<Scratch>,
}

/// Opens or fetches it.
pub fn open(meant: &Meant<'_>, at: Option<&str>, lot: Lot, progress: &Progress) -> Result<Far, Failure> {
    let branch = meant.branch.as_deref();
    if let RemoteUrl::Local(path) = &meant.remote.url {
        let (repository, tip) = retrieve::open_in_place(path, branch)?;
        let (commit, snapshot) = match at {
            None => (tip.commit, Snapshot::read(&repository, tip.commit).map_err(|error| error.to_string())),
            at => {
                let snapshot = snapshot(&repository, tip.commit, at)?;
                (snapshot.id, Ok(snapshot))
            }
        };
        return Ok(Far { repository, commit, snapshot, _scratch: None });
    }
    let scratch = Scratch::make(meant)?;
    let _shown = Fetching::show(progress);
    let mut retrieval = Retrieval::begin(&meant.remote, &scratch.path, &meant.state_dir, progress)?;
    let tip = retrieval.tip(branch)?;
    let mut commit = tip.commit;
    if at.is_some() {
        retrieval.commits(tip.commit, progress)?;
        commit = snapshot(retrieval.repository(), tip.commit, at)?.id;
    }
    let mut fetch = Fetch { retrieval, commit, tip, lot, progress, failures: 0 };
    let gave_up = fetch.all()?;
    let repository = Repository::open(&scratch.path)?;
    let snapshot = match gave_up {
        Some(why) => Err(why),
        None => Ok(Snapshot::read(&repository, commit)?),
    };
    Ok(Far { repository, commit, snapshot, _scratch: Some(scratch) })
}

fn snapshot(repository: &Repository, tip: Oid, at: Option<&str>) -> Result<Snapshot, Failure> {
    let now = clock::now().to_zoned(TimeZone::system());
    Ok(match at {
        Some(at) => moment::resolve(repository, tip, at, &now)?,
        None => Snapshot::read(repository, tip)?,
    })
}

/// Whether the remote can be reached and what it has is broken.
fn is_damage(error: &Error) -> bool {
    error.kind() == Kind::Git || error.to_string().contains(CORRUPTION)
}

struct Fetch<'f> {
    retrieval: Retrieval,
    commit: Oid,
    tip: Tip,
    lot: Lot,
    progress: &'f Progress,
    failures: u32,
}

impl Fetch<'_> {
    /// Fetches what is going to be read. Why that cannot be done, if the remote's own repository is the reason and what
    /// it cannot give has no name.
    fn all(&mut self) -> Result<Option<String>, Failure> {
        let in_parts = self.retrieval.gives_parts();
        let outcome = match (self.lot.sample.is_whole(), in_parts) {
            (true, _) => self.whole(in_parts),
            (false, true) => match self.parts() {
                // It advertises more than it gives.
                Err(error) if error.kind() == Kind::RemoteRefused && !is_damage(&error) => {
                    self.whole_for_a_sample()
                }
                outcome => outcome,
            },
            (false, false) => self.whole_for_a_sample(),
        };
        match outcome {
            Err(error) if is_damage(&error) && !self.progress.is_cancelled() => Ok(Some(error.to_string())),
            outcome => Ok(outcome.map(|()| None)?),
        }
    }

    fn whole(&mut self, in_parts: bool) -> Result<(), Error> {
        match self.retrieval.whole(self.commit, self.tip.commit, self.progress) {
            Err(error) if is_damage(&error) && in_parts && !self.progress.is_cancelled() => {
                let text = "the remote cannot send the whole snapshot; looking for what it cannot send";
                output::complain(&format!("{text} ({error})"));
                // If it does not give parts after all, that it cannot give the whole is what there is to say.
                match self.parts() {
                    Err(refused) if refused.kind() == Kind::RemoteRefused => Err(error),
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    fn whole_for_a_sample(&mut self) -> Result<(), Error> {
        output::complain("this server gives no parts of a snapshot, so all of it is fetched for the sample");
        self.whole(false)
    }

    fn parts(&mut self) -> Result<(), Error> {
        self.retrieval.names(self.commit, self.tip.commit, self.progress)?;
        let snapshot = Snapshot::read(self.retrieval.repository(), self.commit)?;
        self.retrieval.records(&snapshot, self.progress)?;
        let contents = {
            let request = self.lot.request(self.retrieval.repository(), &snapshot);
            verify::contents(&request, self.progress)?
        };
        self.lots(contents)
    }

    /// What cannot be had stays away: the verification then names it.
    fn lots(&mut self, contents: Vec<Oid>) -> Result<(), Error> {
        let mut waiting = vec![contents];
        while let Some(mut lot) = waiting.pop() {
            let Err(error) = self.retrieval.missing(lot.clone(), self.progress) else { continue };
            self.failures += 1;
            if !is_damage(&error) || self.failures > MOST_FAILURES {
                return Err(error);
            }
            if lot.len() > 1 {
                waiting.push(lot.split_off(lot.len() / 2));
                waiting.push(lot);
            }
        }
        Ok(())
    }
}

/// Where things are fetched to; one process at a time for each remote.
struct Scratch {
    path: PathBuf,
    /// Held while it is used.
    _lock: File,
}

impl Scratch {
    fn make(meant: &Meant<'_>) -> Result<Self, Failure> {
        boot::make_state_dir(&meant.state_dir, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let place = meant.state_dir.join("verifying");
        let failed = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
            Failure::io(format!("cannot {what} {}", shown(path)), error)
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&place).map_err(|error| failed("make", &place, &error))?;
        let remote = meant.remote.name.as_str();
        let name = format!("{}-{remote}", meant.repository);
        let lock_path = place.join(format!("{name}.lock"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(|error| failed("open", &lock_path, &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let text = format!("remote {remote} is being verified by another process");
                return Err(Failure::new(Exit::InUse, text));
            }
            Err(error) => return Err(failed("lock", &lock_path, &error)),
        }
        let path = place.join(format!("{name}.git"));
        // One that was killed left it.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &path, &error))
            }
            _ => Ok(Self { path, _lock: lock }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
