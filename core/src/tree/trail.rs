//! Looking into many directories of one tree, one after the other: the trees on the way to the one last asked for are kept, so
//! that a walk over neighbours reads each once.

use git2::{Odb, Oid};

use super::{Entry, Listing, lookup};
use crate::error::Result;
use crate::path::{RelPath, escape_component};

/// The way to the directory last asked for.
pub struct Trail<'o> {
    objects: &'o Odb<'o>,
    top_path: Vec<u8>,
    top: Option<Entry>,
    /// What follows where a file stands in a directory's place; `Ok`: there is no directory.
    meets_file: fn(&[u8]) -> Result<()>,
    /// Escaped.
    names: Vec<Vec<u8>>,
    /// The top's, and one for each name once it was asked for; `None` where the tree has none.
    listings: Vec<Option<Listing<'o>>>,
}

impl<'o> Trail<'o> {
    /// A trail in the directory at `top_path` of `tree`.
    ///
    /// # Errors
    /// A tree on the way that cannot be read.
    pub fn new(
        objects: &'o Odb<'o>,
        tree: Option<Oid>,
        top_path: Vec<u8>,
        meets_file: fn(&[u8]) -> Result<()>,
    ) -> Result<Self> {
        let top = match tree {
            Some(tree) => lookup(objects, tree, &top_path)?,
            None => None,
        };
        Ok(Self { objects, top_path, top, meets_file, names: Vec::new(), listings: Vec::new() })
    }

    /// Whether the tree has something at the directory's place. Nothing in it is read.
    ///
    /// # Errors
    /// A tree on the way that cannot be read.
    pub fn has(&mut self, directory: &RelPath) -> Result<bool> {
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Ok(self.top.is_some());
        };
        let listing = self.listing(&parent)?;
        Ok(listing.is_some_and(|listing| listing.get(&escape_component(name)).is_some()))
    }

    /// What is in a directory; `None` if it is not there.
    ///
    /// # Errors
    /// A tree that cannot be read.
    pub fn listing(&mut self, directory: &RelPath) -> Result<Option<&Listing<'o>>> {
        if self.listings.is_empty() {
            self.listings.push(self.open(self.top, &self.top_path)?);
        }
        let wanted: Vec<_> = directory.components().map(escape_component).collect();
        let shared = self.names.iter().zip(&wanted).take_while(|(have, want)| ***have == ***want).count();
        self.names.truncate(shared);
        self.listings.truncate(shared + 1);
        for name in wanted.iter().skip(shared) {
            let entry = self.listings.last().and_then(Option::as_ref).and_then(|listing| listing.get(name));
            self.names.push(name.to_vec());
            let path = [&self.top_path[..], b"/", &self.names.join(&b'/')].concat();
            self.listings.push(self.open(entry, &path)?);
        }
        Ok(self.listings.last().and_then(Option::as_ref))
    }

    fn open(&self, entry: Option<Entry>, path: &[u8]) -> Result<Option<Listing<'o>>> {
        match entry {
            None => Ok(None),
            Some(entry) if entry.is_tree() => Listing::read(self.objects, entry.oid, path).map(Some),
            Some(_) => (self.meets_file)(path).map(|()| None),
        }
    }
}
