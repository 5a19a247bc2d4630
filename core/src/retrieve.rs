//! A snapshot from a remote, for somebody who has nothing of it here: as little of it as the remote lets us take.
//!
//! ```text
//! advertisement ─▶ commits, if an earlier state is meant ─▶ names of the snapshot ─▶ records and contents of what is wanted
//! ```
//!
//! In: a remote and an empty repository to take things in. Out: that repository, with enough in it to restore what is
//! wanted. A remote that gives no parts is asked for a whole snapshot, and one that does not even do that for its whole
//! history. Nothing that comes is believed: every object is hashed, and a restore takes the repository for hostile.

mod needed;

use std::path::Path;

use git2::Oid;

use crate::config::Remote;
use crate::error::{Error, Kind, Result};
use crate::git::refs;
use crate::git::repository::{OWN_ORIGIN, Repository};
use crate::history::Snapshot;
use crate::path::lossy;
use crate::progress::Progress;
use crate::restore::Selection;
use crate::transport::{self, Abilities, Advertisement, Part, Transport};

pub use needed::Cost;

/// Branches that a message names.
const NAMED: usize = 10;

/// A remote that is being fetched from.
pub struct Retrieval {
    transport: Box<dyn Transport>,
    advertised: Advertisement,
    abilities: Abilities,
    repository: Repository,
    /// There is nothing more to be had.
    is_whole: bool,
    /// The commit of which everything is here.
    whole_commit: Option<Oid>,
}

/// What a remote has under a branch's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// The branch, in full, or `HEAD`.
    pub branch: String,
    /// Its commit.
    pub commit: Oid,
}

/// A repository on a disk, to be looked into where it is, and the branch that is meant.
///
/// # Errors
/// As [`Retrieval::tip`], and what is wrong with the repository.
pub fn open_in_place(path: &Path, branch: Option<&str>) -> Result<(Repository, Tip)> {
    if matches!(path.try_exists(), Ok(false)) {
        let text = format!("there is nothing at {}", lossy(path.as_os_str().as_encoded_bytes()));
        return Err(Error::new(Kind::RemoteUnreachable, text));
    }
    let repository = Repository::open(path)?;
    let mut references: std::collections::BTreeMap<String, Oid> =
        repository.references()?.into_iter().collect();
    if let Some(head) = repository.reference("HEAD")? {
        references.insert("HEAD".to_owned(), head);
    }
    let tip = choose(&Advertisement { references, haves: Vec::new() }, branch)?;
    Ok((repository, tip))
}

impl Retrieval {
    /// Connects, and takes what comes into a repository at `scratch`, which is made or gone on with. `state_dir` is where
    /// known hosts of SSH are looked for.
    ///
    /// # Errors
    /// What the remote says; [`Kind::RemoteUnreachable`] if there is none.
    pub fn begin(remote: &Remote, scratch: &Path, state_dir: &Path, progress: &Progress) -> Result<Self> {
        // Known hosts lie two levels above a repository of ours.
        let stands_for = state_dir.join("repos").join("restored.git");
        let connected = transport::connect_to_fetch(remote, &stands_for, progress)?;
        let mut transport = connected.ok_or_else(|| {
            Error::new(Kind::RemoteUnreachable, format!("there is nothing at {}", remote.url))
        })?;
        let advertised = transport.advertise()?;
        let abilities = transport.abilities();
        let (repository, _) = Repository::open_or_create(scratch, "refs/heads/main", OWN_ORIGIN, OWN_ORIGIN)?;
        Ok(Self { transport, advertised, abilities, repository, is_whole: false, whole_commit: None })
    }

    /// Where the things are taken in.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The branch that is meant: the one named, the only one, `main`, or what the remote itself calls its head.
    pub fn tip(&self, branch: Option<&str>) -> Result<Tip> {
        choose(&self.advertised, branch)
    }

    /// Fetches the commits up to `tip` and nothing that is in them, so that an earlier state can be chosen; tags too.
    /// A remote that cannot leave things out sends its whole history.
    pub fn commits(&mut self, tip: Oid, progress: &Progress) -> Result<()> {
        let Self { transport, repository, abilities, advertised, is_whole, .. } = self;
        if abilities.leaves_out {
            transport.fetch_part(repository, &[tip], Part::Commits, progress)?;
        } else if !*is_whole {
            transport.fetch(repository, tip, progress)?;
            *is_whole = true;
        }
        for (name, target) in &advertised.references {
            if name.starts_with("refs/tags/") && repository.has_commit(*target) {
                refs::move_reference(repository, name, repository.reference(name)?, *target)?;
            }
        }
        Ok(())
    }

    /// Whether the names of a snapshot can be had without what is in the files, and the files by themselves.
    pub fn gives_parts(&self) -> bool {
        self.abilities.leaves_out && self.abilities.shallow && self.abilities.single_objects
    }

    /// Fetches a commit with all its names and no content; without [`Retrieval::gives_parts`], with everything.
    pub fn names(&mut self, commit: Oid, tip: Oid, progress: &Progress) -> Result<()> {
        let part = if self.gives_parts() { Part::Names } else { Part::Snapshot };
        self.snapshot(commit, tip, part, progress)
    }

    /// Fetches a commit with everything in it, by one request where the remote can do that.
    pub fn whole(&mut self, commit: Oid, tip: Oid, progress: &Progress) -> Result<()> {
        self.snapshot(commit, tip, Part::Snapshot, progress)
    }

    /// Fetches what says how a snapshot whose names are here is encrypted, and its key where it is there for somebody.
    pub fn encryption(&mut self, snapshot: &Snapshot, progress: &Progress) -> Result<()> {
        let wanted = needed::encryption(&self.repository, snapshot)?;
        self.missing(wanted, progress)
    }

    /// Fetches the records of all directories of a snapshot whose names are here.
    pub fn records(&mut self, snapshot: &Snapshot, progress: &Progress) -> Result<()> {
        let records = needed::records(&self.repository, snapshot, &Selection::Everything, progress)?;
        self.missing(records, progress)
    }

    /// Fetches those of these objects that are not here yet.
    pub fn missing(&mut self, mut objects: Vec<Oid>, progress: &Progress) -> Result<()> {
        {
            let here = self.repository.objects()?;
            objects.retain(|object| !here.exists(*object));
        }
        self.objects(&objects, progress)
    }

    fn snapshot(&mut self, commit: Oid, tip: Oid, part: Part, progress: &Progress) -> Result<()> {
        if self.has_all_of(commit) {
            return Ok(());
        }
        let is_offered = commit == tip || self.abilities.earlier_commits;
        if self.abilities.shallow && is_offered {
            self.transport.fetch_part(&self.repository, &[commit], part, progress)?;
        } else {
            self.transport.fetch(&self.repository, tip, progress)?;
            self.is_whole = true;
        }
        if self.repository.has_commit(commit) {
            self.whole_commit = Some(commit).filter(|_| matches!(part, Part::Snapshot)).or(self.whole_commit);
            return Ok(());
        }
        let text = format!("the remote sent a pack without {commit}, which it was asked for");
        Err(Error::new(Kind::RemoteRefused, text))
    }

    fn has_all_of(&self, commit: Oid) -> bool {
        self.is_whole || self.whole_commit == Some(commit)
    }

    /// Fetches what a plan of a restore of `selection` needs beyond the names: records, targets of links, and contents of
    /// which no record tells the size. What the restore itself would need comes back.
    pub fn outline(
        &mut self,
        snapshot: &Snapshot,
        tip: Oid,
        selection: &Selection,
        progress: &Progress,
    ) -> Result<Cost> {
        if self.has_all_of(snapshot.id) || !self.gives_parts() {
            return Ok(Cost::Everything);
        }
        let outlined = needed::records(&self.repository, snapshot, selection, progress)
            .and_then(|records| self.objects(&records, progress))
            .and_then(|()| needed::contents(&self.repository, snapshot, selection, progress))
            .and_then(|needed| self.objects(&needed.untold, progress).map(|()| needed.cost));
        match outlined {
            Err(error) if error.kind() == Kind::RemoteRefused => {
                self.snapshot(snapshot.id, tip, Part::Snapshot, progress)?;
                Ok(Cost::Everything)
            }
            outlined => outlined,
        }
    }

    /// Fetches what a restore of `selection` needs beyond the names. `announce` is told what that is before it is fetched.
    pub fn contents(
        &mut self,
        snapshot: &Snapshot,
        tip: Oid,
        selection: &Selection,
        announce: &mut dyn FnMut(Cost) -> Result<()>,
        progress: &Progress,
    ) -> Result<()> {
        if self.has_all_of(snapshot.id) || !self.gives_parts() {
            return Ok(());
        }
        if *selection == Selection::Everything {
            announce(Cost::Everything)?;
            return self.snapshot(snapshot.id, tip, Part::Snapshot, progress);
        }
        match self.alone(snapshot, selection, announce, progress) {
            Err(error) if error.kind() == Kind::RemoteRefused => {
                announce(Cost::Everything)?;
                self.snapshot(snapshot.id, tip, Part::Snapshot, progress)
            }
            fetched => fetched,
        }
    }

    /// The same, object by object.
    fn alone(
        &mut self,
        snapshot: &Snapshot,
        selection: &Selection,
        announce: &mut dyn FnMut(Cost) -> Result<()>,
        progress: &Progress,
    ) -> Result<()> {
        let records = needed::records(&self.repository, snapshot, selection, progress)?;
        self.objects(&records, progress)?;
        let needed = needed::contents(&self.repository, snapshot, selection, progress)?;
        announce(needed.cost)?;
        self.objects(&needed.all, progress)
    }

    fn objects(&mut self, objects: &[Oid], progress: &Progress) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        self.transport.fetch_part(&self.repository, objects, Part::Objects, progress)
    }
}

fn choose(advertised: &Advertisement, wanted: Option<&str>) -> Result<Tip> {
    let references = &advertised.references;
    let tip = |branch: &str| {
        references.get(branch).map(|commit| Tip { branch: branch.to_owned(), commit: *commit })
    };
    if let Some(wanted) = wanted {
        let full =
            if wanted.starts_with("refs/") { wanted.to_owned() } else { format!("refs/heads/{wanted}") };
        return tip(&full)
            .ok_or_else(|| no_branch(advertised, &format!("the remote has no branch {wanted}")));
    }
    let mut branches = references
        .keys()
        .filter(|name| name.starts_with("refs/heads/") && !name.starts_with("refs/heads/backupbot/"));
    let first = branches.next();
    if let (Some(only), None) = (first, branches.next()) {
        return tip(only).ok_or_else(|| no_branch(advertised, "the remote has no branch"));
    }
    tip("refs/heads/main").or_else(|| tip("HEAD")).ok_or_else(|| {
        let what = if first.is_some() { "the remote has several branches" } else { "the remote is empty" };
        no_branch(advertised, what)
    })
}

fn no_branch(advertised: &Advertisement, what: &str) -> Error {
    let branches = advertised.references.keys().filter_map(|name| name.strip_prefix("refs/heads/"));
    let named: Vec<String> = branches.take(NAMED).map(|name| lossy(name.as_bytes())).collect();
    let hint = match named.as_slice() {
        [] => "there is nothing to restore from".to_owned(),
        named => format!("name one with --branch, such as {}", named.join(", ")),
    };
    Error::new(Kind::Config, format!("{what}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised(names: &[&str]) -> Advertisement {
        let oid = |byte: u8| Oid::from_bytes(&[byte; 20]).unwrap();
        let references = names.iter().zip(1..).map(|(name, byte)| ((*name).to_owned(), oid(byte))).collect();
        Advertisement { references, haves: Vec::new() }
    }

    #[test]
    fn the_branch_that_is_meant_is_the_named_the_only_main_or_the_head() {
        let chosen = |names: &[&str], wanted| choose(&advertised(names), wanted).map(|tip| tip.branch);
        assert_eq!(chosen(&["HEAD", "refs/heads/x"], None).unwrap(), "refs/heads/x");
        let rescue = "refs/heads/backupbot/rescue/a/b";
        assert_eq!(chosen(&["refs/heads/x", rescue], None).unwrap(), "refs/heads/x");
        assert_eq!(chosen(&["refs/heads/a", "refs/heads/main"], None).unwrap(), "refs/heads/main");
        assert_eq!(chosen(&["HEAD", "refs/heads/a", "refs/heads/b"], None).unwrap(), "HEAD");
        assert_eq!(chosen(&["refs/heads/a", "refs/heads/b"], Some("b")).unwrap(), "refs/heads/b");
        assert_eq!(chosen(&[rescue, "refs/heads/b"], Some(rescue)).unwrap(), rescue);
        let error = chosen(&["refs/heads/a", "refs/heads/b"], None).unwrap_err().to_string();
        assert!(error.contains("--branch") && error.contains("a, b"), "{error}");
        assert!(chosen(&["refs/heads/a"], Some("c")).unwrap_err().to_string().contains("no branch c"));
        assert!(chosen(&[], None).unwrap_err().to_string().contains("nothing to restore"));
    }
}
