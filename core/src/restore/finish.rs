//! Directories under restore: who is still busy in one, and what it gets when nobody is.
//!
//! Everything that happens in a directory moves its time, and may need a mode that lets us write. So a directory is
//! dressed last: when the walk has left it and every step in it and below it is done. Whoever works in it holds an
//! [`Open`]; the last one to [`release`] it does the dressing.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::hands::Hands;
use super::target::{Clothes, Place};
use crate::error::Result;
use crate::metadata::Record;
use crate::names::RootName;
use crate::path::RelPath;

/// A directory that the walk is in, or that something waits to be done in.
#[derive(Debug)]
pub struct Open {
    /// The root that it belongs to.
    pub root: Arc<RootName>,
    /// Below its root.
    pub path: RelPath,
    /// Where it is on disk; empty while it is not there (and in a dry run that would make it, for good).
    place: OnceLock<Place>,
    /// It is new or was made by a dry run: nothing can stand in it.
    is_new: OnceLock<()>,
    /// What it gets at the end.
    finish: OnceLock<Finish>,
    /// The mode that it had before we let ourselves in.
    opened_up: Mutex<Option<u32>>,
    /// The directory that it is in; `None` at the top.
    above: Option<Arc<Open>>,
}

/// What a directory gets at the end.
#[derive(Debug)]
pub struct Finish {
    /// As recorded.
    pub record: Option<Record>,
    /// Its mode.
    pub mode: u32,
}

impl Drop for Open {
    /// A chain as long as a hostile tree is deep must not be dropped by recursion.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some(mut above) = next.and_then(Arc::into_inner) {
            next = above.above.take();
        }
    }
}

impl Open {
    /// A directory of which nothing is on disk yet, in `above`.
    pub fn absent(root: Arc<RootName>, path: RelPath, above: Option<Arc<Open>>) -> Self {
        Self {
            root,
            path,
            place: OnceLock::new(),
            is_new: OnceLock::new(),
            finish: OnceLock::new(),
            opened_up: Mutex::new(None),
            above,
        }
    }

    /// One that is there.
    pub fn there(root: Arc<RootName>, path: RelPath, place: Place, above: Option<Arc<Open>>) -> Self {
        let open = Self::absent(root, path, above);
        let _ = open.place.set(place);
        open
    }

    /// Where it is, if it is there.
    pub fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// The directory that it is in.
    pub fn above(&self) -> Option<&Arc<Open>> {
        self.above.as_ref()
    }

    /// Whether it is there, or would be by now.
    pub fn is_there(&self) -> bool {
        self.place.get().is_some() || self.is_new.get().is_some()
    }

    /// Whether nothing can have stood in it before.
    pub fn is_new(&self) -> bool {
        self.is_new.get().is_some()
    }

    /// It was made; in a dry run, without a place.
    pub fn made(&self, place: Option<Place>) {
        let _ = self.is_new.set(());
        if let Some(place) = place {
            let _ = self.place.set(place);
        }
    }

    /// It is to be dressed at the end.
    pub fn dress_with(&self, finish: Finish) {
        let _ = self.finish.set(finish);
    }

    /// Lets ourselves write in it, where we own it and its mode forbids it. Whether anything changed.
    pub fn open_up(&self) -> Result<bool> {
        let Some(place) = self.place.get() else { return Ok(false) };
        let Some(before) = place.open_up()? else { return Ok(false) };
        self.opened_up.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(before);
        Ok(true)
    }
}

/// One less works in `open`; the last one dresses it, and so on upwards.
pub fn release(open: Arc<Open>, hands: &Hands<'_>) {
    let mut next = Some(open);
    while let Some(mut open) = next.and_then(Arc::into_inner) {
        next = open.above.take();
        let Some(place) = open.place.get() else { continue };
        let before = open.opened_up.lock().unwrap_or_else(PoisonError::into_inner).take();
        let dressed = match open.finish.get() {
            Some(finish) => {
                let clothes = Clothes {
                    record: finish.record.as_ref(),
                    mode: finish.mode,
                    set_id: hands.policies().set_id,
                    as_root: hands.as_root(),
                };
                match place.descriptor() {
                    Ok(held) => {
                        let dressed = clothes.put_on(held.as_fd(), hands.owners());
                        hands.dressed(&open.root, &open.path, &dressed);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            None => before.map_or(Ok(()), |mode| place.set_mode(mode)),
        };
        if let Err(error) = dressed {
            hands.problem(&open.root, &open.path, error.to_string());
        }
    }
}
