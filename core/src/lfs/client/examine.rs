//! Whether an object at a remote is what its name says, and putting a good one in the place of a bad one, where a remote
//! can be told to.
//!
//! In: a pointer. Out: what is wrong with it, if anything. A directory is read where it is; from a server the object is
//! downloaded into a store that the caller throws away.

use super::local::Directory;
use super::{Client, Reason, Refusal, Way, download};
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;

impl Client {
    /// Reads one object at the remote and hashes it; what is wrong with it, if anything. `passing` is a store for what is on
    /// its way.
    ///
    /// # Errors
    /// What concerns all objects, and what keeps us from storing them here.
    pub fn examine(
        &self,
        pointer: &Pointer,
        passing: &Objects,
        progress: &Progress,
    ) -> Result<Option<Refusal>> {
        match &self.0 {
            Way::Local(directory) => directory.examine(pointer, progress),
            Way::Server(server) => {
                let place = passing.repository();
                Room::of(place)?.must_hold(pointer.size, place)?;
                passing.remove(&pointer.id)?;
                let one = std::slice::from_ref(pointer);
                let outcome = download::download(server, one, passing, progress);
                passing.remove(&pointer.id)?;
                Ok(outcome?.failed.pop().map(|(_, refusal)| refusal))
            }
        }
    }

    /// Puts the object of `store`, which is sound, in the place of what the remote has under its name; whether that was
    /// possible. A server that has an object takes no other one.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn replace(&self, pointer: &Pointer, store: &Objects, progress: &Progress) -> Result<bool> {
        match &self.0 {
            Way::Local(directory) => directory.replace(pointer, store, progress),
            Way::Server(_) => Ok(false),
        }
    }
}

impl Directory {
    fn examine(&self, pointer: &Pointer, progress: &Progress) -> Result<Option<Refusal>> {
        let refusal = |reason, why: &str| {
            let text = format!("the large object {} of {} bytes {why}", pointer.id, pointer.size);
            Some(Refusal { reason, error: Error::new(Kind::RemoteRefused, text) })
        };
        let found = match self.objects().is_sound(pointer, progress) {
            Ok(Some(true)) => return Ok(None),
            Ok(Some(false)) => refusal(Reason::Damaged, "is damaged there"),
            Ok(None) => refusal(Reason::Missing, "is not there"),
            Err(error) if error.kind() == Kind::Io => {
                refusal(Reason::Damaged, &format!("cannot be read there: {error}"))
            }
            Err(error) => return Err(error),
        };
        self.has_to_be_there()?;
        Ok(found)
    }
}
