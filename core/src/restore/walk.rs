//! The walk through a snapshot and the target, side by side: what stands there, what should, and what follows.
//!
//! A plan and a restore are the same walk; with [`Hands`] the steps are also taken. A directory is decided before what
//! is in it, files before directories, names in their order, so both tell the same steps in the same order. Directories
//! are made when something in them is wanted, in the walk itself; everything else is given to the hands, except files
//! with several names, which the walk writes itself because their other names have to find them.

mod directories;
mod leaves;
mod links;
mod roots;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::bounds::repository_bytes;
use super::finish::{Finish, Open, release};
use super::hands::{Hands, concerns_everybody, mode_without_record};
use super::report::{Named, Report};
use super::selection::{Chosen, Selection};
use super::step::{Action, Step};
use super::target::{Owners, is_directory, is_temporary};
use super::{Destination, Existing, Policies, Request, Tell};
use crate::beneath::EntryKind;
use crate::crypt::unsealer::Seal;
use crate::error::{Kind, Result};
use crate::git::contents::{ContentReader, Contents};
use crate::git::objects::ObjectDatabase;
use crate::history::directory::{Directory, Place as Trees, Problem};
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;
use crate::tree::MAX_DEPTH;
use links::Linked;

/// How often the bounds are looked at.
const CHECK_EVERY: u64 = 4096;

/// Walks everything that is asked for. What happened (without hands: what would), and by how much the target grows.
pub fn walk(
    request: &Request<'_>,
    contents: &Contents,
    hands: Option<&Hands<'_>>,
    tell: Tell<'_>,
    progress: &Progress,
) -> Result<(Report, u64)> {
    let objects = request.repository.objects()?;
    let mut walker = Walker {
        request: *request,
        reader: contents.reader(),
        objects: &objects,
        owners: Owners::new(),
        as_root: rustix::process::geteuid().is_root(),
        hands,
        tell,
        progress,
        report: Report::default(),
        grows: 0,
        entries: 0,
        bytes: 0,
        repository_bytes: repository_bytes(request.repository.path()),
        links: HashMap::new(),
    };
    let roots = request.snapshot.roots(&objects)?;
    if *request.selection == Selection::Everything {
        walker.strays(&roots)?;
    }
    for root in roots {
        let chosen = request.selection.of_root(&root.name)?;
        if matches!(chosen, Chosen::Nothing) {
            continue;
        }
        walker.links.clear();
        walker.root(&root.name, root.place, &chosen)?;
    }
    walker.check_bounds()?;
    Ok((walker.report, walker.grows))
}

/// A directory that is still to be walked.
struct Waiting {
    above: Arc<Open>,
    name: Vec<u8>,
    path: RelPath,
    trees: Trees,
    /// A listing of the directory above has exactly this name.
    stands: bool,
}

/// The walk.
pub(super) struct Walker<'w, 'o> {
    request: Request<'w>,
    reader: ContentReader<'w>,
    objects: &'w ObjectDatabase<'o>,
    owners: Owners,
    as_root: bool,
    hands: Option<&'w Hands<'w>>,
    tell: Tell<'w>,
    progress: &'w Progress,
    report: Report,
    grows: u64,
    entries: u64,
    bytes: u64,
    repository_bytes: u64,
    links: HashMap<String, Linked>,
}

impl Walker<'_, '_> {
    pub(super) fn policies(&self) -> &Policies {
        self.request.policies
    }

    pub(super) fn is_dry(&self) -> bool {
        self.hands.is_none()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.hands.map_or_else(|| self.progress.check(), Hands::check)
    }

    pub(super) fn step(&self, root: &RootName, path: &RelPath, kind: EntryKind, action: Action) -> Step {
        Step { root: root.clone(), path: path.clone(), kind, action, bytes: 0 }
    }

    pub(super) fn tell(&mut self, step: &Step) -> Result<()> {
        (self.tell)(step)
    }

    pub(super) fn count(&mut self, step: &Step) {
        match self.hands {
            Some(hands) => hands.count(step),
            None => self.report.count(step),
        }
    }

    /// Tells and counts a step that takes no doing.
    pub(super) fn done(&mut self, step: &Step) -> Result<()> {
        self.tell(step)?;
        self.count(step);
        Ok(())
    }

    pub(super) fn problem(&mut self, root: &RootName, path: &RelPath, why: impl Into<String>) {
        match self.hands {
            Some(hands) => hands.problem(root, path, why),
            None => self.report.problem(Named::new(root, path, why)),
        }
    }

    fn remark(&mut self, root: &RootName, path: &RelPath, what: impl Into<String>) {
        match self.hands {
            Some(hands) => hands.remark(root, path, what),
            None => self.report.remark(Named::new(root, path, what)),
        }
    }

    fn release(&self, open: Arc<Open>) {
        if let Some(hands) = self.hands {
            release(open, hands);
        }
    }

    fn check_bounds(&self) -> Result<()> {
        self.policies().bounds.check(self.entries, self.bytes, self.repository_bytes)
    }

    fn subtree(&mut self, mut stack: Vec<Waiting>, chosen: &Chosen) -> Result<()> {
        while let Some(next) = stack.pop() {
            self.check()?;
            if next.path.components().count() > MAX_DEPTH {
                let why = format!("more than {MAX_DEPTH} directories below each other; the rest is left out");
                self.problem(&next.above.root.clone(), &next.path, why);
                self.release(next.above);
                continue;
            }
            self.enter(next, chosen, &mut stack)?;
        }
        Ok(())
    }

    /// Decides about a directory and, if it is or will be one, walks it.
    fn enter(&mut self, next: Waiting, chosen: &Chosen, stack: &mut Vec<Waiting>) -> Result<()> {
        let Waiting { above, name, path, trees, stands } = next;
        let root = above.root.clone();
        let standing = match above.place() {
            Some(place) if stands => place.look_at(&name)?,
            _ => None,
        };
        let open = match standing {
            None => Open::absent(root, path, Some(above)),
            Some(look) if is_directory(&look) => {
                let Some(place) = above.place() else { return Ok(()) };
                match place.enter(&name) {
                    Ok(inner) => Open::there(root, path, inner, Some(above)),
                    Err(error) => {
                        self.conflict(&root, &path, EntryKind::Directory, error.to_string())?;
                        self.release(above);
                        return Ok(());
                    }
                }
            }
            Some(look) => {
                // Something else stands where a directory is needed.
                if !self.make_way_for_directory(&above, &root, &path, &name, &look)? {
                    self.release(above);
                    return Ok(());
                }
                Open::absent(root, path, Some(above))
            }
        };
        self.directory(Arc::new(open), trees, chosen, stack)
    }

    fn conflict(
        &mut self,
        root: &RootName,
        path: &RelPath,
        kind: EntryKind,
        why: impl Into<String>,
    ) -> Result<()> {
        let step = self.step(root, path, kind, Action::Conflict(why.into()));
        self.done(&step)
    }

    /// Walks one directory: decides what is in it, and leaves the directories in it on the stack.
    fn directory(
        &mut self,
        open: Arc<Open>,
        trees: Trees,
        chosen: &Chosen,
        stack: &mut Vec<Waiting>,
    ) -> Result<()> {
        let root = open.root.clone();
        let read = Directory::at(self.objects, trees, &root, &open.path);
        let mut directory = match read {
            Ok(directory) => directory,
            Err(error) => {
                let why = format!("what is in it cannot be read: {error}");
                self.conflict(&root, &open.path, EntryKind::Directory, why)?;
                self.release(open);
                return Ok(());
            }
        };
        let is_covered = chosen.covers(&open.path, true);
        self.take_remarks(&open, &directory, chosen, is_covered);
        let mode = directory.own.as_ref().map_or(mode_without_record(true, true), |own| own.mode);
        let finish = Finish { record: directory.own.take(), mode };
        if !self.own_directory(&open, finish, is_covered)? {
            self.release(open);
            return Ok(());
        }
        let names = match open.place() {
            Some(place) if !open.is_new() => place.names(),
            _ => Ok(Vec::new()),
        };
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                self.conflict(&root, &open.path, EntryKind::Directory, error.to_string())?;
                self.release(open);
                return Ok(());
            }
        };
        self.surplus(&open, &directory, &names, chosen, is_covered)?;
        let stands = |name: &[u8]| names.binary_search_by(|other| other.as_bytes().cmp(name)).is_ok();
        let mut directories = Vec::new();
        for node in std::mem::take(&mut directory.nodes) {
            self.entries += 1;
            if self.entries.is_multiple_of(CHECK_EVERY) {
                self.check_bounds()?;
            }
            self.check()?;
            let path = open.path.join(&node.name);
            if node.kind == EntryKind::Directory {
                if let Some(trees) = node.place()
                    && (chosen.covers(&path, true) || chosen.may_hold(&path))
                {
                    let stands = stands(&node.name);
                    directories.push(Waiting { above: open.clone(), name: node.name, path, trees, stands });
                }
            } else if chosen.covers(&path, false) {
                let stands = stands(&node.name);
                if let Err(error) = self.leaf(&open, &node, &path, stands, chosen) {
                    // What nothing here opens is no single file's trouble.
                    let is_locked = error.kind() == Kind::EncryptionKey
                        && self.reader.contents().must_open(Some(Seal::OpenPgp)).is_err();
                    if self.check().is_err() || concerns_everybody(&error) || is_locked {
                        return Err(error);
                    }
                    self.conflict(&root, &path, EntryKind::File, error.to_string())?;
                }
            } else if stands(&node.name) {
                self.notice_neighbour(&open, &node, &path);
            }
        }
        stack.extend(directories.into_iter().rev());
        self.release(open);
        Ok(())
    }

    /// What did not fit in the snapshot itself.
    fn take_remarks(&mut self, open: &Open, directory: &Directory, chosen: &Chosen, is_covered: bool) {
        for remark in &directory.remarks {
            let root = open.root.clone();
            if remark.name.is_empty() {
                if is_covered || !matches!(remark.problem, Problem::NoMetadata | Problem::Unrecorded) {
                    self.remark(&root, &open.path, remark.problem.to_string());
                }
                continue;
            }
            // An impossible name may hold anything, but no slash: Git's own format forbids it.
            if remark.name.contains(&b'/') {
                self.problem(&root, &open.path, remark.to_string());
                continue;
            }
            let path = open.path.join(&remark.name);
            if !chosen.covers(&path, false) {
                continue;
            }
            match remark.problem {
                Problem::Gitlink | Problem::ImpossibleName | Problem::Missing => {
                    self.problem(&root, &path, remark.problem.to_string());
                }
                _ => self.remark(&root, &path, remark.problem.to_string()),
            }
        }
    }

    /// Whether what stands at a path is safe in a backup, as far as it is known. Elsewhere than in place nobody asks.
    pub(super) fn is_saved(&self, root: &RootName, path: &RelPath, is_dir: bool) -> bool {
        if !matches!(self.request.destination, Destination::InPlace(_)) {
            return true;
        }
        let policies = self.policies();
        let is_excluded =
            policies.excluded.get(root).is_some_and(|rules| !rules.verdict(path, is_dir).is_included());
        let is_unsaved = policies.unsaved.get(root).is_some_and(|paths| paths.contains(path));
        !is_excluded && !is_unsaved
    }

    /// What stands there and is not in the snapshot: leftovers of our own go, others if that was asked for.
    fn surplus(
        &mut self,
        open: &Arc<Open>,
        directory: &Directory,
        names: &[OsString],
        chosen: &Chosen,
        is_covered: bool,
    ) -> Result<()> {
        let Some(place) = open.place() else { return Ok(()) };
        let remarked: BTreeSet<&[u8]> =
            directory.remarks.iter().map(|remark| remark.name.as_slice()).collect();
        let is_known = |name: &[u8]| {
            directory.nodes.binary_search_by(|node| node.name.as_slice().cmp(name)).is_ok()
                || remarked.contains(name)
        };
        let delete = self.policies().delete && self.policies().existing != Existing::Compare;
        for name in names {
            let name = name.as_bytes();
            if is_known(name) {
                continue;
            }
            if is_temporary(name) {
                if !self.is_dry()
                    && let Err(error) = place.sweep(name)
                {
                    self.problem(&open.root, &open.path.join(name), error.to_string());
                }
                continue;
            }
            let path = open.path.join(name);
            let is_listed = matches!(chosen, Chosen::Exactly(_));
            let is_wanted = if is_listed {
                chosen.covers(&path, true) || chosen.may_hold(&path)
            } else {
                is_covered || chosen.covers(&path, false)
            };
            if delete && is_wanted {
                let limit = is_listed.then_some(chosen);
                if let Err(error) = self.remove_tree(&open.root.clone(), place, name, &path, limit) {
                    self.check()?;
                    self.problem(&open.root, &path, error.to_string());
                }
            }
        }
        Ok(())
    }
}
