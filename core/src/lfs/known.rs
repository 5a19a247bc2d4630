//! Large contents as they are meant to be here: those that the local store has, and those that were taken away because
//! remotes confirmed to have them.

use std::fs::File;

use super::{Objects, Pointer};
use crate::error::Result;
use crate::git::contents::LargeContents;
use crate::names::{RemoteName, RepositoryName};
use crate::progress::Progress;
use crate::store::StoreReader;

/// What is here, and what is known to be elsewhere.
#[derive(Debug)]
pub struct Known {
    objects: Objects,
    reader: StoreReader,
    repository: RepositoryName,
    remotes: Vec<RemoteName>,
}

impl Known {
    /// Contents of `objects`; that `remotes` have one excuses its absence.
    pub fn new(
        objects: Objects,
        reader: StoreReader,
        repository: RepositoryName,
        remotes: Vec<RemoteName>,
    ) -> Self {
        Self { objects, reader, repository, remotes }
    }
}

impl LargeContents for Known {
    fn open(&self, pointer: &Pointer, progress: &Progress) -> Result<File> {
        LargeContents::open(&self.objects, pointer, progress)
    }

    fn can_be_had(&self, pointer: &Pointer) -> Result<bool> {
        self.objects.has(pointer)
    }

    fn is_elsewhere(&self, pointer: &Pointer) -> Result<bool> {
        if self.objects.has(pointer)? {
            return Ok(false);
        }
        for remote in &self.remotes {
            if self.reader.large(&self.repository, remote, &pointer.id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
