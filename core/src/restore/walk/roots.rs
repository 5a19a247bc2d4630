//! Where the walk begins: each root in the target, and what is in none.

use std::path::Path;
use std::sync::Arc;

use super::super::Destination;
use super::super::finish::Open;
use super::super::report::Named;
use super::super::selection::Chosen;
use super::super::target::Target;
use super::{Waiting, Walker};
use crate::error::Result;
use crate::history::Root;
use crate::history::directory::Place as Trees;
use crate::names::RootName;
use crate::path::{RelPath, lossy};
use crate::tree::Listing;

/// What stands at the top of a repository besides roots, and is no file of anybody's.
const OF_THE_REPOSITORY: [&[u8]; 4] = [b".backupbot", b".gitattributes", b".git-crypt", b".lfsconfig"];

impl Walker<'_, '_> {
    /// What stands at the top of the repository and is no root, as in one that another program made.
    pub(super) fn strays(&mut self, roots: &[Root]) -> Result<()> {
        let top = Listing::read(self.objects, self.request.snapshot.tree, b"")?;
        for (name, _) in top.iter() {
            let is_root = roots.iter().any(|root| root.name.as_str().as_bytes() == name);
            if is_root || OF_THE_REPOSITORY.contains(&name) {
                continue;
            }
            let reason =
                "it is in no root: only what is in directories at the top of a repository is restored";
            let stray = Named { path: lossy(name), path_b64: None, reason: reason.to_owned() };
            match self.hands {
                Some(hands) => hands.named_problem(stray),
                None => self.report.problem(stray),
            }
        }
        Ok(())
    }

    pub(super) fn root(&mut self, name: &RootName, trees: Trees, chosen: &Chosen) -> Result<()> {
        let shared = Arc::new(name.clone());
        let waiting = match self.request.destination {
            Destination::Directory(path) => {
                let top = match (self.hands, path.exists()) {
                    (None, false) => {
                        let top = Open::absent(shared, RelPath::root(), None);
                        top.made(None);
                        top
                    }
                    _ => Open::there(shared, RelPath::root(), Target::make(path)?.top(), None),
                };
                let directory = name.as_str().as_bytes().to_vec();
                let stands = match top.place() {
                    Some(place) => place.look_at(&directory)?.is_some(),
                    None => false,
                };
                Waiting { above: Arc::new(top), name: directory, path: RelPath::root(), trees, stands }
            }
            Destination::InPlace(places) => {
                let Some(path) = places.get(name) else {
                    self.problem(
                        name,
                        &RelPath::root(),
                        "no directory is configured for it any more: restore it with --to",
                    );
                    return Ok(());
                };
                return self.in_place(shared, path, trees, chosen);
            }
        };
        self.subtree(vec![waiting], chosen)
    }

    /// A root whose own directory is where it was.
    fn in_place(&mut self, root: Arc<RootName>, path: &Path, trees: Trees, chosen: &Chosen) -> Result<()> {
        let is_there = path.symlink_metadata().is_ok();
        let top = if is_there {
            Open::there(root, RelPath::root(), Target::open_itself(path)?.top(), None)
        } else if self.is_dry() {
            let top = Open::absent(root, RelPath::root(), None);
            top.made(None);
            top
        } else {
            let top = Open::absent(root, RelPath::root(), None);
            top.made(Some(Target::make(path)?.top()));
            top
        };
        let mut stack = Vec::new();
        self.directory(Arc::new(top), trees, chosen, &mut stack)?;
        self.subtree(stack, chosen)
    }
}
